"""What `workflows.hosting.temporal_host` asks of the SDK, in virtual time and without threads.

One replica is one worker's cached copy of a workflow: it is fed with inputs, runs until nothing
moves, and leaves commands behind. Thrown away and fed with the same inputs, it has to leave the
same commands.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError
from temporalio.workflow import ActivityCancellationType

from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.contracts.continuation import CallContinuation
from ackbridge.contracts.wire import Wire
from workflows.call.protocol import CallProtocol
from workflows.call.ui_details import render
from workflows.hosting import temporal_host
from workflows.hosting.host import ContinueAsNewRequested, StepError
from workflows.hosting.temporal_host import TemporalHost

Command = tuple[Any, ...]
"""What a workflow asks of the engine, comparable; its kind comes first."""


@dataclass(frozen=True)
class Options:
    """How the engine performs an activity."""

    name: str
    argument: Wire
    local: bool
    timeout: timedelta
    policy: RetryPolicy
    queue: str | None = None
    queue_within: timedelta | None = None
    within: timedelta | None = None
    cancellation: ActivityCancellationType = ActivityCancellationType.TRY_CANCEL


class ReplayError(AssertionError):
    """A replay does something else than the run it replays."""


class Until:
    """The one thing a coroutine of a call can await."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self.condition = condition

    def __await__(self) -> Generator[Until, None, None]:
        yield self


@dataclass
class Ticket:
    """An activity the workflow waits for; what it ended with, once it has."""

    number: int
    options: Options
    end: Wire | FailureError | None = None

    def done(self) -> bool:
        return self.end is not None

    def result(self) -> Wire:
        """Its result, or its failure raised as the SDK does."""
        if self.end is None or isinstance(self.end, FailureError):
            raise self.end or RuntimeError("not done")
        return self.end


class Handle:
    """What the SDK gives for a started activity."""

    def __init__(self, replica: Replica, ticket: Ticket) -> None:
        self._replica, self._ticket = replica, ticket

    def done(self) -> bool:
        return self._ticket.done()

    def cancel(self) -> None:
        self._replica.cancel(self._ticket)

    def __await__(self) -> Generator[Until, None, Wire]:
        if not self._ticket.done():
            yield Until(self._ticket.done)
        return self._ticket.result()


@dataclass
class _Task:
    work: Coroutine[Any, Any, Any]
    awaits: Until | None = None


@dataclass(frozen=True)
class Signal:
    """A signal: the name of the protocol's method, and its argument."""

    name: str
    argument: Wire


@dataclass(frozen=True)
class Resolved:
    """An activity has ended."""

    number: int
    end: Wire | FailureError


@dataclass(frozen=True)
class Fired:
    """A timer has come."""

    number: int


Input = Signal | Resolved | Fired


