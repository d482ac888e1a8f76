"""Types of fields in integration and subscriber files.

Docstrings below fields become descriptions in the published JSON Schema, which editors show.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from ackbridge.contracts.wire import Duration

from .cron import Cron
from .expressions import Expression
from .templates import ScalarTemplate

HEADER_PATTERN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"

_RESERVED_HEADERS = {"authorization", "connection", "content-length", "host", "transfer-encoding"}


class FilePart(BaseModel):
    """The base of every part of a file: immutable, unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


def check_http_url(url: str, instead_of_credentials: str) -> None:
    """Check that this is an absolute http or https URL without credentials and fragment.

    Raises:
        ValueError: it is not; the text does not contain the URL.
    """
    try:
        parts = urlsplit(url)
        is_absolute = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_absolute = False
    if not is_absolute or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an absolute http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not contain credentials; {instead_of_credentials}")
    if parts.fragment:
        raise ValueError("must not contain a fragment")


def _header(name: str) -> str:
    if name.lower() in _RESERVED_HEADERS:
        raise ValueError(f"{name} cannot be set in an integration file; credentials belong in auth")
    return name


def _flag(value: object) -> str | float:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("on", "off", "internal"):
        return str(value)
    percentage = math.nan
    if isinstance(value, int | float):
        percentage = value
    elif isinstance(value, str):
        with suppress(ValueError):
            percentage = float(value.removesuffix("%"))
    if not 0 <= percentage <= 100:
        raise ValueError("must be on, off, internal, or a percentage from 0 to 100")
    return percentage


def _condition(value: object) -> object:
    return f"`{str(value).lower()}`" if isinstance(value, bool) else value


def _cron(value: object) -> Cron:
    if not isinstance(value, str):
        raise ValueError("must be a text such as '30 2 * * *'")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
    return Cron(value)


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (OSError, ValueError, KeyError):
        raise ValueError("is not a time zone such as UTC or Europe/Berlin") from None


Positive = Annotated[Duration, Field(gt=timedelta(0))]
"""A duration greater than zero."""

StatusCode = Annotated[int, Field(ge=200, le=599)]
"""An HTTP status code of a reply."""

Method = Annotated[
    Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
"""An HTTP method, in any case."""

Encoding = Literal["json", "form", "xml", "text", "multipart"]
"""How a body is encoded."""

HookFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*\.py$")]
"""The name of a Python file."""

HostPattern = Annotated[
    str,
    Field(
        pattern=r"^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:\d{1,5})?$"
    ),
]
"""A host name in lower case; `*.` stands for any subdomain."""

Headers = dict[
    Annotated[str, Field(pattern=HEADER_PATTERN), BeforeValidator(_header)], ScalarTemplate
]
"""Headers by name; the values are templates."""

Query = dict[str, ScalarTemplate]
"""Query parameters by name; the values are templates."""

Condition = Annotated[
    Expression,
    # A constant becomes an expression, so that there is one type at run time.
    BeforeValidator(_condition),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string"}]}),
]
"""true, false, or an expression."""

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
"""on, off, internal (calls with the audience `internal` only), or a percentage of keys."""

CronSchedule = Annotated[
    Cron,
    PlainValidator(_cron),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30 2 * * *", "*/15 8-18 * * mon-fri"]}),
]
"""A cron expression."""

TimeZone = Annotated[
    ZoneInfo, PlainValidator(_zone), WithJsonSchema({"type": "string", "default": "UTC"})
]
"""An IANA time zone, such as `Europe/Berlin`."""
