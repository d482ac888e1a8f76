"""Calls in poll mode on the real engine: an answer that is asked for."""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.enums.v1 import EventType

from ackbridge.contracts import names
from tests.integration.stage import Stage

PATIENCE = timedelta(seconds=30)


async def test_a_report_is_asked_for_until_it_is_done(stage: Stage) -> None:
    """Many questions are one activity, one response, and one acknowledgement."""
    request = stage.request("create_report").model_copy(
        update={"payload": {"subject": "rain", "behaviour": {"delay_ms": 1500}}}
    )

    outcome = await (await stage.calls.start(request)).outcome(PATIENCE)

    assert outcome.response["status"] == "completed"
    assert outcome.reference == outcome.response["id"]
    (row,) = await stage.ledger.responses(request.call_id)
    assert row.event_key == f"status:{request.call_id}:1"
    polls = [
        event
        async for event in stage.handle(request).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        and event.activity_task_scheduled_event_attributes.activity_type.name == names.POLL
    ]
    assert len(polls) == 1
    assert len(await stage.seen(request.call_id, "status")) > 2
    assert await stage.acknowledged(request.call_id) == ["success"]
