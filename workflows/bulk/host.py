"""The host of many calls: what they do in one turn is done together.

A turn ends when no call can go on by itself. The steps that the calls have asked for by then are
one local activity, and their deadlines share one timer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.hosting.activity_errors import classify, from_attempt
from workflows.hosting.host import Condition, Result, Step
from workflows.hosting.temporal_host import ONCE, TemporalHost

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.bulk import BatchedResult, BatchedStep, BatchResult, StepBatch
    from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus
    from ackbridge.contracts.deliveries import Delivery
    from ackbridge.contracts.limits import MAX_RESULT_BYTES, MAX_SUMMARY_LENGTH
    from ackbridge.contracts.wire import Wire

MOVES_OUT_AFTER: Final = timedelta(seconds=10)
"""A call that awaits its response for longer leaves its host, which can end then."""

LOOKS: Final = tuple(timedelta(milliseconds=ms) for ms in (50, 100, 200, 400, 800, 1000))
"""When the result of a step that took longer than its batch is asked for again, each time; the last
one repeats."""


@dataclass(eq=False)
class QueuedStep:
    """A step that waits for the end of the turn, or for its result.

    Attributes:
        looks: how often its result was not there.
    """

    key: int
    step: Step[Any]
    argument: Wire
    ended: asyncio.Future[Any]
    looks: int = 0

    def as_wire(self) -> BatchedStep:
        return BatchedStep(
            key=self.key,
            name=self.step.name,
            argument=self.argument,
            timeout=self.step.timeout.total_seconds(),
        )


@dataclass(eq=False)
class Waiter:
    """A wait of one call, for a condition or a time."""

    condition: Condition
    ended: asyncio.Future[bool]

    def is_woken(self) -> bool:
        """Wake it, if its condition is true."""
        if self.ended.done() or not self.condition():
            return False
        self.ended.set_result(True)
        return True

    def time_out(self) -> None:
        if not self.ended.done():
            self.ended.set_result(self.condition())


TimerEntry = tuple[datetime, int, Callable[[], None], Condition]
"""A time, a number that no other has, what happens then, and whether that is still needed."""


class Turns:
    """The turns of one host: its steps and its timer. `run` and `run_timer` run beside the calls.

    A condition is evaluated only for calls that something has happened to. The engine would
    evaluate those of all calls, several times in each turn.

    What happens at a time is decided by the timer, and never by the clock: the clock of a workflow
    task that the engine has cut in two differs when it is replayed.

    Attributes:
        moves_out: whether calls that await their response have done so for long.
    """

    def __init__(self, show: Callable[[], None]) -> None:
        """Begin with no calls.

        Args:
            show: is called when none of the calls that something has happened to can go on.
        """
        self.moves_out = False
        self._show = show
        self._hosts: list[CallHost] = []
        self._touched: dict[CallHost, None] = {}
        self._steps: list[QueuedStep] = []
        self._pending: list[QueuedStep] = []
        self._keys = itertools.count(1)
        self._timers: list[TimerEntry] = []
        self._bytes, self._task = 0, 0
        self._performing: set[asyncio.Task[None]] = set()

    def add_host(self, host: CallHost) -> None:
        if not self._hosts:
            moves_at = workflow.info().start_time + MOVES_OUT_AFTER
            self.at(moves_at, self._move_out, lambda: True)
        self._hosts.append(host)
        self.touch(host)

    def _move_out(self) -> None:
        self.moves_out = True
        self._touched.update(dict.fromkeys(self._hosts))

    def touch(self, host: CallHost) -> None:
        """Something has happened to a call: its conditions may be true now."""
        self._touched[host] = None

    def add(self, step: Step[Any], argument: Wire) -> asyncio.Future[Any]:
        """Perform a step at the end of this turn."""
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._steps.append(QueuedStep(next(self._keys), step, argument, ended))
        return ended

    def at(self, at: datetime, callback: Callable[[], None], is_needed: Condition) -> None:
        """Do something at a time, unless it is not needed any more by then."""
        heapq.heappush(self._timers, (at, next(self._keys), callback, is_needed))

    async def run(self) -> None:
        """Perform the steps of each turn together; ends only with its task."""
        while True:
            await workflow.wait_condition(self._is_turn_over)
            if self._is_task_full():
                # The results of one workflow task go to the engine in one request of 4 MiB.
                await workflow.sleep(timedelta(milliseconds=1))
            steps = [*self._pending, *self._steps]
            self._pending, self._steps = [], []
            # Not awaited: calls whose steps are done go on while the others' are under way.
            task = asyncio.create_task(self._perform(steps))
            self._performing.add(task)
            task.add_done_callback(self._performing.discard)

    async def run_timer(self) -> None:
        """Keep one timer, for the earliest time; ends only with its task."""
        while True:
            await workflow.wait_condition(lambda: self._next_time() is not None)
            next_at = self._next_time()
            if next_at is None or not await self._sleep(next_at):
                continue
            while (due := self._next_time()) is not None and due <= next_at:
                heapq.heappop(self._timers)[2]()

    async def _sleep(self, until: datetime) -> bool:
        """Wait until a time; false if an earlier one has become the next."""

        def is_earlier() -> bool:
            next_at = self._next_time()
            return next_at is not None and next_at < until

        left = max(until - workflow.now(), timedelta(milliseconds=1))
        summary = "the earliest deadline of the calls"
        try:
            await workflow.wait_condition(is_earlier, timeout=left, timeout_summary=summary)
        except TimeoutError:
            return True
        return False

    def _next_time(self) -> datetime | None:
        while self._timers and not self._timers[0][3]():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _is_turn_over(self) -> bool:
        """Wake the calls that can go on; true when none can, and there are steps to perform."""
        touched, self._touched = self._touched, {}
        woken = [host for host in touched if host.wake()]
        # They have not run yet: their conditions are looked at again when they have.
        self._touched.update(dict.fromkeys(woken))
        if touched and not woken:
            self._show()
        return not woken and bool(self._steps)

    def _is_task_full(self) -> bool:
        length = workflow.info().get_current_history_length()
        if length != self._task:
            self._bytes, self._task = 0, length
        return self._bytes > MAX_RESULT_BYTES

    async def _perform(self, steps: list[QueuedStep]) -> None:
        timeout = max(step.step.timeout for step in steps)
        try:
            batch: BatchResult = await workflow.execute_local_activity(
                names.PERFORM_STEPS,
                StepBatch(steps=tuple(step.as_wire() for step in steps)),
                result_type=BatchResult,
                start_to_close_timeout=timeout,
                retry_policy=ONCE,
                summary=_summary(steps),
            )
        except FailureError as failure:
            for step in steps:
                step.ended.set_exception(classify(failure))
            return
        self._bytes += batch.size
        for step, result in zip(steps, batch.results, strict=True):
            self._settle(step, result)

    def _settle(self, step: QueuedStep, result: BatchedResult) -> None:
        if result.failure is not None:
            step.ended.set_exception(from_attempt(result.failure))
        elif not result.is_pending:
            try:
                step.ended.set_result(step.step.result.model_validate(result.value))
            except ValueError as error:
                step.ended.set_exception(error)
        else:
            delay = LOOKS[min(step.looks, len(LOOKS) - 1)]
            step.looks += 1
            # It is asked for earlier where another turn ends before.
            self._pending.append(step)
            self.at(workflow.now() + delay, self._look_again, lambda: step in self._pending)

    def _look_again(self) -> None:
        self._steps, self._pending = [*self._pending, *self._steps], []


def _summary(steps: Iterable[QueuedStep]) -> str:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.step.name] = counts.get(step.step.name, 0) + 1
    return ", ".join(f"{number} of {name}" for name, number in counts.items())


class CallHost(TemporalHost):
    """The host of one call among many.

    Attributes:
        stays: the call does not leave, because a workflow with its id is running.
        performing: the step that is performed for it through a queue of its provider.
    """

    def __init__(
        self,
        call_id: str,
        turns: Turns,
        released: Callable[[CallOutcome], None],
        index: Callable[[], None],
    ) -> None:
        """Host a call.

        Args:
            released: is told the outcome of a call that goes on with acknowledging.
            index: is called when it is known that our search attributes are registered.
        """
        super().__init__(lambda _: "")
        self._call_id = call_id
        self._turns = turns
        self._released = released
        self._index = index
        self._waiters: list[Waiter] = []
        self.stays = False
        self.performing: str | None = None
        self._activities = 0
        turns.add_host(self)

    def touch(self) -> None:
        """Something has happened to the call."""
        self._turns.touch(self)

    def wake(self) -> bool:
        """Wake what waits for a condition that is true now."""
        woken = [waiter for waiter in self._waiters if waiter.is_woken()]
        return bool(woken)

    def should_continue_as_new(self) -> bool:
        """A call that is parked or reconciled leaves at once, into a workflow of its own."""
        return not self.stays

    def should_move_out(self) -> bool:
        """Whether a call that awaits its response has done so for long."""
        return not self.stays and self._turns.moves_out

    async def wait(
        self,
        condition: Condition,
        until: datetime | None,
        summary: str = "",  # noqa: ARG002 -- the timer is that of all calls
    ) -> bool:
        """Wait for a condition; false if it is still false at `until`."""
        if condition():
            return True
        if until is not None and until <= workflow.now():
            return False
        waiter = Waiter(condition, asyncio.get_running_loop().create_future())
        if until is not None:

            def time_out() -> None:
                self.touch()
                waiter.time_out()

            self._turns.at(until, time_out, lambda: not waiter.ended.done())
        self._waiters.append(waiter)
        is_true = await waiter.ended
        self._waiters.remove(waiter)
        return is_true

    async def _execute_locally(self, step: Step[Result], argument: Wire) -> Result:
        try:
            return cast("Result", await self._turns.add(step, argument))
        finally:
            self.touch()

    async def _execute(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        attempts: int | None,
        interrupted: Condition | None,
    ) -> Result:
        self.performing = step.summary
        named = replace(step, summary=f"{step.summary}: {self._call_id}"[:MAX_SUMMARY_LENGTH])
        self.touch()
        try:
            return await super()._execute(provider, named, argument, attempts, interrupted)
        finally:
            self.performing = None
            self.touch()

    def _next_activity_id(self) -> str | None:
        """It says which call the activity is for, also in the list of those that are pending."""
        if not workflow.patched(names.HOSTED_ACTIVITY_IDS):
            return None
        self._activities += 1
        return f"{names.hosted_activity_prefix(self._call_id)}{self._activities}"

    async def deliver(self, delivery: Delivery) -> None:
        await super().deliver(delivery)
        self.touch()

    def show(self, status: CallStatus) -> None:
        """Release who waits for the outcome; the host shows its calls together."""
        if status.outcome is not None and status.acknowledgements_owed:
            self._released(status.outcome)

    def index_at_start(self, request: CallRequest) -> None:  # noqa: ARG002 -- the host is indexed, by all of its calls
        """Let the host set its search attributes, if nobody else has."""
        self._index()

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        """Nothing; a call that is parked is indexed in its own workflow."""

    def index_pending_acknowledgements(self, *, are_pending: bool) -> None:
        """Nothing, as above; the host is indexed when a call ends that owes one."""
