"""What a line of the log has, as text and as JSON."""

from __future__ import annotations

import json
import logging
from typing import Any

from temporalio.testing import ActivityEnvironment

from ackbridge.telemetry.logs import JsonFormatter, TextFormatter


def record(message: str, *arguments: object, **fields: Any) -> logging.LogRecord:
    """A record as `log.info(message, *arguments, extra=fields)` makes it."""
    logger = logging.getLogger("ackbridge.gateway")
    return logger.makeRecord(
        logger.name, logging.INFO, __file__, 1, message, arguments, None, extra=fields
    )


def text(found: logging.LogRecord) -> str:
    """The line, without its time."""
    return TextFormatter().format(found).partition(" INFO ")[2]


def test_text_names_what_the_message_leaves_out() -> None:
    """Which callback it was is there once."""
    found = record("callback kept: %s", "no call", event_key="e-1", call_id=None, reason="no call")
    assert text(found) == "ackbridge.gateway: callback kept: no call event_key=e-1"


def test_a_value_cannot_look_like_another_line_or_field() -> None:
    """Event keys are the provider's own."""
    forged = "e-1\n2026-01-01 ERROR ackbridge.gateway: down call_id=acme.pay.o-1"
    found = text(record("callback kept", event_key=forged))
    assert found.splitlines() == [found]
    assert found.endswith(f"event_key={json.dumps(forged)}")


def test_json_is_one_object_a_line() -> None:
    """With the fields, and the traceback of an error."""
    found = record("callback kept", event_key="e\n1")
    found.exc_info = (ValueError, ValueError("bad"), None)

    line = JsonFormatter().format(found)

    read = json.loads(line)
    assert "\n" not in line
    assert read.pop("exception").endswith("ValueError: bad")
    assert read.pop("time").endswith("+00:00")
    assert read == {
        "level": "INFO",
        "logger": "ackbridge.gateway",
        "message": "callback kept",
        "event_key": "e\n1",
    }


def test_what_libraries_attach_is_left_out() -> None:
    """It may be anything, such as a payload."""
    found = record("failed", payload={"card": "4242"}, headers="Bearer x")
    assert text(found) == "ackbridge.gateway: failed"
    read = json.loads(JsonFormatter().format(found))
    assert read.keys() == {"time", "level", "logger", "message"}


async def test_an_activity_says_which_call_it_is_for() -> None:
    """Without its log lines having to."""

    async def act() -> str:
        return text(record("send failed with an unexpected error"))

    assert (await ActivityEnvironment().run(act)).endswith("error workflow_id=test")
