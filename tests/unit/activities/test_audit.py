"""Who sent a request is read from its event, not from what it says about itself."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.api.common.v1 import Payloads, Principal
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from ackbridge.contracts import names
from activities.audit import _client, _principal, _request_of

SIGNALED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
UPDATED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
CANCELLED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
STARTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED


def event(kind: EventType.ValueType, attributes: str, **fields: Any) -> HistoryEvent:
    made: Any = HistoryEvent
    one: HistoryEvent = made(event_type=kind, **{f"{attributes}_event_attributes": fields})
    return one


SIGNAL = event(
    SIGNALED, "workflow_execution_signaled", signal_name="cancel", identity="ui", input=Payloads()
)
UPDATE = event(
    UPDATED,
    "workflow_execution_update_accepted",
    accepted_request={"input": {"name": "set_flag"}, "meta": {"identity": "cli"}},
)
CANCEL = event(CANCELLED, "workflow_execution_cancel_requested", identity="ui")
START = event(STARTED, "workflow_execution_started", identity="cli")


@pytest.mark.parametrize(
    ("one", "name", "client"),
    [
        (SIGNAL, "cancel", "ui"),
        (UPDATE, "set_flag", "cli"),
        (CANCEL, names.CANCEL_WORKFLOW, "ui"),
        (START, "", "cli"),
        (HistoryEvent(), "", ""),
    ],
)
def test_events_have_a_name_and_a_sender(one: HistoryEvent, name: str, client: str) -> None:
    """Whichever kind they are."""
    assert _request_of(one)[0] == name
    assert _client(one) == client
    assert _principal(one) == ""


def test_the_engine_knows_who_it_was() -> None:
    """An engine that authenticates its clients names them in the event."""
    known = HistoryEvent()
    known.CopyFrom(SIGNAL)
    known.principal.CopyFrom(Principal(name="anna@example.com", type="jwt"))
    assert _principal(known) == "anna@example.com (jwt)"
