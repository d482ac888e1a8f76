"""The kinds of ends: what the provider is asked to do, and how the call has to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ackbridge.contracts.calls import CallRequest

from . import caller_scripts
from .facts import CallFacts
from .records import PROVIDER
from .scenario_run import DemoCall
from .short_deadlines import DEADLINE

_PAYLOADS: dict[str, dict[str, Any]] = {
    "create_order": {"amount": 4200, "currency": "EUR"},
    "create_shipment": {"destination": "Bergen"},
    "create_booking": {"room": "attic", "nights": 2},
    "create_report": {"subject": "sales"},
    "quote": {"amount": 4200, "currency": "EUR"},
}
_DEADLINE_MS = round(DEADLINE.total_seconds() * 1000)


@dataclass(frozen=True)
class DemoScenario:
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
    expected: CallFacts
    behaviour: dict[str, Any] = field(default_factory=dict)
    script: Callable[[DemoCall], Awaitable[None]] = caller_scripts.await_it
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
    DemoScenario("answered", "Answered", "create_order", CallFacts()),
    DemoScenario("at-once", "Answered in the HTTP response itself", "quote", CallFacts(told=((),))),
    DemoScenario(
        "polled",
        "Answered only when asked",
        "create_report",
        CallFacts(marks=_marks("asked")),
        {"delay_ms": 700},
    ),
    DemoScenario(
        "twice",
        "Answered twice at the same instant",
        "create_order",
        CallFacts(marks=_marks("answered more than once")),
        {"duplicates": 1},
    ),
    DemoScenario(
        "forged",
        "Forged answers come before the true one",
        "create_shipment",
        CallFacts(told=((),), marks=_marks("forgeries refused")),
        {"forged": True},
    ),
    DemoScenario(
        "lost-receipt",
        "The receipt is lost, the work is done",
        "create_order",
        CallFacts(sent=(2,)),
        # The answer comes after the second sending, or that would be needless.
        {"closed_receipts": 1, "delay_ms": 2500},
    ),
    DemoScenario(
        "refused",
        "Refused",
        "create_order",
        CallFacts(end="failed", done=0, told=(), recorded=0, notices=("refused",)),
        {"refuse": 422, "reason": "we do not sell to Atlantis"},
    ),
    DemoScenario(
        "failure",
        "Failed, and well at the second try",
        "create_order",
        CallFacts(sent=(1, 1), told=(("failed",), ("success",))),
        {"fail": 1, "retryable": True, "reason": "the till was being changed"},
    ),
    DemoScenario(
        "silence",
        "Silence",
        "create_order",
        CallFacts(
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
    DemoScenario(
        "more-time",
        "More time asked for, and given",
        "create_order",
        CallFacts(marks=_marks("extended")),
        {"extend_ms": 3 * _DEADLINE_MS, "extend_wait_ms": _DEADLINE_MS + 1500},
        caller_scripts.see_it_extended,
    ),
    DemoScenario(
        "late",
        "Answered after we had given up on it",
        "create_booking",
        CallFacts(
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
        caller_scripts.await_both_answers,
    ),
    DemoScenario(
        "no-receipt",
        "Never a receipt: parked, then reprocessed",
        "create_booking",
        CallFacts(
            sent=(6,),
            notices=("delayed",),
            marks=_marks("parked", "late", f"reprocess by {caller_scripts.COLLEAGUE}"),
        ),
        # As many as the operation tries.
        {"resets": 5},
        caller_scripts.take_it_up_again,
    ),
    DemoScenario(
        "forced",
        "Parked, and forced by an operator",
        "create_booking",
        CallFacts(
            sent=(1, 1),
            done=2,
            told=(("failed",), ("failed", "success")),
            notices=("delayed",),
            marks=_marks(
                *("asked", "parked"),
                *(
                    f"force_ack by {caller_scripts.OPERATOR}",
                    f"forced by {caller_scripts.OPERATOR}",
                ),
            ),
        ),
        {"silent": True, "status_failures": 100},
        caller_scripts.look_and_force_it,
    ),
    DemoScenario(
        "expired",
        "Failed for good: parked until its time is over",
        "create_booking",
        CallFacts(
            end="failed",
            done=0,
            told=(("failed",),),
            recorded=0,
            notices=("delayed", "failed"),
            marks=_marks("parked"),
        ),
        {"fail": 100, "reason": "the house is closed this week"},
        caller_scripts.see_it_parked,
    ),
    DemoScenario(
        "cancelled",
        "Cancelled by its caller",
        "create_order",
        CallFacts(
            end="cancelled",
            done=0,
            told=(("failed",),),
            recorded=0,
            notices=("cancelled",),
            marks=_marks(
                f"cancel by {caller_scripts.CALLER}", f"cancelled by {caller_scripts.CALLER}"
            ),
        ),
        {"stuck": True},
        caller_scripts.change_ones_mind,
    ),
    DemoScenario(
        "owed",
        "The provider's acknowledgement API is down",
        "create_order",
        CallFacts(marks=_marks("owed")),
        {"acknowledgement_down_ms": 3000},
        caller_scripts.await_the_rest,
    ),
    DemoScenario(
        "again",
        "The same key again",
        "create_order",
        CallFacts(marks=_marks("same outcome again")),
        script=caller_scripts.repeat_it,
    ),
    DemoScenario(
        "reused",
        "The same key with another payload",
        "create_order",
        CallFacts(marks=_marks("KeyReusedError")),
        script=caller_scripts.reuse_the_key,
    ),
    DemoScenario(
        "invalid",
        "A payload that the operation does not take",
        "create_order",
        CallFacts(
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
