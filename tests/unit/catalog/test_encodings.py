"""Bodies that are neither JSON nor plain forms, as providers receive them."""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.rendering import OutboundRequest, render_request
from ackbridge.catalog.wire_formats import read_xml
from ackbridge.contracts.wire import InvalidInputError
from tests.support.catalog_files import CONTEXT, acme


def request(folder: Path, encoding: str, body: Any, **payload: Any) -> OutboundRequest:
    """The rendered request."""
    parts = {"path": "/orders", "encoding": encoding, "body": body}
    integration = acme(folder, request=parts)
    context = {**CONTEXT, "payload": {**CONTEXT["payload"], **payload}}
    return render_request(integration, integration.operations["order"], context)


SOAP = {
    "soap:Envelope": {
        "@xmlns:soap": "http://schemas.xmlsoap.org/soap/envelope/",
        "soap:Body": {
            "Order": {"@id": "{call.key}", "Amount": "{payload.amount}", "Tag": "{payload.tags}"},
            "Gone": "{payload.none}",
            "Name": {"@lang": "de", "#text": "{payload.name}"},
        },
    }
}


def test_xml(tmp_path: Path) -> None:
    """A mapping with one root: `@` for attributes, `#text` beside them, lists repeat an element."""
    rendered = request(tmp_path, "xml", SOAP)
    assert rendered.headers["Content-Type"] == "application/xml"
    assert (rendered.content or b"").decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>'
        '<Order id="k1"><Amount>5</Amount><Tag>a</Tag><Tag>b</Tag></Order>'
        '<Name lang="de">Zoë &amp; co</Name></soap:Body></soap:Envelope>'
    )
    assert read_xml(rendered.content or b"")["Envelope"]["Body"]["Order"] == {
        "@id": "k1",
        "Amount": "5",
        "Tag": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("xml", {"a": 1, "b": 2}),
        ("xml", ["a"]),
        ("xml", {"a b": 1}),
        ("xml", {"a><b": 1}),
        ("xml", {"a": {"@b c": 1}}),
        ("xml", {"a": "{payload.bell}"}),
        ("form", ["a"]),
        ("text", {"a": 1}),
        ("text", ["a"]),
        ("multipart", ["a"]),
        ("multipart", {"file": {"name": "a"}}),
        ("multipart", {"file": {"content": "a", "base64": "YQ=="}}),
        ("multipart", {"file": {"base64": "?"}}),
        ("multipart", {"file": {"content": {"a": 1}}}),
    ],
)
def test_bodies_that_cannot_be_written(tmp_path: Path, encoding: str, body: Any) -> None:
    """Nothing is sent, and the error names the field and no value."""
    with pytest.raises(InvalidInputError, match=rf"request\.body: cannot be written as {encoding}"):
        request(tmp_path, encoding, body, bell="\x07")


def test_text(tmp_path: Path) -> None:
    """One value, as it is."""
    rendered = request(tmp_path, "text", "payload.name")
    assert rendered.content == "Zoë & co".encode()
    assert rendered.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_multipart(tmp_path: Path) -> None:
    """Fields and files, and the same bytes whenever the request is repeated."""
    body = {
        "purpose": "batch",
        "gone": "{payload.none}",
        "tag": "{payload.tags}",
        "file": {
            "filename": "{call.key}.csv",
            "content_type": "text/csv",
            "base64": "{base64(payload.name)}",
        },
    }
    rendered = request(tmp_path, "multipart", body)
    assert rendered == request(tmp_path, "multipart", body)
    head = f"Content-Type: {rendered.headers['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + (rendered.content or b"")).get_payload()
    assert isinstance(parts, list)
    seen = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))  # type: ignore[union-attr]  # a part is a message
        for part in parts
    ]
    assert seen == [
        ("purpose", b"batch"),
        ("tag", b"a"),
        ("tag", b"b"),
        ("file", "Zoë & co".encode()),
    ]
    file = parts[-1]
    assert (file.get_filename(), file.get_content_type()) == ("k1.csv", "text/csv")  # type: ignore[union-attr]  # a part is a message
