"""Simulated parked calls: they wait for the same signal and write the same rows as real ones.

A hundred thousand real calls would take hours to be parked first. These are parked at once. The
batch does not see the difference: it knows of a call what the ledger and the engine know.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Timings
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.ledger.ledger import Ledger

STAND_IN = "StandIn"
ANSWER = "stand_in_answer"


# What they do is not what is measured.
@workflow.defn(name=STAND_IN, sandboxed=False)
class StandIn:
    """One parked call, as a batch sees it."""

    def __init__(self) -> None:
        self._times_told = 0

    @workflow.run
    async def run(self) -> int:
        """Wait until it is taken up again, and have a response at once. How often it was told."""
        await workflow.wait_condition(lambda: self._times_told > 0)
        await workflow.execute_local_activity(
            ANSWER, workflow.info().workflow_id, start_to_close_timeout=timedelta(seconds=30)
        )
        return self._times_told

    @workflow.signal(name=names.REPROCESS)
    def reprocess(self, _order: Any) -> None:
        """Take it up again."""
        self._times_told += 1


class Answers:
    """Writes the response, as a real call does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @activity.defn(name=ANSWER)
    async def answer(self, call_id: str) -> None:
        """The provider's response is here."""
        *_, key = names.split_call_id(call_id)
        now = activity.info().scheduled_time
        outcome = CallOutcome(
            call_id=call_id, status=OutcomeStatus.COMPLETED, timings=Timings(started_at=now)
        )
        message = ProviderMessage(kind=MessageKind.RESPONSE, event_key=key, data={"ok": True})
        await self._ledger.calls.record_response(call_id, 1, message, outcome, was_parked=True)
