"""Which headers and query parameters of a callback are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.catalog.kept_fields import is_credential, kept_fields
from ackbridge.catalog.loading import integration_warnings, load_integration
from tests.support.catalog_files import write

from .test_callbacks import FILE


@pytest.mark.parametrize(
    ("key", "headers", "query"),
    [
        ("id", set(), set()),
        ('headers."x-id"', {"x-id"}, set()),
        ('@.headers."x-id" || query.id', {"x-id"}, {"id"}),
        ("join('/', [headers.a, query.b, headers.c.d])", {"a", "c"}, {"b"}),
        ("map(&headers.x, @)[0]", {"x"}, set()),
        ("body.headers.x", {"x"}, set()),
        ("to_string(headers)", None, set()),
        ("headers | keys(@)[0]", None, set()),
        ("query.*", set(), None),
        ("headers.authorization || headers.secret_id || query.token", set(), set()),
    ],
)
def test_only_what_expressions_name_is_kept(
    tmp_path: Path, key: str, headers: set[str] | None, query: set[str] | None
) -> None:
    """A part that is read as a whole is kept, but for credentials."""
    text = FILE.replace("event_key: id", f"event_key: {key!r}")
    integration = load_integration(write(tmp_path, text), {})
    assert kept_fields(integration, "headers", hidden={"x-token"}) == headers
    assert kept_fields(integration, "query") == query


def test_a_credential_that_is_named_is_a_warning(tmp_path: Path) -> None:
    """The expression would see nothing there."""
    text = FILE.replace("event_key: id", """event_key: 'headers."x-api-key"'""")
    warnings = integration_warnings(write(tmp_path, text), {})
    assert any("headers.x-api-key: looks like a credential" in str(one) for one in warnings)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("authorization", "cookie", "x-api-key", "apikey", "token")),
        *((name, True) for name in ("key", "access_token", "client_secret", "X-Auth-Token")),
        *((name, False) for name in ("x-event-id", "hub.mode", "keyword", "x-author", "order")),
    ],
)
def test_credentials_are_known_by_name(name: str, expected: bool) -> None:
    """Those that HTTP and providers use."""
    assert is_credential(name) is expected
