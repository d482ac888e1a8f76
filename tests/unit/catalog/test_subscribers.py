"""Subscriber files: defaults, and every problem with its file, line and field."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from ackbridge.catalog.json_schema import json_schema_of
from ackbridge.catalog.loading import load_catalog, load_subscriber
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.catalog.yaml_document import parse_yaml
from ackbridge.contracts.deliveries import NoticeEvent
from ackbridge.errors import IntegrationFileError, UnknownNameError
from tests.support.catalog_files import write

SHOP = """\
subscriber: shop
url: ${SHOP_URL:-https://shop.example/notices?tenant=1}
secrets: ["env:SHOP_SECRET"]
"""

ACME = """\
provider: acme
base_url: https://acme.example
operations: {order: {request: {path: /orders}, response: {mode: sync}}}
"""


def problems_of(folder: Path, text: str) -> dict[tuple[int, str], str]:
    """The problems of a file, by line and field."""
    with pytest.raises(IntegrationFileError) as caught:
        load_subscriber(write(folder, text, "shop.yaml"), {})
    return {(p.line, p.field): p.message for p in caught.value.problems}


def test_defaults(tmp_path: Path) -> None:
    """All events but `completed`, for three days."""
    shop = load_subscriber(write(tmp_path, SHOP), {})
    assert shop.url == "https://shop.example/notices?tenant=1"
    assert set(NoticeEvent) - set(shop.events) == {NoticeEvent.COMPLETED}
    assert (shop.within, shop.timeout) == (timedelta(days=3), timedelta(seconds=10))
    assert shop.response is False


def test_all_problems_are_reported(tmp_path: Path) -> None:
    """With their lines and fields, and without secrets."""
    found = problems_of(
        tmp_path,
        """\
subscriber: The Shop
url: ftp://shop.example
secrets: [whsec_MTIz, "env:A", "env:B"]
event: [failed]
events: [failed, exploded]
timeout: 2m
within: 0s
""",
    )
    assert set(found) == {
        (1, "subscriber"),
        (2, "url"),
        (3, "secrets.0"),
        (4, "event"),
        (5, "events.1"),
        (6, "timeout"),
        (7, "within"),
    }
    assert "Did you mean 'events'?" in found[4, "event"]
    assert "whsec_MTIz" not in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://x.example",
        "https://",
        "//x.example",
        "http://user:pw@x.example",
        "https://x.example/#part",
        "https://x.example/a b",
        "http://x.example:0/",
        "http://[::1",
    ],
)
def test_the_url_is_an_absolute_http_url(tmp_path: Path, url: str) -> None:
    """No other scheme, no credentials, no fragment."""
    text = SHOP.replace("${SHOP_URL:-https://shop.example/notices?tenant=1}", json.dumps(url))
    assert [field for _, field in problems_of(tmp_path, text)] == ["url"]


def test_subscribers_are_loaded_with_the_catalog(tmp_path: Path) -> None:
    """Duplicate names are a problem; an error for an unknown one lists the known ones."""
    write(tmp_path, ACME)
    assert load_catalog(tmp_path, {}).subscribers == {}
    folder = tmp_path / "subscribers"
    folder.mkdir()
    write(folder, SHOP, "shop.yaml")
    catalog = load_catalog(tmp_path, {})
    assert catalog.subscriber("shop").subscriber == "shop"
    with pytest.raises(
        UnknownNameError, match="reply_to: unknown subscriber 'shed'; known subscribers: shop"
    ):
        catalog.subscriber("shed")
    write(folder, SHOP, "shop2.yaml")
    with pytest.raises(IntegrationFileError, match="shop is already defined in"):
        load_catalog(tmp_path, {})


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    """An editor accepts a good file, and marks bad ones."""
    schema = json_schema_of(Subscriber)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    good = parse_yaml(SHOP).value
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "secrets": ["whsec_MTIz"]})
    assert not validator.is_valid({**good, "retries": 3})
