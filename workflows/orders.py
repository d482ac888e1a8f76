"""What operators and services have told a call to do."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import LONGEST_EVENT_KEY, Steering, digest


@dataclass
class Orders:
    """Standing orders of one call.

    Attributes:
        cancelled: who wants it to stop.
        forced: whose word is the answer.
        reprocess: a parked call shall be taken up again.
        is_prompt: they may interrupt work in hand; calls of older workers wait for its end.
    """

    cancelled: Steering | None = None
    forced: Steering | None = None
    reprocess: bool = False
    is_prompt: bool = False

    @property
    def interrupt(self) -> bool:
        """Whether one of them ends the waiting."""
        return self.cancelled is not None or self.reprocess

    def interrupts_work(self) -> bool:
        """Whether an effect that is waiting for its next attempt shall not be tried again."""
        return self.cancels_work() or (self.is_prompt and self.forced is not None)

    def cancels_work(self) -> bool:
        """The same, where a forced answer has to wait for the effect all the same."""
        return self.is_prompt and self.cancelled is not None

    @staticmethod
    def forced_key(call_id: str) -> str:
        """The event key of an operator's word; one call can be forced once."""
        key = f"operator:{call_id}"
        return key if len(key) <= LONGEST_EVENT_KEY else f"operator:{digest(call_id)}"
