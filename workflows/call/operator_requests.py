"""What operators and services have told a call to do."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Intervention
    from ackbridge.contracts.limits import MAX_KEY_LENGTH
    from ackbridge.contracts.wire import digest

REMEMBERED = 20
"""Batches that a call knows to have taken it up; the ledger knows all of them."""


@dataclass
class OperatorRequests:
    """Standing orders of one call.

    Attributes:
        cancelled: who wants it to stop.
        forced: whose word is the answer.
        reprocess: a parked call shall be taken up again.
        batches: the last ones that have wanted so; each may once.
        is_prompt: they may interrupt work in hand; calls of older workers wait for its end.
    """

    cancelled: Intervention | None = None
    forced: Intervention | None = None
    reprocess: bool = False
    is_prompt: bool = False
    batches: tuple[str, ...] = ()

    @property
    def interrupt(self) -> bool:
        """Whether one of them ends the waiting."""
        return self.cancelled is not None or self.reprocess

    def reprocess_for(self, batch: str | None) -> None:
        """Take the call up again."""
        self.reprocess = True
        if batch is not None:
            self.batches = (*self.batches, batch)[-REMEMBERED:]

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
        return key if len(key) <= MAX_KEY_LENGTH else f"operator:{digest(call_id)}"
