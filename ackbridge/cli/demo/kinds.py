"""The kinds of ends: what the provider is asked to do, and how the call has to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ackbridge.contracts import CallRequest

from . import scripts
from .facts import Facts
from .hurry import DEADLINE
from .records import PROVIDER
from .scene import Scene

_PAYLOADS: dict[str, dict[str, Any]] = {
    "create_order": {"amount": 4200, "currency": "EUR"},
    "create_shipment": {"destination": "Bergen"},
    "create_booking": {"room": "attic", "nights": 2},
    "create_report": {"subject": "sales"},
    "quote": {"amount": 4200, "currency": "EUR"},
}
_DEADLINE_MS = round(DEADLINE.total_seconds() * 1000)


@dataclass(frozen=True)
class Kind:
    """One kind of end.

    Attributes:
        name: for its key.
        title: for people.
        behaviour: what the provider is asked to do.
        script: what callers and operators do.
        expected: how it has to end.
        payload: what is not as usual in it.
    """

    name: str
    title: str
    operation: str
    expected: Facts
    behaviour: dict[str, Any] = field(default_factory=dict)
    script: Callable[[Scene], Awaitable[None]] = scripts.await_it
    payload: dict[str, Any] = field(default_factory=dict)

    def request(self, run: str) -> CallRequest:
        """The call of this kind, in one run of the demo."""
        usual = _PAYLOADS[self.operation]
        return CallRequest(
            provider=PROVIDER,
            operation=self.operation,
            key=f"demo-{run}-{self.name}",
            payload={**usual, **self.payload, "behaviour": self.behaviour},
        )


def _marks(*marks: str) -> frozenset[str]:
    return frozenset(marks)


KINDS = (
    Kind("answered", "Answered", "create_order", Facts()),
    Kind("at-once", "Answered in the HTTP response itself", "quote", Facts(told=((),))),
    Kind(
        "polled",
        "Answered only when asked",
        "create_report",
        Facts(marks=_marks("asked")),
        {"delay_ms": 700},
    ),
    Kind(
        "twice",
        "Answered twice at the same instant",
        "create_order",
        Facts(marks=_marks("answered more than once")),
        {"duplicates": 1},
    ),
    Kind(
        "forged",
        "Forged answers come before the true one",
        "create_shipment",
        Facts(told=((),), marks=_marks("forgeries refused")),
        {"forged": True},
    ),
    Kind(
        "lost-receipt",
        "The receipt is lost, the work is done",
        "create_order",
        Facts(sent=(2,)),
        # The answer comes after the second sending, or that would be needless.
        {"closed_receipts": 1, "delay_ms": 2500},
    ),
    Kind(
        "refused",
        "Refused",
        "create_order",
        Facts(end="failed", done=0, told=(), recorded=0, notices=("refused",)),
        {"refuse": 422, "reason": "we do not sell to Atlantis"},
    ),
    Kind(
        "failure",
        "Failed, and well at the second try",
        "create_order",
        Facts(sent=(1, 1), told=(("failed",), ("success",))),
        {"fail": 1, "retryable": True, "reason": "the till was being changed"},
    ),
    Kind(
        "silence",
        "Silence",
        "create_order",
        Facts(
            end="failed",
            sent=(1, 1),
            done=0,
            told=(("failed",), ("failed",)),
            recorded=0,
            notices=("failed",),
            marks=_marks("asked"),
        ),
        {"stuck": True},
    ),
    Kind(
        "more-time",
        "More time asked for, and given",
        "create_order",
        Facts(marks=_marks("extended")),
        {"extend_ms": 3 * _DEADLINE_MS, "extend_wait_ms": _DEADLINE_MS + 1500},
        scripts.see_it_extended,
    ),
    Kind(
        "late",
        "Answered after we had given up on it",
        "create_booking",
        Facts(
            sent=(1, 1),
            done=2,
            told=(("failed", "success"), ("failed",)),
            notices=("delayed",),
            marks=_marks(
                *("asked", "parked", "late", "answered more than once"), "1 answer kept for people"
            ),
        ),
        # Late enough to find it parked; the answer to the second sending finds it over.
        {"late": True, "late_ms": _DEADLINE_MS + 4000},
        scripts.await_both_answers,
    ),
    Kind(
        "no-receipt",
        "Never a receipt: parked, then reprocessed",
        "create_booking",
        Facts(
            sent=(6,),
            notices=("delayed",),
            marks=_marks("parked", "late", f"reprocess by {scripts.COLLEAGUE}"),
        ),
        # As many as the operation tries.
        {"resets": 5},
        scripts.take_it_up_again,
    ),
    Kind(
        "forced",
        "Parked, and forced by an operator",
        "create_booking",
        Facts(
            sent=(1, 1),
            done=2,
            told=(("failed",), ("failed", "success")),
            notices=("delayed",),
            marks=_marks(
                *("asked", "parked"),
                *(f"force_ack by {scripts.OPERATOR}", f"forced by {scripts.OPERATOR}"),
            ),
        ),
        {"silent": True, "status_failures": 100},
        scripts.look_and_force_it,
    ),
    Kind(
        "expired",
        "Failed for good: parked until its time is over",
        "create_booking",
        Facts(
            end="failed",
            done=0,
            told=(("failed",),),
            recorded=0,
            notices=("delayed", "failed"),
            marks=_marks("parked"),
        ),
        {"fail": 100, "reason": "the house is closed this week"},
        scripts.see_it_parked,
    ),
    Kind(
        "cancelled",
        "Cancelled by its caller",
        "create_order",
        Facts(
            end="cancelled",
            done=0,
            told=(("failed",),),
            recorded=0,
            notices=("cancelled",),
            marks=_marks(f"cancel by {scripts.CALLER}", f"cancelled by {scripts.CALLER}"),
        ),
        {"stuck": True},
        scripts.change_ones_mind,
    ),
    Kind(
        "owed",
        "The provider's acknowledgement API is down",
        "create_order",
        Facts(marks=_marks("owed")),
        {"acknowledgement_down_ms": 3000},
        scripts.await_the_rest,
    ),
    Kind(
        "again",
        "The same key again",
        "create_order",
        Facts(marks=_marks("same outcome again")),
        script=scripts.repeat_it,
    ),
    Kind(
        "reused",
        "The same key with another payload",
        "create_order",
        Facts(marks=_marks("KeyReusedError")),
        script=scripts.reuse_the_key,
    ),
    Kind(
        "invalid",
        "A payload that the operation does not take",
        "create_order",
        Facts(
            end="not taken",
            sent=(),
            done=0,
            told=(),
            recorded=0,
            marks=_marks("InvalidRequestError"),
        ),
        payload={"amount": -1},
    ),
)
"""One of each."""