@dataclass
class Replica:
    """One copy of a running call.

    Attributes:
        now: the time of the workflow task in hand.
        suggests_continue_as_new: whether the engine suggests to continue as new.
        is_hosted: whether it runs among other calls. Then it leaves its host when it is parked or
            reconciled, and, once the engine suggests to, also where it awaits something.
        is_batched: whether all inputs of a task are applied before anything runs; otherwise
            signals run first. Both exist in the SDK.
        commands: since the last `take_commands`.
        ended: how the run ended, once it has.
    """

    request: CallRequest
    continuation: CallContinuation | None
    now: datetime
    suggests_continue_as_new: bool = False
    is_hosted: bool = False
    is_batched: bool = True
    commands: list[Command] = field(default_factory=list)
    tickets: dict[int, Ticket] = field(default_factory=dict)
    ended: CallOutcome | StepError | ContinueAsNewRequested | None = None

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._tasks: list[_Task] = []
        self._fired: set[int] = set()
        self._is_started = self._is_patched = False
        with self.current():
            self.protocol = CallProtocol(Host(self), self.request, "chain-1", self.continuation)

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        """Let the SDK's functions act on this replica."""
        _runtime.append(self)
        try:
            yield
        finally:
            _runtime.pop()

    @property
    def locals(self) -> list[Ticket]:
        """Activities that ride in the workflow task in hand."""
        return [one for one in self.tickets.values() if one.options.local and not one.done()]

    def apply(self, inputs: list[Input]) -> None:
        """Take the inputs of one task, in the SDK's order, and run."""
        signals = [one for one in inputs if isinstance(one, Signal)]
        others = [one for one in inputs if not isinstance(one, Signal)]
        with self.current():
            for signal in signals:
                getattr(self.protocol, signal.name)(signal.argument)
            if signals and not self.is_batched:
                self._run()
            if not self._is_started:
                self._is_started = True
                self._tasks.append(_Task(self._main()))
            for one in others:
                if isinstance(one, Fired):
                    self._fired.add(one.number)
                elif one.number not in self.tickets:
                    raise ReplayError(f"#{one.number} has ended, which this copy has not asked for")
                elif not self.tickets[one.number].done():
                    self.tickets[one.number].end = one.end
            self._run()

    def take_commands(self) -> list[Command]:
        taken, self.commands = self.commands, []
        return taken

    def start(self, options: Options) -> Ticket:
        ticket = Ticket(next(self._numbers), options)
        self.tickets[ticket.number] = ticket
        self.commands.append(("activity", ticket.number, options))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        self.commands.append(("cancel", ticket.number))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(_Task(work))

    def patched(self) -> bool:
        if not self._is_patched:
            self._is_patched = True
            self.commands.append(("patched",))
        return True

    async def wait(self, condition: Callable[[], bool], within: timedelta | None) -> None:
        if within is None:
            await Until(condition)
            return
        number, is_met = next(self._numbers), False
        self.commands.append(("timer", number, self.now + within))

        def is_over() -> bool:
            nonlocal is_met
            is_met = number not in self._fired and condition()
            return is_met or number in self._fired

        await Until(is_over)
        if not is_met:
            raise TimeoutError
        self.commands.append(("stop", number))

    def close(self) -> None:
        """Throw the copy away."""
        for task in self._tasks:
            task.work.close()
        self._tasks = []

    async def _main(self) -> None:
        try:
            self.ended = await self.protocol.run()
        except (StepError, ContinueAsNewRequested) as end:
            self.ended = end

    def _run(self) -> None:
        """Run until nothing moves; conditions are looked at together, as the SDK does."""
        while True:
            ready = [one for one in self._tasks if one.awaits is None or one.awaits.condition()]
            if not ready or self.ended is not None:
                return
            for task in ready:
                try:
                    task.awaits = task.work.send(None)
                except StopIteration:
                    self._tasks.remove(task)


class Host(TemporalHost):
    """The real host of a call, on a replica."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(render)
        self._replica = replica

    def should_continue_as_new(self) -> bool:
        return self._replica.is_hosted or self._replica.suggests_continue_as_new

    def should_move_out(self) -> bool:
        return self._replica.is_hosted and self._replica.suggests_continue_as_new

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._replica.begin(work)


_runtime: list[Replica] = []


async def _execute_local_activity(name: str, argument: Wire, **options: Any) -> Wire:
    ticket = _runtime[-1].start(
        Options(
            name,
            argument,
            local=True,
            timeout=options["start_to_close_timeout"],
            policy=options["retry_policy"],
        )
    )
    await Until(ticket.done)
    return ticket.result()


def _start_activity(name: str, argument: Wire, **options: Any) -> Handle:
    replica = _runtime[-1]
    ticket = replica.start(
        Options(
            name,
            argument,
            local=False,
            timeout=options["start_to_close_timeout"],
            policy=options["retry_policy"],
            queue=options["task_queue"],
            queue_within=options["schedule_to_start_timeout"],
            within=options["schedule_to_close_timeout"],
            cancellation=options["cancellation_type"],
        )
    )
    return Handle(replica, ticket)


async def _wait_condition(condition: Callable[[], bool], **options: Any) -> None:
    await _runtime[-1].wait(condition, options.get("timeout"))


def failed_activity(cause: FailureError) -> ActivityError:
    """A regular activity's failure as the SDK wraps it."""
    error = ActivityError(
        "Activity task failed",
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type="",
        activity_id="",
        retry_state=None,
    )
    error.__cause__ = cause
    return error


SDK = SimpleNamespace(
    now=lambda: _runtime[-1].now,
    patched=lambda _: _runtime[-1].patched(),
    random=lambda: random.Random(1),  # noqa: S311 -- it spreads retries, and keeps no secret
    execute_local_activity=_execute_local_activity,
    start_activity=_start_activity,
    wait_condition=_wait_condition,
    set_current_details=lambda _: None,
    upsert_search_attributes=lambda pairs: _runtime[-1].commands.append(("index", len(pairs))),
    info=lambda: SimpleNamespace(typed_search_attributes=()),
)


@contextmanager
def simulated_sdk() -> Generator[None, None, None]:
    """Let the real host use replicas instead of the SDK."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporal_host, "workflow", SDK)
        yield
