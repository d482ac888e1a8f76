"""The kinds of fields that integration files are made of.

The texts below fields are their descriptions in the published JSON Schema: editors show them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from ackbridge.contracts.wire import Duration

from .expressions import Expression
from .templates import ScalarTemplate

_NOT_OURS = {"authorization", "connection", "content-length", "host", "transfer-encoding"}


class FilePart(BaseModel):
    """The base of every part of an integration file: frozen, strict about names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


def _header(name: str) -> str:
    if name.lower() in _NOT_OURS:
        raise ValueError(f"{name} is not for integration files to set; credentials belong to auth")
    return name


def _flag(value: object) -> str | float:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("on", "off", "internal"):
        return str(value)
    share = math.nan
    if isinstance(value, int | float):
        share = value
    elif isinstance(value, str):
        with suppress(ValueError):
            share = float(value.removesuffix("%"))
    if not 0 <= share <= 100:
        raise ValueError("must be on, off, internal, or a percentage from 0 to 100")
    return share


def is_http_url(url: str) -> bool:
    """Whether a URL says, in plain ASCII, which http or https server it is about."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(known) and url.isascii() and url.isprintable() and " " not in url


def _condition(value: object) -> object:
    # One kind of thing at run time: a constant is an expression too.
    return f"`{str(value).lower()}`" if isinstance(value, bool) else value


Positive = Annotated[Duration, Field(gt=timedelta(0))]
"""A time span that is not nothing."""

StatusCode = Annotated[int, Field(ge=200, le=599)]
"""An HTTP status we answer with."""

Headers = dict[
    Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), BeforeValidator(_header)],
    ScalarTemplate,
]
"""Headers by name; the values are templates."""

Query = dict[str, ScalarTemplate]
"""Query parameters by name; the values are templates, and a list repeats the parameter."""

Condition = Annotated[
    Expression,
    BeforeValidator(_condition),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string"}]}),
]
"""A constant, or an expression that is true or not."""

Flag = Annotated[
    Literal["on", "off", "internal"] | float,
    PlainValidator(_flag),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["on", "off", "internal", True, False]},
                {"type": "number", "minimum": 0, "maximum": 100},
                {"type": "string", "pattern": r"^\d+(\.\d+)?%$"},
            ]
        }
    ),
]
"""on, off, internal (calls of the audience `internal` only), or a percentage of all keys."""

Encoding = Literal["json", "form"]
"""How a body is written."""
