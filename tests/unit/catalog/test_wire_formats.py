"""Bodies that are not JSON."""

from __future__ import annotations

import pytest

from ackbridge.catalog.wire_formats import MAX_FIELDS, read_form, read_xml
from ackbridge.contracts.wire import InvalidInputError


def test_forms_have_texts_and_lists() -> None:
    """A value is a text, a name that is there several times has a list."""
    form = b"a=1&b=x%20y+z&c=&a=2&d%5Be%5D=%C3%A9"
    assert read_form(form) == {"a": ["1", "2"], "b": "x y z", "c": "", "d[e]": "é"}
    assert read_form(b"") == {}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("a=ü".encode(), "not a form in UTF-8"),
        (b"a=%FF", "not a form in UTF-8"),
        (b"a=1&" * (MAX_FIELDS + 1), f"more than {MAX_FIELDS} fields"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, problem: str) -> None:
    """Values that are not UTF-8, and endless forms."""
    with pytest.raises(InvalidInputError, match=problem):
        read_form(body)


def test_xml_becomes_objects() -> None:
    """Attributes, texts, repeated elements; prefixes and namespaces are left out."""
    body = """<?xml version="1.0" encoding="UTF-8"?>
    <soap:Envelope xmlns:soap="urn:s" xmlns="urn:d"><soap:Body>
      <order id="17" soap:kind="new">
        <item>a</item><item n="2">b &amp; <![CDATA[<c>]]></item>
      </order>
      <empty/><note>é</note>
    </soap:Body></soap:Envelope>"""
    items = ["a", {"@n": "2", "#text": "b & <c>"}]
    order = {"@id": "17", "@kind": "new", "item": items}
    expected = {"Envelope": {"Body": {"order": order, "empty": "", "note": "é"}}}
    assert read_xml(body.encode()) == expected
    latin = body.replace("UTF-8", "ISO-8859-1").encode("latin-1")
    assert read_xml(latin) == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not XML"),
        (b"<a>", "not XML"),
        (b"<a></b>", "not XML"),
        (b'{"a": 1}', "not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        (b"<a>" * 200 + b"</a>" * 200, "nested too deeply"),
    ],
)
def test_xml_that_is_broken_or_dangerous_is_refused(body: bytes, problem: str) -> None:
    """No entities, no endless nesting, and no exception but this one."""
    with pytest.raises(InvalidInputError, match=problem):
        read_xml(body)
