"""The published JSON Schemas of what goes over the wire say what the models say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    CallStatus,
    Notice,
    OutcomeStatus,
    Stage,
    Timings,
    Waiting,
    WaitingFor,
)
from ackbridge.contracts.deliveries import EventData, NoticeBody
from ackbridge.contracts.schemas import WIRE_SCHEMAS, wire_schema
from ackbridge.contracts.wire import Wire

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "reference" / "schemas"
NOW = datetime(2026, 3, 2, 2, 0, 7, tzinfo=UTC)
OUTCOME = CallOutcome(
    call_id="sandbox.create_order.o-1",
    status=OutcomeStatus.FAILED,
    notice=Notice(kind="failed", title="Failed", message="It failed.", expected_at=NOW),
    timings=Timings(started_at=NOW),
)


def test_the_published_schemas_are_up_to_date() -> None:
    """One file for each: `make reference` writes them."""
    published = {path.stem: json.loads(path.read_text()) for path in PUBLISHED.glob("*.json")}
    assert published == {name: wire_schema(name) for name in WIRE_SCHEMAS}


@pytest.mark.parametrize("name", WIRE_SCHEMAS)
def test_each_is_a_schema(name: str) -> None:
    """And names its model."""
    schema = wire_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["title"].lower() == name.replace("-", "").replace("notice", "noticebody")


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("call-outcome", OUTCOME),
        (
            "call-status",
            CallStatus(
                call_id=OUTCOME.call_id,
                stage=Stage.FAILED,
                since=NOW,
                outcome=OUTCOME,
                waiting=Waiting(what=WaitingFor.RETRY, since=NOW),
            ),
        ),
        (
            "notice",
            NoticeBody(
                id="stripe:evt_1",
                type="event.refund",
                timestamp=NOW,
                data=EventData(provider="stripe", event="refund", event_key="evt_1", data=[1]),
            ),
        ),
    ],
)
def test_what_we_send_validates(name: str, sent: Wire) -> None:
    """As it is, with fields of later versions, and from a version with fewer fields."""
    validator = Draft202012Validator(wire_schema(name))
    sparse = sent.model_dump(mode="json", exclude_defaults=True)
    for document in (json.loads(sent.model_dump_json()), sparse | {"later": 1}):
        validator.validate(document)


REQUEST = {"provider": "sandbox", "operation": "create_order", "key": "o-1"}
ACTOR = {"by": "ann", "reason": "a mistake"}


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("call-request", REQUEST | {"payload": {"a": 1}}, REQUEST | {"provider": "Sandbox"}),
        ("call-request", REQUEST | {"expires_at": "2030-01-01T00:00:00Z"}, REQUEST | {"id": 1}),
        ("await-outcome", {"timeout": "5s"}, {"timeout": []}),
        ("cancel", ACTOR, {"by": "ann"}),
        ("resolve", ACTOR | {"as": "done"}, ACTOR | {"as": "unknown"}),
        ("write-off", ACTOR | {"cycle": 1}, ACTOR | {"cycle": 0}),
        ("provider-message", {"kind": "response", "event_key": "e"}, {"kind": "response"}),
    ],
)
def test_what_is_sent_to_us_is_checked(
    name: str, valid: dict[str, Any], invalid: dict[str, Any]
) -> None:
    """As the models do."""
    validator = Draft202012Validator(wire_schema(name))
    assert validator.is_valid(valid)
    assert not validator.is_valid(invalid)


def test_requests_of_python_validate() -> None:
    """What our own client sends."""
    request = CallRequest(**REQUEST, metadata={"tenant": "a"}, language="de", expires_at=NOW)
    validator = Draft202012Validator(wire_schema("call-request"))
    validator.validate(request.model_dump(mode="json"))
    validator.validate(request.model_dump(mode="json", exclude_defaults=True))
