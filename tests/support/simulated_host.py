"""A host without an engine: a clock that jumps, steps that answer as they are told."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, CallStatus, Notice
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.deliveries import Delivery
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.notices import CALLER_KINDS
from ackbridge.contracts.plan import (
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    OnFailure,
    Plan,
    Prepared,
    ResponseMode,
    SendPlan,
)
from ackbridge.contracts.steps import (
    Acknowledged,
    AcknowledgeStep,
    Asked,
    Concluded,
    InboxMessages,
    Recorded,
    SendStep,
    Sent,
)
from ackbridge.contracts.wire import Wire
from workflows.call.protocol import CallProtocol
from workflows.hosting.host import Condition, Result, Step, StepError

START = datetime(2026, 1, 1, tzinfo=UTC)

REQUEST = CallRequest(provider="acme", operation="order", key="k-1", payload={"amount": 5})


def plan(**changes: Any) -> Plan:
    """A plan of a callback operation with acknowledgements, 30 s of deadline and two cycles."""
    planned = Plan(
        mode=ResponseMode.CALLBACK,
        send=SendPlan(
            local=True,
            timeout=timedelta(seconds=5),
            attempts=3,
            within=timedelta(minutes=2),
            queue_within=timedelta(hours=1),
        ),
        deadline=timedelta(seconds=30),
        deadline_reason="30 s (configured initial value)",
        ceiling=timedelta(minutes=10),
        acknowledge=AcknowledgePlan(
            timeout=timedelta(seconds=5),
            within=timedelta(hours=24),
            on_success=True,
            on_failed=True,
        ),
        cycles=2,
        on_failure=OnFailure.FAIL,
        late=LatePolicy.ACCEPT,
        notices={
            kind: Notice(kind=kind, title=kind.title(), message=f"It is {kind}.")
            for kind in CALLER_KINDS
        },
        revision=REVISION,
        reprocess_attempts=9,
    )
    return planned.model_copy(update=changes)


def response(event_key: str = "evt-1", **changes: Any) -> ProviderMessage:
    """A provider's success."""
    said = ProviderMessage(kind=MessageKind.RESPONSE, event_key=event_key, data={"ok": True})
    return said.model_copy(update=changes)


class StuckError(Exception):
    """Nothing will ever happen any more, and the call is still waiting."""


class SimulatedHost:
    """Runs one call in virtual time, from a schedule of what happens when.

    Attributes:
        performed: every step that was asked for, with its argument.
        answers: by step name, what it answers, one after the other; the last one repeats.
        moves_out: whether calls that wait for long leave this host.
    """

    def __init__(self, planned: Plan, request: CallRequest = REQUEST, **answers: Any) -> None:
        self._now = START
        self._schedule: list[tuple[datetime, int, Callable[[CallProtocol], None]]] = []
        self._background: list[asyncio.Task[None]] = []
        self.moves_out = False
        self.performed: list[tuple[str, Wire]] = []
        self.shown: list[CallStatus] = []
        self.deliveries: list[Delivery] = []
        self.indexed: list[str] = []
        self.passed_on: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: dict[str, list[Any]] = {
            names.PREPARE: [Prepared(plan=planned)],
            names.SEND: [Sent(sent_at=START, receipt_at=START, reference="r-1")],
            names.RECORD: [Recorded(accepted=True)],
            names.ACKNOWLEDGE: [Acknowledged(acknowledged_at=START)],
            names.CONCLUDE: [Concluded()],
            names.RECONSIDER: [AdmissionState()],
            names.CORRELATE: [InboxMessages()],
            names.LOOK_INBOX: [InboxMessages()],
            names.ASK_STATUS: [Asked()],
        }
        self.answers.update({name: list(given) for name, given in answers.items()})
        self.protocol = CallProtocol(self, request, "run-1")

    def at(self, seconds: float, happens: Callable[[CallProtocol], None]) -> SimulatedHost:
        """Let something happen so many seconds after the start."""
        moment = START + timedelta(seconds=seconds)
        self._schedule.append((moment, len(self._schedule), happens))
        return self

    def steps(self, name: str) -> list[Any]:
        """The arguments a step was asked for with."""
        return [argument for asked, argument in self.performed if asked == name]

    @property
    def acknowledgements(self) -> list[tuple[int, str]]:
        """(cycle, kind) of every acknowledgement that was tried."""
        tried = cast("list[AcknowledgeStep]", self.steps(names.ACKNOWLEDGE))
        return [(step.cycle, str(step.kind)) for step in tried]

    @property
    def sent_cycles(self) -> list[int]:
        """The cycle of every request that was sent."""
        return [step.cycle for step in cast("list[SendStep]", self.steps(names.SEND))]

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the start."""
        return (self._now - START).total_seconds()

    def now(self) -> datetime:
        return self._now

    def should_continue_as_new(self) -> bool:
        return False

    def should_move_out(self) -> bool:
        return self.moves_out

    async def perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        interrupted: Condition | None = None,
    ) -> Result:
        self.performed.append((step.name, argument))
        script = self.answers[step.name]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer = answer(self.protocol)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, StepError):
            raise answer
        return cast("Result", answer)

    async def wait(self, condition: Condition, until: datetime | None, summary: str = "") -> bool:
        while True:
            await asyncio.sleep(0)
            if condition():
                return True
            due = sorted(self._schedule, key=lambda entry: entry[:2])
            if due and (until is None or due[0][0] <= until):
                self._schedule.remove(due[0])
                self._now = max(self._now, due[0][0])
                due[0][2](self.protocol)
            elif until is None:
                raise StuckError(summary)
            else:
                self._now = max(self._now, until)
                return False

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(asyncio.create_task(work))

    async def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    async def pass_on(self, workflow_id: str, name: str, argument: Mapping[str, Any]) -> bool:
        self.passed_on.append((workflow_id, name, dict(argument)))
        return True

    def show(self, status: CallStatus) -> None:
        self.shown.append(status)

    def index_at_start(self, request: CallRequest) -> None:
        self.indexed.append("start")

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        self.indexed.append(stage)

    def index_pending_acknowledgements(self, *, are_pending: bool) -> None:
        self.indexed.append("pending" if are_pending else "accepted")
