"""The faults of one job of the simulated provider."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, repeat
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Times = Annotated[int, Field(ge=0)]
"""How often something happens, from the first time that it can."""

Milliseconds = Annotated[int, Field(ge=0)]

Fault = Literal["throttled", "error", "reset", "closed", "hung", "malformed", "mute"]
"""What replaces a reply: 429, 5xx, a TCP reset, a connection closed without a reply, one that stops
in the middle of the body, a 2xx that cannot be parsed, and none until the client gives up."""


class Behaviour(BaseModel):
    """The faults of one job; without any, it is done and called back at once.

    `docs/sandbox.md` says what each field does. Faults of the same request happen one after the
    other, in the order of the fields: `throttle=1, lost_receipts=1` is a 429, then a 5xx with the
    job done, then the receipt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refuse: int | None = Field(default=None, ge=400, le=499)
    throttle: Times = 0
    retry_after: int = Field(default=1, ge=0)
    retry_after_date: bool = False
    receipt_failures: Times = 0
    resets: Times = 0

    receipt_delay_ms: Milliseconds = 0
    lost_receipts: Times = 0
    closed_receipts: Times = 0
    reset_receipts: Times = 0
    hung_receipts: Times = 0
    malformed_receipts: Times = 0

    stuck: bool = False
    delay_ms: Milliseconds | None = None
    fail: Times = 0
    reason: str = "out of stock"
    retryable: bool = False
    late: bool = False
    late_ms: Milliseconds = 0

    silent: bool = False
    early: bool = False
    extend_ms: Milliseconds = 0
    extensions: int = Field(default=1, ge=1)
    extend_wait_ms: Milliseconds | None = None
    forged: bool = False
    malformed: bool = False
    contradictory: Literal["completed", "failed"] | None = None
    duplicates: int = Field(default=0, ge=0, le=100)  # more copies of each callback
    lost_callbacks: Times = 0

    status_failures: Times = 0
    acknowledgement_failures: Times = 0
    # A refusal ends it, and a 429 asks for `retry_after` seconds.
    acknowledgement_status: int = Field(default=503, ge=400, le=599)
    acknowledgement_down_ms: Milliseconds = 0
    lost_acknowledgements: Times = 0
    error_status: int = Field(default=503, ge=500, le=599)

    def fault_before(self, number: int) -> Fault | None:
        """The fault of a request before it has an effect; numbers start with 0."""
        return _fault(
            number,
            ("throttled", self.throttle),
            ("error", self.receipt_failures),
            ("reset", self.resets),
        )

    def fault_after(self, number: int) -> Fault | None:
        """The fault that replaces a reply; numbers start with 0."""
        return _fault(
            number,
            ("error", self.lost_receipts),
            ("closed", self.closed_receipts),
            ("reset", self.reset_receipts),
            ("hung", self.hung_receipts),
            ("malformed", self.malformed_receipts),
        )


def _fault(number: int, *faults: tuple[Fault, int]) -> Fault | None:
    sequence: Iterable[Fault] = chain.from_iterable(repeat(fault, n) for fault, n in faults)
    return next(islice(sequence, number, None), None)
