"""The engine of the model: durable inputs, timers, activities at least once, and replay.

A workflow task that holds local activities is open until they have ended, or until it is kept
alive; what happened in it is committed then. A worker that dies before loses it: its inputs stay,
together with all that has come meanwhile, and its local activities are done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    FailureError,
    TimeoutError,  # noqa: A004 -- the engine's
    TimeoutType,
)
from temporalio.workflow import ActivityCancellationType

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.continuation import CallContinuation
from ackbridge.contracts.plan import Prepared
from ackbridge.contracts.steps import FailureDetails, StepFailure
from ackbridge.contracts.wire import Wire
from workflows.hosting.host import ContinueAsNewRequested

from .runtime import (
    Command,
    Fired,
    Input,
    Options,
    ReplayError,
    Replica,
    Resolved,
    Signal,
    Ticket,
    failed_activity,
)

TASK_OPEN_FOR = timedelta(seconds=8)
"""How long a workflow task may hold local activities before it is committed to be kept alive."""


@dataclass(frozen=True)
class Failed:
    """An attempt that reported a failure."""

    kind: StepFailure
    reached: bool = False
    final: bool = False
    delay: timedelta | None = None

    def error(self, attempt: int) -> ApplicationError:
        """As the activity raises it."""
        trouble = FailureDetails(attempt=attempt, reached=self.reached).model_dump(mode="json")
        return ApplicationError(
            f"{self.kind} in attempt {attempt}",
            trouble,
            type=self.kind,
            non_retryable=self.final,
            next_retry_delay=self.delay,
        )


@dataclass(frozen=True)
class Silent:
    """An attempt that never reports back."""


End = Wire | Failed | Silent
"""How one attempt of an activity ends."""


@dataclass
class Attempt:
    """An attempt under way.

    Attributes:
        ends_at: when it reports, at the latest.
        finish: performs it, if that is not done yet, and returns how it ends.
    """

    ends_at: datetime
    finish: Callable[[], End]


@dataclass
class Activity:
    """What the engine knows of an activity that has not ended."""

    number: int
    options: Options
    scheduled_at: datetime
    queued_at: datetime
    attempt: int = 1
    running: Attempt | None = None
    not_before: datetime | None = None
    is_cancelled: bool = False
    last: FailureError | None = None

    @property
    def is_queued(self) -> bool:
        """Whether a worker may take it up."""
        return self.running is None and self.not_before is None

    @property
    def expires_at(self) -> datetime | None:
        within = self.options.within
        return None if within is None else self.scheduled_at + within

    def due(self) -> datetime | None:
        """When something happens to it by itself."""
        if self.running is not None:
            return self.running.ends_at
        if self.not_before is not None:
            return self.not_before
        waits = self.options.queue_within
        gives_up_at = None if waits is None else self.queued_at + waits
        ends = (self.expires_at, gives_up_at)
        return min((one for one in ends if one is not None), default=None)


@dataclass
class Task:
    """One workflow task: what came in, what its local activities said, and what came out."""

    at: datetime
    inputs: list[Input]
    suggests_continue_as_new: bool
    results: list[tuple[datetime, Resolved]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)


class Engine:
    """Runs one call, and the runs that continue it.

    Attributes:
        history: committed tasks of the run in hand.
        finished: the histories of the runs before it.
        activities, timers: open ones, by number.
        locals: attempts of local activities under way, by number.
        orphans: attempts of closed runs under way; nobody hears how they end.
        is_closed: whether the call is over.
        is_cancelled: whether any activity was cancelled.
        has_lost_kept_send: whether a send was forgotten that had outlived its first task.
        is_rough: whether a workflow task or an attempt was lost.
    """

    def __init__(
        self, request: CallRequest, now: datetime, *, is_batched: bool, is_hosted: bool
    ) -> None:
        self.request = request
        self._is_hosted = is_hosted
        self.now = now
        self.suggests_continue_as_new = False
        self.history: list[Task] = []
        self.finished: list[list[Task]] = []
        self.activities: dict[int, Activity] = {}
        self.timers: dict[int, datetime] = {}
        self.buffer: list[Input] = []
        self.task: Task | None = None
        self.locals: dict[int, Attempt] = {}
        self.orphans: list[Attempt] = []
        self.has_lost_kept_send = False
        self._kept: set[int] = set()
        self._continuation: CallContinuation | None = None
        self._is_batched = is_batched
        self._began_at = now
        self.replica = self._copy()
        self.is_closed = self.is_cancelled = self.is_rough = False
        self._open()

    @property
    def tasks(self) -> list[Task]:
        """Every workflow task of the call so far, the open one last."""
        committed = [task for history in (*self.finished, self.history) for task in history]
        return [*committed, self.task] if self.task else committed

    # What others do

    def signal(self, signal: Signal) -> None:
        """Durable from here; the call hears it with its next task."""
        self.buffer.append(signal)

    def pump(self) -> None:
        """Run workflow tasks for as long as there are any."""
        while not self.is_closed:
            if self.task is None:
                if not self.buffer:
                    return
                self._open()
            if self.replica.locals:
                return
            self._complete()

    def open_task(self) -> None:
        """Something wants a workflow task that changes nothing, such as an update."""
        if self.task is None and not self.is_closed:
            self._open()
        self.pump()

    def heartbeat_task(self) -> None:
        """Commit a task that was open for long; a new one takes what has come meanwhile."""
        task = self.task
        if task is not None and self.now - task.at >= TASK_OPEN_FOR and self.replica.locals:
            self._kept = {ticket.number for ticket in self.replica.locals}
            self._commit(task)
            self._open()
            self.pump()

    def crash(self) -> None:
        """The worker dies with everything it has not committed."""
        if self.is_closed:
            return
        if self.task is None:
            self._replay()
        else:
            self._lose()
        self.pump()

    def end_local(self, number: int, end: End) -> None:
        """A local activity has ended."""
        self.locals.pop(number, None)
        task, options = self.task, self.replica.tickets[number].options
        if task is None:
            raise RuntimeError("a local activity needs a workflow task")
        resolved = Resolved(number, self._local_end(options, end))
        task.results.append((self.now, resolved))
        self.replica.now = self.now
        self.replica.apply([resolved])
        self.pump()

    def begin(self, activity: Activity, attempt: Attempt) -> None:
        """A worker takes an activity up."""
        attempt.ends_at = min(attempt.ends_at, self.now + activity.options.timeout)
        activity.running = attempt

    def end(self, activity: Activity) -> None:
        """The attempt under way ends."""
        attempt, activity.running = activity.running, None
        if attempt is None:
            return
        end = attempt.finish()
        if self.activities.get(activity.number) is not activity:
            return  # Nobody waits for it any more.
        if isinstance(end, Wire):
            self._resolve(activity, end)
        else:
            self._fail(activity, end)
        self.pump()

    def next_due(self) -> datetime | None:
        """When something happens by itself."""
        dues = [one.due() for one in self.activities.values()]
        return min(
            (
                one
                for one in (
                    *dues,
                    *self.timers.values(),
                    *(one.ends_at for one in (*self.locals.values(), *self.orphans)),
                )
                if one is not None
            ),
            default=None,
        )

    def advance(self, until: datetime) -> None:
        """Let time pass, with everything that is due on the way."""
        self.heartbeat_task()
        while (due := self.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self._fire_due()
            self.pump()
            self.heartbeat_task()
        self.now = max(self.now, until)
        self.heartbeat_task()

    # Workflow tasks

    def _open(self) -> None:
        self.task = Task(self.now, self.buffer, self.suggests_continue_as_new)
        self.buffer = []
        self._feed(self.replica, self.task)

    def _complete(self) -> None:
        if self.task is None:
            return
        if self.replica.ended is not None and self.buffer:
            self._lose()  # The engine does not close a run that has not received everything.
            return
        self._commit(self.task)
        self.task = None
        if isinstance(self.replica.ended, ContinueAsNewRequested):
            self._continue_as_new(self.replica.ended)
        elif self.replica.ended is not None:
            self.is_closed = True
            self._orphan()

    def _commit(self, task: Task) -> None:
        task.commands = self.replica.take_commands()
        self.history.append(task)
        for command in task.commands:
            self._execute(command)

    def _lose(self) -> None:
        task = self.task
        if task is None:
            raise RuntimeError("there is no task to lose")
        self.is_rough = True
        done = {result.number for _, result in task.results}
        tickets = [self.replica.tickets[number] for number in done & self._kept]
        self.has_lost_kept_send |= any(_is_send(one) for one in tickets)
        self.locals.clear()
        self.task = Task(self.now, [*task.inputs, *self.buffer], self.suggests_continue_as_new)
        self.buffer = []
        self._replay()
        self._feed(self.replica, self.task)

    def _replay(self) -> None:
        self.replica.close()
        self.replica = self._copy()
        for task in self.history:
            self._feed(self.replica, task)
            for at, result in task.results:
                self.replica.now = at
                self.replica.apply([result])
            commands = self.replica.take_commands()
            if commands != task.commands:
                raise ReplayError(
                    f"a replay asks for {commands}, the run asked for {task.commands}"
                )

    def _continue_as_new(self, requested: ContinueAsNewRequested) -> None:
        continuation = self.replica.protocol.continuation(requested)
        self._continuation = CallContinuation.model_validate_json(continuation.model_dump_json())
        self.replica.close()
        self.finished.append(self.history)
        self.history, self.suggests_continue_as_new = [], False
        # What the closed run had begun does not concern the next one.
        self.buffer = [one for one in self.buffer if isinstance(one, Signal)]
        self._orphan()
        self._began_at = self.now
        self.replica = self._copy()
        self._open()

    def _orphan(self) -> None:
        """The run is closed; what is under way goes on."""
        self.orphans += [one.running for one in self.activities.values() if one.running]
        self.activities.clear()
        self.timers.clear()

    def _copy(self) -> Replica:
        return Replica(
            self.request,
            self._continuation,
            self._began_at,
            is_batched=self._is_batched,
            is_hosted=self._is_hosted and self._continuation is None,
        )

    @staticmethod
    def _feed(replica: Replica, task: Task) -> None:
        replica.now, replica.suggests_continue_as_new = task.at, task.suggests_continue_as_new
        replica.apply(task.inputs)

    # Activities and timers

    def _execute(self, command: Command) -> None:
        kind, *rest = command
        if kind == "timer":
            number, due = rest
            self.timers[number] = due
        elif kind == "stop":
            self.timers.pop(rest[0], None)
        elif kind == "activity" and not rest[1].local:
            number, options = rest
            if options.within is not None and options.within <= timedelta(0):
                raise AssertionError(f"{options.name} has no time at all: the engine refuses that")
            self.activities[number] = Activity(number, options, self.now, self.now)
        elif kind == "cancel" and rest[0] in self.activities:
            self._cancel(self.activities[rest[0]])

    def _cancel(self, activity: Activity) -> None:
        activity.is_cancelled = self.is_cancelled = True
        waits = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        if activity.running is None or activity.options.cancellation is not waits:
            self._resolve(activity, failed_activity(CancelledError("cancelled")))

    def _fire_due(self) -> None:
        """Everything that is due now."""
        for number in [one for one, due in self.timers.items() if due <= self.now]:
            del self.timers[number]
            self.buffer.append(Fired(number))
        for number, local in list(self.locals.items()):
            if local.ends_at <= self.now:
                self.end_local(number, local.finish())
        for orphan in [one for one in self.orphans if one.ends_at <= self.now]:
            self.orphans.remove(orphan)
            orphan.finish()
        for activity in list(self.activities.values()):
            if self.activities.get(activity.number) is not activity:
                continue  # What ended before it has cancelled it.
            if (due := activity.due()) is None or due > self.now:
                continue
            if activity.running is not None:
                self.end(activity)
            elif activity.not_before is not None:
                activity.not_before, activity.queued_at = None, self.now
            else:
                expired = activity.expires_at is not None and activity.expires_at <= self.now
                self._time_out(
                    activity,
                    TimeoutType.SCHEDULE_TO_CLOSE if expired else TimeoutType.SCHEDULE_TO_START,
                )

    def _fail(self, activity: Activity, end: Failed | Silent) -> None:
        policy = activity.options.policy
        delay = policy.initial_interval * 2 ** min(activity.attempt - 1, 20)
        if policy.maximum_interval is not None:
            delay = min(delay, policy.maximum_interval)
        if isinstance(end, Failed) and end.delay is not None:
            delay = end.delay
        again = self.now + delay
        is_spent = policy.maximum_attempts and activity.attempt >= policy.maximum_attempts
        is_late = activity.expires_at is not None and again >= activity.expires_at
        is_final = isinstance(end, Failed) and end.final
        if not (is_spent or is_late or is_final or activity.is_cancelled):
            activity.last = (
                end.error(activity.attempt)
                if isinstance(end, Failed)
                else _timeout(TimeoutType.START_TO_CLOSE)
            )
            activity.attempt += 1
            activity.not_before = again
        elif isinstance(end, Failed):
            self._resolve(activity, failed_activity(end.error(activity.attempt)))
        else:
            self._time_out(activity, TimeoutType.START_TO_CLOSE)

    def _time_out(self, activity: Activity, kind: TimeoutType) -> None:
        self._resolve(activity, failed_activity(_timeout(kind, activity.last)))

    def _resolve(self, activity: Activity, end: Wire | FailureError) -> None:
        del self.activities[activity.number]
        self.buffer.append(Resolved(activity.number, end))

    @staticmethod
    def _local_end(options: Options, end: End) -> Wire | FailureError:
        if isinstance(end, Failed):
            return end.error(1)
        return _timeout(TimeoutType.START_TO_CLOSE) if isinstance(end, Silent) else end


def _timeout(kind: TimeoutType, last: FailureError | None = None) -> TimeoutError:
    """A time out; what the attempt before has said is its cause."""
    timeout = TimeoutError("timeout", type=kind, last_heartbeat_details=[])
    timeout.__cause__ = last
    return timeout


def _is_send(ticket: Ticket) -> bool:
    along = ticket.end.sent if isinstance(ticket.end, Prepared) else None
    return along is not None or ticket.options.name == names.SEND
