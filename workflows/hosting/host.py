"""What the protocol of a call asks of whatever hosts it: a clock, effects, and patience."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallStatus
    from ackbridge.contracts.deliveries import Delivery
    from ackbridge.contracts.wire import Wire

Result = TypeVar("Result", bound=Wire)


class TaskQueueKind(StrEnum):
    """Which workers perform a step."""

    MAIN = "main"
    SEND = "send"
    SETTLE = "settle"


class OnInterrupt(StrEnum):
    """What becomes of a step that is not wanted any more.

    AWAITED: the attempt in hand ends as it ends; it is not tried again. Nothing that may have
        left us is abandoned.
    ABANDONED: nobody waits for its end, which has no effect.
    """

    AWAITED = "awaited"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Step(Generic[Result]):
    """One effect, with every bound it has.

    Attributes:
        name: the activity.
        result: what it answers.
        summary: one line for the Temporal UI.
        lane: which task queue it goes to.
        timeout: of one attempt.
        attempts: how many at the most; None for as long as `within` allows.
        within: how long altogether; None for as long as it takes.
        queue_within: how long it may wait for a worker.
        waiting_counts: once it has been tried, waiting for a worker is part of `within`.
        local_first: whether the first attempt may ride in the workflow task.
        first_retry: the delay before the second attempt; it doubles from there.
        silent_for: how long an attempt that reports on itself may be silent; None: it does not.
        interruption: what an interrupted step leaves behind.
        fairness: whose turn it takes in its queue; None: nobody's in particular.
        once_tried: what the argument becomes when the first attempt has failed; it is given the
            argument, the failure, and when the attempt began.
    """

    name: str
    result: type[Result]
    summary: str
    lane: TaskQueueKind
    timeout: timedelta
    attempts: int | None = None
    within: timedelta | None = None
    queue_within: timedelta | None = None
    waiting_counts: bool = False
    local_first: bool = True
    first_retry: timedelta = timedelta(milliseconds=500)
    silent_for: timedelta | None = None
    interruption: OnInterrupt = OnInterrupt.AWAITED
    fairness: str | None = None
    once_tried: Callable[[Any, StepError, datetime], Wire] | None = None


INTERRUPTED = "Interrupted"
"""The kind of a `StepError` that was not wanted any more."""


class StepError(Exception):
    """A step that will not be tried again.

    Attributes:
        kind: a `StepFailure`, `INTERRUPTED`, or what else the engine says.
        reason: one safe line for people.
        attempts: how often it was tried.
        reached: whether the provider may have got the request.
    """

    def __init__(self, kind: str, reason: str, *, attempts: int = 1, reached: bool = False) -> None:
        self.kind = kind
        self.reason = reason
        self.attempts = attempts
        self.reached = reached
        super().__init__(f"{kind}: {reason}")


@dataclass(frozen=True)
class FirstAttempt:
    """A first attempt of a step that has failed in the workflow task.

    Attributes:
        failed: how.
        again_after: how long to wait before another; None when there shall be none.
        began: when it began.
    """

    failed: StepError
    again_after: timedelta | None
    began: datetime


class ContinueAsNewRequested(Exception):
    """A parked call asks to continue as new; what it knows is then in its memory."""


class Host(Protocol):
    """Gives a call its effects and its time."""

    def now(self) -> datetime:
        """The host's clock, aware, UTC."""

    def is_worn(self) -> bool:
        """Whether the call should continue as new when it can."""

    async def perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        interrupted: Callable[[], bool] | None = None,
    ) -> Result:
        """Do a step to its end.

        Args:
            interrupted: when this becomes true, the step is not tried again.

        Raises:
            StepError: it was refused, its attempts or its time ran out, or it was interrupted.
        """

    async def go_on(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        first: FirstAttempt,
        interrupted: Callable[[], bool] | None = None,
    ) -> Result:
        """Do a step to its end whose first attempt has failed in the workflow task.

        Raises:
            StepError: as `perform`.
        """

    async def wait(
        self, condition: Callable[[], bool], until: datetime | None, summary: str
    ) -> bool:
        """Wait for a condition; false when the time came first."""

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the call; the host keeps it alive until it ends."""

    async def deliver(self, delivery: Delivery) -> None:
        """Start to deliver a notice, once; its delivery goes on without the call."""

    def show(self, status: CallStatus) -> None:
        """The call has moved; tell whoever looks."""

    def index_at_start(self, provider: str, operation: str) -> None:
        """Make the call findable, where search attributes are registered."""

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        """Make the call findable by its stage. Dear: only off the happy path."""

    def index_owed(self, is_owed: bool) -> None:
        """Make the call findable by what it owes the provider. Dear, too."""
