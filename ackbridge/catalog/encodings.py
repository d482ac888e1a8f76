"""Write bodies that are neither JSON nor a plain form: XML and multipart forms."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import httpx

from .templates import scalar_text


class WireFormatError(ValueError):
    """A value cannot be written in a format. The text contains no value."""


def write_xml(value: Any) -> bytes:
    """Write XML of what `read_xml` reads; null values are left out.

    Raises:
        WireFormatError: it is not an object with one root element, or has names or characters that
            XML cannot have.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise WireFormatError("needs one root element")
    ((name, content),) = value.items()
    text = "".join(_element(str(name), content))
    if _NOT_XML.search(text):
        raise WireFormatError("a control character")
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _element(name: str, value: Any) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, list):
        for one in value:
            yield from _element(name, one)
        return
    if not _XML_NAME.fullmatch(name):
        raise WireFormatError("not a name of XML")
    fields = value if isinstance(value, dict) else {"#text": value}
    yield f"<{name}"
    for field, inner in fields.items():
        if field.startswith("@") and inner is not None:
            if not _XML_NAME.fullmatch(field[1:]):
                raise WireFormatError("not a name of XML")
            yield f" {field[1:]}={quoteattr(scalar_text(inner, field))}"
    yield ">"
    for field, inner in fields.items():
        if field == "#text" and inner is not None:
            yield escape(scalar_text(inner, name))
        elif not field.startswith(("@", "#")):
            yield from _element(field, inner)
    yield f"</{name}>"


_XML_NAME = re.compile(r"[A-Za-z_][\w.-]*(:[A-Za-z_][\w.-]*)?")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_multipart(value: Any) -> tuple[bytes, str]:
    """Write a multipart form: fields, and files as `{filename, content_type, content | base64}`.

    The boundary depends on the content only, so that a repeated request is the same.

    Returns:
        The body and its content type.

    Raises:
        WireFormatError: it is not an object, or a value is neither a scalar nor a file.
    """
    if not isinstance(value, dict):
        raise WireFormatError("needs a mapping")
    parts = [
        (name, _part(name, one))
        for name, inner in value.items()
        for one in (inner if isinstance(inner, list) else [inner])
        if one is not None
    ]
    boundary = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    content_type = f"multipart/form-data; boundary={boundary}"
    request = httpx.Request("POST", "", files=parts, headers={"Content-Type": content_type})
    return request.read(), content_type


def _part(name: str, value: Any) -> tuple[str | None, bytes] | tuple[str | None, bytes, str]:
    if not isinstance(value, dict):
        return None, scalar_text(value, name).encode()
    unknown = value.keys() - {"filename", "content_type", "content", "base64"}
    content, encoded = value.get("content"), value.get("base64")
    if unknown or (content is None) == (encoded is None):
        raise WireFormatError("a file has filename, content_type, and either content or base64")
    file = str(value.get("filename") or name)
    text = scalar_text(content if encoded is None else encoded, name)
    data = text.encode() if encoded is None else base64.b64decode(text, validate=True)
    return file, data, str(value.get("content_type") or "application/octet-stream")
