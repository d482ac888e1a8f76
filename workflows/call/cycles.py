"""The cycles of a call: keys, what the provider may be working on, and how a round can end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeCode
    from ackbridge.contracts.continuation import (
        CountedOutcomes,
        CycleState,
        ParkedCause,
        WorkEnd,
    )
    from ackbridge.contracts.messages import ProviderMessage
    from ackbridge.contracts.steps import Acknowledged, CycleEnd, FailedAttempt, Kept, Sent


CONTRADICTION = "the provider reported a success of work that was called off"


@dataclass
class Cycle:
    """The work that a provider does under one idempotency key.

    Attributes:
        number: from 1; part of the key.
        reference: the provider's own id of the work, once it is known.
        was_sent: the provider has the request, or may have it.
        is_open: it was sent, and neither answered nor given up.
        work: how the work ended, as far as the provider has said so.
        has_given_up: we stopped waiting; what comes now is late.
        first_sent_at: when the key was used first.
        sent_at: None where it was sent several times, and a response may belong to any of them.
        timeouts: how long it had been awaited each time that its deadline passed.
        kept: what the provider's answers about it have for later requests (`receipt.keep`).
    """

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    work: WorkEnd | None = None
    has_given_up: bool = False
    first_sent_at: datetime | None = None
    sent_at: datetime | None = None
    timeouts: tuple[timedelta, ...] = ()
    kept: dict[str, Kept] = field(default_factory=dict)

    @property
    def is_spent(self) -> bool:
        """Whether the provider has ended the work: it would only repeat that under the same key."""
        return self.work in (WorkEnd.FAILED, WorkEnd.REFUSED, WorkEnd.CALLED_OFF)

    @property
    def is_uncertain(self) -> bool:
        """Whether the provider may have done the work, and has not said so."""
        return self.was_sent and self.work in (None, WorkEnd.CONTRADICTED)

    def mark_sent(self, now: datetime, at: datetime | None = None) -> None:
        """The provider has the request, or may have it; a response is awaited (again).

        Args:
            at: the time of the sending, if it is known.
        """
        self.first_sent_at = self.first_sent_at or at or now
        self.sent_at = None if self.was_sent else at
        self.was_sent = self.is_open = True
        self.has_given_up = False

    def presume_sent(self, now: datetime, since: datetime | None, reference: str | None) -> None:
        """Another workflow may have sent the request.

        Args:
            since: how old the key may be.
        """
        self.mark_sent(now)
        self.first_sent_at, self.reference = since or now, reference

    def elapsed(self, now: datetime) -> timedelta | None:
        """Since the sending; None where that is not known."""
        return now - self.sent_at if self.sent_at is not None else None

    def refuse(self) -> None:
        """The provider has refused the only attempt that can have arrived."""
        self.work = WorkEnd.REFUSED

    def complete(self) -> None:
        """The response of this cycle is recorded."""
        self.is_open = False
        self.work = WorkEnd.DONE

    def give_up(self) -> None:
        """Stop waiting. The work may have succeeded: only the same key may be sent again."""
        self.is_open = False
        self.has_given_up = True

    def report_success(self) -> None:
        """The provider says that the work is done; after it was called off, that contradicts."""
        self.was_sent = True
        is_contradiction = self.work in (WorkEnd.CALLED_OFF, WorkEnd.CONTRADICTED)
        self.work = WorkEnd.CONTRADICTED if is_contradiction else WorkEnd.DONE

    def report_failure(self) -> None:
        """The provider says that the work has failed."""
        if self.work in (None, WorkEnd.CONTRADICTED):
            self.work = WorkEnd.FAILED

    def call_off(self) -> None:
        """The provider has accepted a failed acknowledgement, which undoes the work."""
        is_done = self.work in (WorkEnd.DONE, WorkEnd.CONTRADICTED)
        self.work = WorkEnd.CONTRADICTED if is_done else WorkEnd.CALLED_OFF


class Cycles:
    """All cycles of one call, the current one last.

    Attributes:
        rounds: how often a response was awaited; one key may serve for several rounds.
        counted: what the breaker has counted of this call.
    """

    def __init__(
        self,
        cycles: Iterable[CycleState],
        rounds: int,
        ended: Iterable[CycleEnd],
        counted: CountedOutcomes,
    ) -> None:
        self.rounds = rounds
        self.counted = counted
        self._all = [Cycle(**one.model_dump()) for one in cycles]
        self._ended = list(ended)
        self._is_silence_counted = False

    @property
    def current(self) -> Cycle:
        """The one whose key was used last."""
        return self._all[-1]

    @property
    def open(self) -> list[Cycle]:
        """Those that the provider may still be working on."""
        return [cycle for cycle in self._all if cycle.is_open]

    @property
    def uncertain(self) -> list[Cycle]:
        """Those whose work the provider may have done without saying so."""
        return [cycle for cycle in self._all if cycle.is_uncertain]

    @property
    def is_contradicted(self) -> bool:
        """Whether the provider called work off, and then reported its success."""
        return any(cycle.work is WorkEnd.CONTRADICTED for cycle in self._all)

    @property
    def references(self) -> tuple[str, ...]:
        """The provider's references of all cycles."""
        return tuple(cycle.reference for cycle in self._all if cycle.reference is not None)

    @property
    def was_sent(self) -> bool:
        """Whether the provider may have any request of this call."""
        return any(cycle.was_sent for cycle in self._all)

    @property
    def effect(self) -> Effect:
        """What is known about the provider's side."""
        if any(cycle.work is WorkEnd.DONE for cycle in self._all):
            return Effect.DONE
        return Effect.UNKNOWN if self.uncertain else Effect.NONE

    def numbered(self, number: int) -> Cycle:
        """The cycle of this number."""
        return next(cycle for cycle in self._all if cycle.number == number)

    @property
    def last_sent(self) -> Cycle:
        """The last one that the provider may know of, else the current one."""
        return next((cycle for cycle in reversed(self._all) if cycle.was_sent), self.current)

    def next_to_send(self) -> Cycle:
        """The current cycle until its key is spent, then a new one."""
        if self.current.is_spent:
            self._all.append(Cycle(self.current.number + 1))
        return self.current

    def cycle_for(self, message: ProviderMessage) -> Cycle:
        """The cycle a message is about: that of its reference; without one, the last sent."""
        if message.reference is None:
            return self.last_sent
        newest_first = list(reversed(self._all))
        named = (one for one in newest_first if one.reference == message.reference)
        # Its receipt, with the reference, may be lost.
        unnamed = (one for one in newest_first if one.was_sent and one.reference is None)
        return next(named, None) or next(unnamed, None) or self.last_sent

    def silence(self, cycle: Cycle, sent_at: datetime | None, now: datetime) -> CycleEnd:
        """That the deadline of a cycle has passed, for the step that looks for its answer."""
        return CycleEnd(
            silent=True, after=cycle.elapsed(now), sent_at=sent_at, again=self.counted.silent
        )

    def silence_counted(self, cycle: Cycle, end: CycleEnd) -> None:
        """That step has counted it."""
        self._is_silence_counted = True
        self._add_silence(cycle, end)

    def time_out(self, cycle: Cycle, sent_at: datetime | None, now: datetime) -> None:
        """The deadline of a cycle has passed, and there is no answer."""
        if not self._is_silence_counted:
            end = self.silence(cycle, sent_at, now)
            self._ended.append(end)
            self._add_silence(cycle, end)
        self._is_silence_counted = False

    def _add_silence(self, cycle: Cycle, end: CycleEnd) -> None:
        self.count(silent=True)
        if end.after is not None:
            cycle.timeouts = (*cycle.timeouts, end.after)

    def fail(
        self, cycle: Cycle, at: datetime, sent_at: datetime | None, due: datetime | None
    ) -> None:
        """The provider has reported a failure; `due`: as in `CycleEnd`."""
        cycle.report_failure()
        end = CycleEnd(
            silent=False,
            after=cycle.elapsed(at),
            sent_at=sent_at,
            again=self.counted.responded,
            due=due,
        )
        self._ended.append(end)
        self.count(responded=True)

    def count(self, **outcomes: bool) -> None:
        """Note what the breaker has counted of this call."""
        self.counted = self.counted.model_copy(update=outcomes)

    def take_ended(self) -> tuple[CycleEnd, ...]:
        """The ends without a response since the last time, for the statistics."""
        taken, self._ended = tuple(self._ended), []
        return taken

    def states(self) -> tuple[CycleState, ...]:
        """For continue-as-new."""
        return tuple(CycleState(**asdict(cycle)) for cycle in self._all)

    @property
    def ended(self) -> tuple[CycleEnd, ...]:
        """The ends that nobody has taken yet."""
        return tuple(self._ended)


