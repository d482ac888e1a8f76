"""Logs: one line per record on standard error, without headers, bodies or secrets."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final, Literal

from temporalio import activity

_FIELDS: Final = ("provider", "call_id", "event_key", "workflow_id", "source", "status", "reason")
"""What is shown of a record besides its message. What libraries attach to theirs is not."""


def log_to_stderr(level: str, log_format: Literal["text", "json"]) -> None:
    """Log as text, or as JSON with one object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # httpx logs every URL at INFO, and URLs may carry personal data.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # It says at every start what kind of database it has found.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # The SDK logs a traceback for each failed attempt; the call's history has the reason.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)


class TextFormatter(logging.Formatter):
    """The message, and the fields that it does not have: `callback kept event_key=e-1`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        fields = {
            name: value
            for name, value in _fields(record).items()
            if value not in record.getMessage()
        }
        return " ".join(
            (super().formatMessage(record), *(f"{name}={_word(fields[name])}" for name in fields))
        )


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`, fields, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    values = {name: getattr(record, name, None) for name in _FIELDS}
    if activity.in_activity():
        values["workflow_id"] = activity.info().workflow_id
    return {name: str(value) for name, value in values.items() if value is not None}


def _word(value: str) -> str:
    """In quotes unless it is one printable word: event keys are the provider's own."""
    is_word = value.isprintable() and value and not set(value) & set(' "=')
    return value if is_word else json.dumps(value)
