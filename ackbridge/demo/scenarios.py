"""The scenarios: faults of the provider, actions of callers and operators, and the expected end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import AckbridgeError
from ackbridge.terminal import output

from .records import CALLER, COLLEAGUE, OPERATOR, PROVIDER, CallRecords, RecordSources
from .scenario_run import CallFacts, DemoCall, facts_of
from .short_deadlines import DEADLINE

PAYLOADS: dict[str, dict[str, Any]] = {
    "create_order": {"amount": 4200, "currency": "EUR"},
    "create_shipment": {"destination": "Bergen"},
    "create_booking": {"room": "attic", "nights": 2},
    "create_report": {"subject": "sales"},
    "quote": {"amount": 4200, "currency": "EUR"},
}
_DEADLINE_MS = round(DEADLINE.total_seconds() * 1000)


# Scripts: what callers and operators do


async def await_outcome(demo_call: DemoCall) -> None:
    await demo_call.start()
    await demo_call.end()


async def repeat_request(demo_call: DemoCall) -> None:
    """Make the same call again, as after a crash of the caller."""
    await await_outcome(demo_call)
    first = demo_call.outcome
    await await_outcome(demo_call)
    demo_call.is_repeated = first is not None and demo_call.outcome == first


async def reuse_key(demo_call: DemoCall) -> None:
    """Make another call with the same key, which is a mistake of the caller."""
    await await_outcome(demo_call)
    other = demo_call.request.model_copy(update={"payload": {"amount": 999, "currency": "EUR"}})
    await demo_call.start_expecting_refusal(other)


async def await_acknowledgement(demo_call: DemoCall) -> None:
    await demo_call.start()
    await demo_call.end(settled=False)
    await demo_call.check_owed()
    await demo_call.end()


async def await_extension(demo_call: DemoCall) -> None:
    await demo_call.start()
    await demo_call.wait_until_awaiting(longer_than=DEADLINE)
    await demo_call.end()


async def await_parked(demo_call: DemoCall) -> None:
    await demo_call.start()
    await demo_call.wait_until_parked()
    await demo_call.end()


async def await_both_responses(demo_call: DemoCall) -> None:
    """A late response ends the call; the response of its other cycle comes after that."""
    await await_parked(demo_call)
    await demo_call.wait_until_answered(2)


async def reprocess(demo_call: DemoCall) -> None:
    await demo_call.start()
    await demo_call.wait_until_parked()
    await demo_call.call.reprocess(by=COLLEAGUE)
    await demo_call.end()


async def force(demo_call: DemoCall) -> None:
    """An operator looks at the provider's console, and forces the parked call."""
    await demo_call.start()
    await demo_call.wait_until_parked()
    work = (await demo_call.sources.works(demo_call.request.call_id))[-1]
    await demo_call.call.force_ack(
        by=OPERATOR,
        reason=f"their console shows {work['id']} as {work['status']}",
        response={"id": work["id"], "status": work["status"]},
    )
    await demo_call.end()


async def cancel(demo_call: DemoCall) -> None:
    """The caller cancels while the response is awaited."""
    await demo_call.start()
    await demo_call.wait_until_awaiting()
    await demo_call.call.cancel(by=CALLER, reason="changed their mind")
    await demo_call.end()


# The scenarios


@dataclass(frozen=True)
class DemoScenario:
    """One way in which a call can end; `payload` has what differs from the default."""

    name: str
    title: str
    operation: str
    expected: CallFacts
    behaviour: dict[str, Any] = field(default_factory=dict)
    script: Callable[[DemoCall], Awaitable[None]] = await_outcome
    payload: dict[str, Any] = field(default_factory=dict)

    def request(self, run: str) -> CallRequest:
        default = PAYLOADS[self.operation]
        return CallRequest(
            provider=PROVIDER,
            operation=self.operation,
            key=f"demo-{run}-{self.name}",
            payload={**default, **self.payload, "behaviour": self.behaviour},
        )


