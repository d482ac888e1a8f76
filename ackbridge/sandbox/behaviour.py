"""What one piece of the simulated provider's work does. `docs/sandbox.md` has the table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Times = Annotated[int, Field(ge=0)]
"""How often something happens, counted from the first time that it can."""

Milliseconds = Annotated[int, Field(ge=0)]

Fault = Literal["throttled", "error", "reset", "closed", "hung", "malformed", "mute"]
"""What comes in place of an answer: 429, 5xx, a TCP reset, a connection closed without a word, one
left half way, a 2xx that cannot be read, and nothing at all until the client gives up."""


class Behaviour(BaseModel):
    """The faults of one piece of work; without any, it is done and told at once.

    Faults of the same request take turns, in the order of this list: `throttle=1,
    lost_receipts=1` is a 429, then a 5xx with the work done, then the receipt.

    Requests that leave nothing done:
        refuse: the HTTP status the request is refused with, for good. Nothing else happens then.
        throttle: so many requests are answered 429.
        retry_after: seconds that the 429 asks for; `retry_after_date` says it as an HTTP date.
        receipt_failures: so many are answered with `error_status`.
        resets: of so many the connection is reset (TCP RST).

    Requests whose work is done, or under way, all the same:
        receipt_delay_ms: before the first one is answered; the same request again is answered
            at once.
        lost_receipts: so many are answered with `error_status`.
        closed_receipts: of so many the connection is closed without an answer.
        reset_receipts: of so many the connection is reset.
        hung_receipts: so many get the headers and half of the body, and then nothing.
        malformed_receipts: so many are answered 200 with a body that is no JSON.

    The work:
        stuck: it is never done, and nothing is told. Wins over all that follows.
        delay_ms: before it is done; unset, the provider's own.
        fail: so much work of one call fails before one is completed.
        reason, retryable: what a failure says of itself, and a refusal.
        late: it is done only when a failed acknowledgement has come, `late_ms` after it.

    What is told of it:
        silent: nothing; the status request tells.
        early: the callback is sent, and answered, before the receipt. No delay, no extension.
        extend_ms: the provider asks for so many milliseconds more, `extensions` times, and goes
            on `extend_wait_ms` after each (half of `extend_ms` when unset).
        forged: false callbacks come before the true one: each that the speech can forge.
        malformed: signed callbacks that cannot be understood come before the true one.
        contradictory: completion and failure are both told, this one first. What the status
            request tells is not touched.
        duplicates: so many more copies of each callback are sent at the same instant.
        lost_callbacks: so many tries of each callback never leave.

    Other requests:
        status_failures: so many status requests are answered with `error_status`.
        acknowledgement_failures: so many acknowledgements are answered with
            `acknowledgement_status`, which may be a refusal, before one is taken. A 429 asks for
            `retry_after` seconds.
        acknowledgement_down_ms: none is taken for so long from the first one on.
        lost_acknowledgements: so many are taken, and answered with `error_status`.
        error_status: which 5xx that is.
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
    duplicates: int = Field(default=0, ge=0, le=100)
    lost_callbacks: Times = 0

    status_failures: Times = 0
    acknowledgement_failures: Times = 0
    acknowledgement_status: int = Field(default=503, ge=400, le=599)
    acknowledgement_down_ms: Milliseconds = 0
    lost_acknowledgements: Times = 0
    error_status: int = Field(default=503, ge=500, le=599)

    def fault_before(self, turn: int) -> Fault | None:
        """What the request of this turn meets in place of everything; turns start with 0."""
        return _of_turn(
            turn,
            ("throttled", self.throttle),
            ("error", self.receipt_failures),
            ("reset", self.resets),
        )

    def fault_after(self, turn: int) -> Fault | None:
        """What the request of this turn gets in place of its answer; turns start with 0."""
        return _of_turn(
            turn,
            ("error", self.lost_receipts),
            ("closed", self.closed_receipts),
            ("reset", self.reset_receipts),
            ("hung", self.hung_receipts),
            ("malformed", self.malformed_receipts),
        )


def _of_turn(turn: int, *faults: tuple[Fault, int]) -> Fault | None:
    turns: Iterable[Fault] = chain.from_iterable(repeat(fault, times) for fault, times in faults)
    return next((fault for number, fault in enumerate(turns) if number == turn), None)
