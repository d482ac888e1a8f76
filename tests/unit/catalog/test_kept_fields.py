"""Which headers and query parameters of a callback are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ackbridge.catalog.kept_fields import is_credential, kept_fields
from ackbridge.catalog.loading import integration_warnings, load_integration
from ackbridge.catalog.matching import find_event_key
from ackbridge.gateway.event import make_document
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


SIGNED = (
    'verify: {type: hmac, secrets: ["env:T"], header: S, id_header: X-Id, timestamp_header: X-At'
)
NO_TIME = FILE.replace('verify: {type: header, name: X-Token, secrets: ["env:TOKEN"]', SIGNED)


@pytest.mark.parametrize(
    ("signed", "key", "is_unsigned"),
    [
        ("{body}", 'headers."x-id"', True),
        ("{body}", "query.id || id", True),
        ("{body}", "id", False),
        ("{id}.{body}", 'headers."x-id"', False),
        ("{id}.{body}", "join('/', [headers.\"x-id\", headers.other])", True),
        ("{timestamp}.{body}", 'headers."x-id"', False),
    ],
)
def test_a_delivery_cannot_be_repeated_under_another_key(
    tmp_path: Path, signed: str, key: str, is_unsigned: bool
) -> None:
    """Where neither key nor time is signed, what is signed tells deliveries apart."""
    text = NO_TIME.replace("X-At", f"X-At, signed: '{signed}'").replace(
        "event_key: id", f"event_key: {json.dumps(key)}"
    )
    file = write(tmp_path, text)
    integration = load_integration(file, {})
    assert integration.has_unsigned_key is is_unsigned
    keys = {
        find_event_key(integration, make_document({"id": "1", "a": body}, headers, {}))
        for body, headers in (
            ("b", {"x-id": "1", "other": "2"}),
            ("b", {"x-id": "3", "other": "4"}),
            ("c", {"x-id": "3", "other": "4"}),
        )
    }
    assert len(keys) == (2 if is_unsigned or "headers" in key else 1)
    warned = [str(one) for one in integration_warnings(file, {}) if "event_key" in str(one)]
    assert bool(warned) is is_unsigned