SCENARIOS = (
    DemoScenario("answered", "Answered", "create_order", CallFacts()),
    DemoScenario(
        "at-once", "Answered in the HTTP response itself", "quote", CallFacts(acknowledged=((),))
    ),
    DemoScenario(
        "polled",
        "Answered by status request",
        "create_report",
        CallFacts(marks=frozenset({"status requested"})),
        {"delay_ms": 700},
    ),
    DemoScenario(
        "twice",
        "Answered twice at the same instant",
        "create_order",
        CallFacts(marks=frozenset({"answered more than once"})),
        {"duplicates": 1},
    ),
    DemoScenario(
        "forged",
        "Forged answers come before the true one",
        "create_shipment",
        CallFacts(acknowledged=((),), marks=frozenset({"forgeries rejected"})),
        {"forged": True},
    ),
    DemoScenario(
        "lost-receipt",
        "The receipt is lost, the work is done",
        "create_order",
        CallFacts(sent=(2,)),
        # The response comes after the second attempt, which would not happen otherwise.
        {"closed_receipts": 1, "delay_ms": 2500},
    ),
    DemoScenario(
        "refused",
        "Refused",
        "create_order",
        CallFacts(
            end="failed",
            effect="none",
            done=0,
            acknowledged=(),
            recorded=0,
            notices=("refused",),
        ),
        {"refuse": 422, "reason": "we do not sell to Atlantis"},
    ),
    DemoScenario(
        "failure",
        "Failed, and completed in the second cycle",
        "create_order",
        CallFacts(sent=(1, 1), acknowledged=(("failed",), ("success",))),
        {"fail": 1, "retryable": True, "reason": "the service was being updated"},
    ),
    DemoScenario(
        "silence",
        "No response",
        "create_order",
        CallFacts(
            end="failed",
            effect="none",
            sent=(1, 1),
            done=0,
            acknowledged=(("failed",), ("failed",)),
            recorded=0,
            notices=("failed",),
            marks=frozenset({"status requested"}),
        ),
        {"stuck": True},
    ),
    DemoScenario(
        "more-time",
        "Deadline extended on request",
        "create_order",
        CallFacts(marks=frozenset({"extended"})),
        {"extend_ms": 3 * _DEADLINE_MS, "extend_wait_ms": _DEADLINE_MS + 1500},
        await_extension,
    ),
    DemoScenario(
        "late",
        "Answered after the deadline",
        "create_booking",
        CallFacts(
            sent=(1, 1),
            done=2,
            acknowledged=(("failed", "success"), ("failed",)),
            notices=("delayed",),
            marks=frozenset(
                {"status requested", "parked", "late", "answered more than once", "1 message held"}
            ),
        ),
        # Late enough to arrive while it is parked; the second response arrives after the end.
        {"late": True, "late_ms": _DEADLINE_MS + 4000},
        await_both_responses,
    ),
    DemoScenario(
        "no-receipt",
        "No receipt: parked, then reprocessed",
        "create_booking",
        CallFacts(
            sent=(6,),
            notices=("delayed",),
            marks=frozenset({"parked", "late", f"reprocess by {COLLEAGUE}"}),
        ),
        # As many as the operation has attempts.
        {"resets": 5},
        reprocess,
    ),
    DemoScenario(
        "forced",
        "Parked, and forced by an operator",
        "create_booking",
        CallFacts(
            sent=(1, 1),
            done=2,
            acknowledged=(("failed",), ("failed", "success")),
            notices=("delayed",),
            marks=frozenset(
                {"status requested", "parked", f"force_ack by {OPERATOR}", f"forced by {OPERATOR}"}
            ),
        ),
        {"silent": True, "status_failures": 100},
        force,
    ),
    DemoScenario(
        "failed",
        "Failed for good",
        "create_booking",
        CallFacts(
            end="failed",
            effect="none",
            done=0,
            acknowledged=(("failed",),),
            recorded=0,
            notices=("failed",),
        ),
        # Nothing can come of it any more, so it is not parked.
        {"fail": 100, "reason": "the house is closed this week"},
    ),
    DemoScenario(
        "unknown",
        "No answer at all: nobody knows what happened",
        "quote",
        CallFacts(
            end="failed",
            effect="unknown",
            sent=(5,),
            acknowledged=((),),
            recorded=0,
            notices=("unknown",),
        ),
        # As many as the operation has attempts.
        {"closed_receipts": 5},
    ),
    DemoScenario(
        "cancelled",
        "Cancelled by its caller",
        "create_order",
        CallFacts(
            end="cancelled",
            effect="none",
            done=0,
            acknowledged=(("failed",),),
            recorded=0,
            notices=("cancelled",),
            marks=frozenset({f"cancel by {CALLER}", f"cancelled by {CALLER}"}),
        ),
        {"stuck": True},
        cancel,
    ),
    DemoScenario(
        "owed",
        "The provider's acknowledgement API is down",
        "create_order",
        CallFacts(marks=frozenset({"owed"})),
        {"acknowledgement_down_ms": 3000},
        await_acknowledgement,
    ),
    DemoScenario(
        "again",
        "The same key again",
        "create_order",
        CallFacts(marks=frozenset({"same outcome again"})),
        script=repeat_request,
    ),
    DemoScenario(
        "reused",
        "The same key with another payload",
        "create_order",
        CallFacts(marks=frozenset({"KeyReusedError"})),
        script=reuse_key,
    ),
    DemoScenario(
        "invalid",
        "A payload that the operation does not accept",
        "create_order",
        CallFacts(
            end="refused",
            effect="none",
            sent=(),
            done=0,
            acknowledged=(),
            recorded=0,
            marks=frozenset({"InvalidRequestError"}),
        ),
        payload={"amount": -1},
    ),
)


@dataclass(frozen=True)
class ScenarioResult:
    """The call of a scenario; `problems` has one line for each unexpected fact."""

    scenario: DemoScenario
    demo_call: DemoCall
    records: CallRecords
    problems: Sequence[str]

    @property
    def call_id(self) -> str:
        return self.demo_call.request.call_id


async def run_scenarios(
    sources: RecordSources, scenarios: Sequence[DemoScenario], run: str
) -> list[ScenarioResult]:
    with output.call_progress() as progress:
        bar = progress.add_task("one call for each scenario", total=len(scenarios))

        async def one(scenario: DemoScenario) -> ScenarioResult:
            result = await run_scenario(sources, scenario, run)
            progress.advance(bar)
            return result

        return await asyncio.gather(*map(one, scenarios))


async def run_scenario(sources: RecordSources, scenario: DemoScenario, run: str) -> ScenarioResult:
    demo_call = DemoCall(sources, scenario.request(run))
    problems = []
    try:
        await scenario.script(demo_call)
    except (AckbridgeError, TimeoutError) as error:
        problems.append(str(error) or type(error).__name__)
    records = await sources.read(demo_call.request.call_id)
    problems += scenario.expected.differences(facts_of(demo_call, records))
    return ScenarioResult(scenario, demo_call, records, problems)
