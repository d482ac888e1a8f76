"""Read bodies that are not JSON: forms, queries and XML."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
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

NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"}
)
"""Codecs of Python that are none."""

UTF_8: Final = "utf-8"

MAX_FIELDS: Final = 10_000
"""Fields of a form."""


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

    Args:
        content_type: may declare the charset, if it is not UTF-8.

    Raises:
        InvalidInputError: it is not percent-encoded UTF-8 or in its charset, or has too many
            fields.
    """
    for charset in (UTF_8, declared_charset(content_type)):
        try:
            pairs = _pairs(body, charset)
            break
        except UnicodeDecodeError:
            continue
        except ValueError:
            raise InvalidInputError(f"body: more than {MAX_FIELDS} fields") from None
    else:
        raise InvalidInputError("body: not a form in UTF-8")
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _pairs(body: bytes, charset: str) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode("ascii").strip(),
        keep_blank_values=True,
        encoding=charset,
        errors="strict",
        max_num_fields=MAX_FIELDS,
    )


def read_xml(body: bytes, charset: str | None = None) -> dict[str, Any]:
    """Read XML: the root element by its name, without prefixes.

    An element is its text; with attributes or children, an object of them, the attributes with `@`
    in front, and its text, if any, as `#text`. An element that is there several times has a list.

    Args:
        charset: of the body, whatever it declares itself; None for what it declares.

    Raises:
        InvalidInputError: it is not XML, declares a document type or entities, or is nested too
            deeply.
    """
    reader = _XmlReader()
    parser = expat.ParserCreate(charset)
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


READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {"form": read_form, "xml": read_xml}
