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

    Faults of the same request happen one after the other, in the order of this list: `throttle=1,
    lost_receipts=1` is a 429, then a 5xx with the job done, then the receipt.

    Requests that have no effect:
        refuse: the HTTP status with which the request is refused for good. Nothing else happens.
        throttle: this many requests are answered 429.
        retry_after: seconds in the 429; `retry_after_date` sends it as an HTTP date.
        receipt_failures: this many are answered with `error_status`.
        resets: this many connections are reset (TCP RST).

    Requests whose job is started or done all the same:
        receipt_delay_ms: delay of the first reply; retries of the request are answered at once.
        lost_receipts: this many are answered with `error_status`.
        closed_receipts: this many connections are closed without a reply.
        reset_receipts: this many connections are reset.
        hung_receipts: this many get the headers and half of the body, and then nothing.
        malformed_receipts: this many are answered 200 with a body that is not JSON.

    The job:
        stuck: it is never done, and there is no callback. Overrides all that follows.
        delay_ms: before it is done; None: the provider's own delay.
        fail: this many jobs of one call fail before one is completed.
        reason, retryable: of a failure, and of a refusal.
        late: it is done and reported only after a failed acknowledgement, `late_ms` after it,
            although that has called it off. Any other job that is called off reports no result.

    Callbacks:
        silent: none; the status request has the result.
        early: the callback is sent, and answered, before the receipt. No delay, no extension.
        extend_ms: the provider asks for this many milliseconds more, `extensions` times, and
            continues `extend_wait_ms` after each (default: half of `extend_ms`).
        forged: forged callbacks come before the true one: each that the dialect can forge.
        malformed: signed callbacks that cannot be parsed come before the true one.
        contradictory: completion and failure are both sent, this one first. The result of status
            requests does not change.
        duplicates: this many more copies of each callback are sent at the same instant.
        lost_callbacks: this many attempts of each callback are not sent.

    Other requests:
        status_failures: this many status requests are answered with `error_status`.
        acknowledgement_failures: this many acknowledgements are answered with
            `acknowledgement_status`, which may be a refusal, before one is accepted. A 429 asks
            for `retry_after` seconds.
        acknowledgement_down_ms: none is accepted for this long, from the first one on.
        lost_acknowledgements: this many are accepted, and answered with `error_status`.
        error_status: the 5xx status of these.
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
