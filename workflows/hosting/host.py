"""The port between the protocol of a call and what hosts it: a clock, steps, timers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallRequest, CallStatus
    from ackbridge.contracts.continuation import ParkedCause
    from ackbridge.contracts.deliveries import Delivery
    from ackbridge.contracts.plan import Plan
    from ackbridge.contracts.wire import Wire

Result = TypeVar("Result", bound=Wire)

Condition = Callable[[], bool]


class TaskQueueKind(StrEnum):
    """Which workers perform a step."""

    MAIN = "main"
    SEND = "send"
    SETTLE = "settle"


class OnInterrupt(StrEnum):
    """What happens to an attempt that is running when its step is interrupted.

    AWAITED: it ends by itself and is not repeated, because it may have reached the provider.
    ABANDONED: nothing waits for its end, which has no effect.
    """

    AWAITED = "awaited"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Step(Generic[Result]):
    """One activity, with all its bounds.

    Attributes:
        name: of the activity.
        result: the type of its result.
        summary: one line for the Temporal UI.
        timeout: of one attempt.
        attempts: the maximum; None for as many as `within` allows.
        within: the time of all attempts; None for no limit.
        queue_within: how long it may wait for a worker.
        local_first: whether the first attempt is a local activity.
        first_retry, longest_retry: the delay before the second attempt, which doubles from there,
            and its maximum.
        heartbeat_timeout: None where the activity sends no heartbeats.
        fairness: the fairness key in its queue.
        priority: in its queue, from 1 (first) to 5; None for the default of 3.
        not_repeated: types of failures after which the engine makes no further attempt, besides
            final ones.
        after_first_attempt: makes the argument of all further attempts from that of the first one
            and its error.
    """

    name: str
    result: type[Result]
    summary: str
    queue: TaskQueueKind
    timeout: timedelta
    attempts: int | None = None
    within: timedelta | None = None
    queue_within: timedelta | None = None
    local_first: bool = True
    first_retry: timedelta = timedelta(milliseconds=500)
    longest_retry: timedelta = timedelta(minutes=5)
    heartbeat_timeout: timedelta | None = None
    on_interrupt: OnInterrupt = OnInterrupt.AWAITED
    fairness: str | None = None
    priority: int | None = None
    not_repeated: tuple[str, ...] = ()
    after_first_attempt: Callable[[Any, StepError], Wire] | None = None


INTERRUPTED = "Interrupted"
"""The kind of a `StepError` whose step was interrupted."""


class StepError(Exception):
    """A step failed and will not be tried again.

    Attributes:
        kind: a `StepFailure`, `INTERRUPTED`, or another failure type of the engine.
        reason: one line for people, without secrets.
        attempts: how often it was tried.
        reached: whether the provider may have got the request.
        code: the provider's own code of a refusal.
        retry_after: how long to wait before another attempt, if one makes sense.
        throttled: as in `FailedAttempt`.
    """

    def __init__(
        self,
        kind: str,
        reason: str,
        *,
        attempts: int = 1,
        reached: bool = False,
        code: str | None = None,
        retry_after: timedelta | None = None,
        throttled: bool = False,
    ) -> None:
        self.kind = kind
        self.reason = reason
        self.attempts = attempts
        self.reached = reached
        self.code = code
        self.retry_after = retry_after
        self.throttled = throttled
        super().__init__(f"{kind}: {reason}")


class ContinueAsNewRequested(Exception):  # noqa: N818 -- a request, not an error
    """A call that waits can continue as new, or in another workflow.

    Attributes:
        parked: why it has no response; None: it awaits that.
    """

    def __init__(self, plan: Plan, parked: ParkedCause | None) -> None:
        self.plan = plan
        self.parked = parked
        super().__init__(parked.reason if parked else "it awaits its response")


class Host(Protocol):
    """What hosts the protocol of a call."""

    def now(self) -> datetime:
        """The time of the host's clock, UTC."""

    def should_continue_as_new(self) -> bool:
        """Whether a parked or reconciling call should continue as new as soon as it can."""

    def should_move_out(self) -> bool:
        """Whether a call that awaits its response should leave for a workflow of its own."""

    async def perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        interrupted: Condition | None = None,
    ) -> Result:
        """Perform a step with all its retries.

        Args:
            interrupted: once this is true, no further attempt is made.

        Raises:
            StepError: it was refused, its attempts or its time ran out, or it was interrupted.
        """

    async def wait(self, condition: Condition, until: datetime | None, summary: str = "") -> bool:
        """Wait for a condition; false if it is still false at `until`.

        Args:
            summary: of the timer, for the Temporal UI.
        """

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the call."""

    async def deliver(self, delivery: Delivery) -> None:
        """Start the delivery of a notice, once; it continues without the call."""

    async def pass_on(self, workflow_id: str, name: str, argument: Mapping[str, Any]) -> bool:
        """Send a signal to the workflow that conducts the call; false if that has ended."""

    def show(self, status: CallStatus) -> None:
        """Show people where the call is."""

    def index_at_start(self, request: CallRequest) -> None:
        """Set the search attributes that every call has, where they are registered."""

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        """Set the search attributes of a stage; one event each time."""

    def index_pending_acknowledgements(self, *, are_pending: bool) -> None:
        """Set whether acknowledgements are pending; one event each time."""
