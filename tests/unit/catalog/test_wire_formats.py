"""Bodies that are not JSON."""

from __future__ import annotations

import pytest

from ackbridge.catalog.wire_formats import MAX_FIELDS, in_utf8, read_form, read_xml
from ackbridge.contracts.wire import InvalidInputError


def test_forms_have_texts_and_lists() -> None:
    """A value is a text, a name that is there several times has a list."""
    form = b"a=1&b=x%20y+z&c=&a=2&d%5Be%5D=%C3%A9"
    assert read_form(form) == {"a": ["1", "2"], "b": "x y z", "c": "", "d[e]": "é"}
    assert read_form(b"") == {}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("a=ü".encode("latin-1"), "not a form in UTF-8"),
        (b"a=%FF", "not a form in UTF-8"),
        (b"a=1&" * (MAX_FIELDS + 1), f"more than {MAX_FIELDS} fields"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, problem: str) -> None:
    """Values that are not UTF-8, and endless forms."""
    with pytest.raises(InvalidInputError, match=problem):
        read_form(body)


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        (b"na%EFve", "iso-8859-1", "naïve"),
        (b"20+%80", '"Windows-1252"', "20 €"),
        (b"%82%A0", "Shift_JIS", "あ"),
        (b"na%C3%AFve", "iso-8859-1", "naïve"),
        (b"na%C3%AFve", "x-unknown", "naïve"),
    ],
)
def test_forms_may_have_another_charset(body: bytes, charset: str, text: str) -> None:
    """What is declared counts where it is not UTF-8."""
    assert read_form(b"a=" + body, f"application/x-www-form-urlencoded; charset={charset}") == {
        "a": text
    }


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("a=naïve".encode(), ""),
        ("\ufeffa=naïve".encode(), ""),
        ("a=naïve".encode("latin-1"), "application/x-www-form-urlencoded; charset=iso-8859-1"),
        (b"a=na%EFve&charset=windows-1252", ""),
        (b"_charset_=iso-8859-1&a=na%EFve", ""),
    ],
)
def test_forms_as_servers_write_them(body: bytes, content_type: str) -> None:
    """Unencoded texts, and charsets that the form itself declares, as PayPal's do."""
    assert read_form(body, content_type)["a"] == "naïve"


MULTIPART = 'Multipart/Form-Data; boundary="b 1"'


def test_a_form_may_be_multipart() -> None:
    """Texts and files; what is before the first boundary and after the last one is left out."""
    body = (
        b"x\r\n--b 1\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n\r\n2\r\n"
        b'--b 1 \r\ncontent-disposition: form-data; name="b"; filename="f.bin"\r\n'
        b"Content-Type: image/png\r\n\r\n\xff\x00\r\n"
        b'--b 1\r\nContent-Disposition: form-data; name="b"\r\n'
        b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nna\xefve\r\n"
        b"--b 1\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--b 1--\r\ny"
    )
    file = {"filename": "f.bin", "content_type": "image/png", "base64": "/wA="}
    assert read_form(body, MULTIPART) == {"a": "1\r\n\r\n2", "b": [file, "naïve"]}


@pytest.mark.parametrize(
    ("body", "content_type", "problem"),
    [
        (b"--b 1\r\n\r\n", MULTIPART, "broke off"),
        (b"a=1", MULTIPART, "broke off"),
        (b"a=1", "multipart/form-data; x", "without a boundary"),
        (b"--b 1\r\n" * (MAX_FIELDS + 1), MULTIPART, f"more than {MAX_FIELDS} fields"),
    ],
)
def test_what_is_no_multipart_form_is_refused(body: bytes, content_type: str, problem: str) -> None:
    """It is not taken for less than it was."""
    with pytest.raises(InvalidInputError, match=problem):
        read_form(body, content_type)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('\n <?xml version="1.0"?><a>é</a>'.encode(), ""),
        ('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode(), ""),
        ("<a>é</a>".encode("latin-1"), "text/xml; charset=iso-8859-1"),
        ("<a>é</a>".encode(), "text/xml; charset=iso-8859-1"),
        ("<a>é</a>".encode(), "text/xml; charset=utf-16"),
        ('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode("utf-16"), "text/xml"),
    ],
)
def test_xml_as_servers_write_it(body: bytes, content_type: str) -> None:
    """Space before its declaration, and declarations that cannot be true."""
    assert read_xml(body, content_type) == {"a": "é"}


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("naïve".encode("latin-1"), "iso-8859-1", "naïve"),
        ("20 €".encode("cp1252"), "'windows-1252'", "20 €"),
        ("naïve".encode(), "iso-8859-1", "naïve"),
        ("naïve".encode("utf-16"), "UTF-16", "naïve"),
    ],
)
def test_texts_in_a_declared_charset_become_utf_8(body: bytes, charset: str, text: str) -> None:
    """Those that are UTF-8 already stay as they are, whatever they declare."""
    assert in_utf8(body, f"application/json; charset={charset}") == text.encode()


@pytest.mark.parametrize("charset", ["rot13", "unicode_escape", "idna", "x-unknown", "ascii"])
def test_bodies_that_cannot_be_decoded_stay_as_they_are(charset: str) -> None:
    """So that they are refused as what they are."""
    body = b"\\u00e9\xff"
    assert in_utf8(body, f"application/json; charset={charset}") == body


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