@dataclass(frozen=True)
class ReadyToSend:
    """Nothing is decided, and the request is to be sent (again).

    Attributes:
        first_attempt: the result of the first attempt, if `prepare` has made it.
    """

    first_attempt: Sent | FailedAttempt | None = None


@dataclass(frozen=True)
class Answered:
    """The response of a cycle is recorded.

    Attributes:
        acknowledgement: the result of the acknowledgement that was sent with the recording.
        needs_queue: whether it is to be sent through the provider's queue.
    """

    cycle: Cycle
    outcome: CallOutcome
    acknowledgement: Acknowledged | FailedAttempt | None = None
    needs_queue: bool = False


@dataclass(frozen=True)
class Failure:
    """A round ended without a response.

    Attributes:
        reason: for people.
        code: for programs; parked calls are found by it.
        provider_code: what the provider calls it.
        is_retryable: another round may succeed.
        retry_at: not before this time; None for right now.
        may_come_late: the provider never said that it has failed; its response may still come.
        is_held_back: a flag or the breaker forbids sending; `when_off` says what happens then.
        is_interrupted: an operator, or a message, has interrupted the sending.
    """

    reason: str
    code: OutcomeCode
    provider_code: str | None = None
    is_retryable: bool = False
    retry_at: datetime | None = None
    may_come_late: bool = False
    is_held_back: bool = False
    is_interrupted: bool = False

    def cause(self) -> ParkedCause:
        """For continue-as-new."""
        return ParkedCause(reason=self.reason, code=self.code, provider_code=self.provider_code)


@dataclass(frozen=True)
class CancelRequested:
    """An operator has cancelled the call."""


@dataclass(frozen=True)
class ResolvedAsNone:
    """An operator states that nothing happened at the provider."""


@dataclass(frozen=True)
class ReprocessRequested:
    """A parked call is to be sent again."""


@dataclass(frozen=True)
class ParkingExpired:
    """A parked call has waited as long as it may."""

    failure: Failure


@dataclass(frozen=True)
class TimedOut:
    """Nothing was decided in time."""


@dataclass(frozen=True)
class Woken:
    """A parked call has something to do besides waiting."""


Decision = Answered | Failure | CancelRequested | ReprocessRequested | ResolvedAsNone
"""What ends waiting for a response."""

RoundResult = ReadyToSend | Decision | ParkingExpired
"""What decides the next step of a call."""
