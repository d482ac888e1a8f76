"""Read bodies that are not JSON: forms, queries and XML."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from email.parser import HeaderParser
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.parsers import expat

from ackbridge.contracts.wire import MAX_JSON_DEPTH, InvalidInputError

OBJECT_MEDIA: Final = re.compile(
    r"\s*(?:application|text)/(?:[\w.-]+\+|x-www-)?(xml|form)(?:-urlencoded)?\s*(?:;|$)",
    re.IGNORECASE,
)
"""Media types of answers that are read as objects, besides JSON."""

CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE | re.ASCII)
"""The charset that a media type declares."""

XML_CHARSET: Final = re.compile(
    r"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)", re.ASCII | re.IGNORECASE
)
"""The charset that an XML document declares itself."""

NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"}
)
"""Codecs of Python that are none."""

UTF_8: Final = "utf-8"

MAX_FIELDS: Final = 10_000
"""Fields of a form."""

_MULTIPART = re.compile(r"\s*multipart/form-data\s*;", re.IGNORECASE)
_BOM: Final = "\ufeff"
_FORM_CHARSETS: Final = ("_charset_", "charset")
"""Fields by which a form declares its own charset: HTML's, and PayPal's."""


def declared_charset(content_type: str) -> str:
    """The charset that a media type declares; UTF-8 where it declares none, or none that we know.

    Media types of deliveries are rarely right about it, so what is UTF-8 is read as such.
    """
    declared = CHARSET.search(content_type)
    try:
        charset = codecs.lookup(declared[1]).name if declared else UTF_8
        "a".encode(charset)
    except (LookupError, UnicodeError):
        return UTF_8
    return UTF_8 if charset in NO_CHARSETS else charset


def is_impossible(charset: str, body: bytes) -> bool:
    """Whether a text cannot be in a charset: UTF-16 that is only declared has no null bytes."""
    is_wide = charset.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    return is_wide and b"\0" not in body


def in_utf8(body: bytes, content_type: str) -> bytes:
    """A text in UTF-8: itself, unless it is in another charset that its media type declares."""
    charset = declared_charset(content_type)
    if charset == UTF_8:
        return body
    for known in (UTF_8, charset):
        try:
            return body.decode(known).encode()
        except UnicodeError:
            continue
    return body


def read_form(body: bytes, content_type: str = "") -> dict[str, Any]:
    """Read a form, or a query string: texts by name, a list where a name is there several times.

    A file of a multipart form is `{filename, content_type, content}`, or `base64` in place of
    `content` where it is no text in UTF-8, as such forms are written.

    Args:
        content_type: says whether it is a multipart form, and may declare the charset, if it is not
            UTF-8. A form may also declare it in a field of its own.

    Raises:
        InvalidInputError: it is neither in UTF-8 nor in its charset, or has too many fields.
    """
    is_multipart = _MULTIPART.match(content_type) is not None
    pairs = _parts(body, content_type) if is_multipart else _pairs(body, content_type)
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _pairs(body: bytes, content_type: str) -> list[tuple[str, str]]:
    for charset in _form_charsets(body, content_type):
        try:
            return _pairs_in(body, charset)
        except UnicodeDecodeError:
            continue
        except ValueError:
            raise InvalidInputError(f"body: more than {MAX_FIELDS} fields") from None
    raise InvalidInputError("body: not a form in UTF-8")


def _pairs_in(body: bytes, charset: str) -> list[tuple[str, str]]:
    # What is not ASCII should be percent-encoded, and is not by everybody.
    text = body.decode("ascii" if body.isascii() else charset)
    return parse_qsl(
        text.removeprefix(_BOM).strip(),
        keep_blank_values=True,
        encoding=charset,
        errors="strict",
        max_num_fields=MAX_FIELDS,
    )


def _form_charsets(body: bytes, content_type: str) -> Iterator[str]:
    """Those that a form may be in, one after the other: UTF-8, and what it declares."""
    yield UTF_8
    yield declared_charset(content_type)
    fields = dict(_pairs_in(body, "latin-1"))
    for name in _FORM_CHARSETS:
        yield declared_charset(f"charset={fields.get(name, UTF_8)}")


def _parts(body: bytes, content_type: str) -> Iterator[tuple[str, Any]]:
    """The fields of a multipart form (RFC 7578)."""
    whole = HeaderParser().parsestr(f"Content-Type: {content_type}")
    boundary = whole.get_boundary()
    if not boundary:
        raise InvalidInputError("body: a multipart form without a boundary")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))[1:]
    if len(parts) > MAX_FIELDS:
        raise InvalidInputError(f"body: more than {MAX_FIELDS} fields")
    for part in parts:
        if part.startswith(b"--"):
            return
        head, _, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = HeaderParser().parsestr(head.decode("utf-8", "replace"))
        name = headers.get_param("name", None, "content-disposition")
        if isinstance(name, str):
            yield name, _part_value(headers, content)
    raise InvalidInputError("body: a multipart form that broke off")


def _part_value(headers: Message, content: bytes) -> Any:
    text: str | None
    try:
        text = in_utf8(content, str(headers.get("Content-Type", ""))).decode()
    except UnicodeDecodeError:
        text = None
    filename = headers.get_filename()
    if filename is None and text is not None:
        return text
    data = {"base64": base64.b64encode(content).decode()} if text is None else {"content": text}
    return {"filename": filename, "content_type": headers.get_content_type(), **data}


def read_xml(body: bytes, content_type: str = "", charset: str | None = None) -> dict[str, Any]:
    """Read XML: the root element by its name, without prefixes.

    An element is its text; with attributes or children, an object of them, the attributes with `@`
    in front, and its text, if any, as `#text`. An element that is there several times has a list.

    Args:
        content_type: may declare the charset of a body that does not.
        charset: of the body, whatever it declares itself; None for what it declares.

    Raises:
        InvalidInputError: it is not XML, declares a document type or entities, or is nested too
            deeply.
    """
    reader = _XmlReader()
    if body[:1].isspace() and b"\0" not in body[:4]:
        body = body.lstrip()
    parser = expat.ParserCreate(charset or _xml_charset(body, content_type))
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        problem = f"body: not XML (line {error.lineno}, column {error.offset + 1})"
        raise InvalidInputError(problem) from None
    except (LookupError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("body: not XML in a known encoding") from None
    return reader.root


def _xml_charset(body: bytes, content_type: str) -> str | None:
    """The charset to read XML in; None for what it declares, or UTF-8."""
    declared = XML_CHARSET.match(body[:300].decode("latin-1"))
    if declared is not None:
        return UTF_8 if is_impossible(declared[1], body) else None
    charset = declared_charset(content_type)
    if charset == UTF_8 or is_impossible(charset, body):
        return None
    try:
        body.decode()
    except UnicodeDecodeError:
        return charset
    return None


class _XmlReader:
    """Builds objects from the elements of one document; `root` has them once it is read."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        self._open: list[dict[str, Any]] = [self.root]
        self._texts: list[list[str]] = [[]]

    def start(self, _name: str, attributes: dict[str, str]) -> None:
        if len(self._open) > MAX_JSON_DEPTH:
            raise InvalidInputError("body: nested too deeply")
        given = {name: value for name, value in attributes.items() if not _is_namespace(name)}
        self._open.append({f"@{_local(name)}": value for name, value in given.items()})
        self._texts.append([])

    def text(self, text: str) -> None:
        self._texts[-1].append(text)

    def end(self, name: str) -> None:
        element, text = self._open.pop(), "".join(self._texts.pop()).strip()
        if element and text:
            element["#text"] = text
        value: Any = element or text
        around, local = self._open[-1], _local(name)
        known = around.get(local)
        if local not in around:
            around[local] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            around[local] = [known, value]


def _refuse_doctype(*_declaration: object) -> None:
    raise InvalidInputError("body: XML with a document type is not accepted")


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _is_namespace(name: str) -> bool:
    return name == "xmlns" or name.startswith("xmlns:")


READERS: Final[Mapping[str, Callable[[bytes, str], Any]]] = {"form": read_form, "xml": read_xml}
"""Read a body, given its content type."""
