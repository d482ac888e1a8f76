"""The cycles of a call: keys, what the provider may be working on, and how a round can end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome
    from ackbridge.contracts.continuation import CycleState, ParkedCause
    from ackbridge.contracts.messages import ProviderMessage
    from ackbridge.contracts.steps import Acknowledged, CycleEnd, FailedAttempt, Sent


@dataclass
class Cycle:
    """The work that a provider does under one idempotency key.

    Attributes:
        number: from 1; part of the key.
        reference: the provider's own id of the work, once it is known.
        was_sent: the provider has the request, or may have it.
        is_open: it was sent, and neither answered nor given up.
        is_spent: the key is used up: the provider would only replay what it has stored under it.
        has_given_up: we stopped waiting; what comes now is late.
        sent_at: None where it was sent several times, and a response may belong to any of them.
        timeouts: how long it had been awaited each time that its deadline passed.
    """

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    is_spent: bool = False
    has_given_up: bool = False
    sent_at: datetime | None = None
    timeouts: tuple[timedelta, ...] = ()

    def mark_sent(self, at: datetime | None = None) -> None:
        """The provider has the request, or may have it; a response is awaited (again)."""
        self.sent_at = None if self.was_sent else at
        self.was_sent = self.is_open = True
        self.has_given_up = False

    def elapsed(self, now: datetime) -> timedelta | None:
        """Since the sending; None where that is not known."""
        return now - self.sent_at if self.sent_at is not None else None

    def spend_key(self) -> None:
        """The provider has refused or failed; it would only repeat that under the same key."""
        self.is_spent = True

    def complete(self) -> None:
        """The response of this cycle is recorded."""
        self.is_open = False

    def give_up(self, *, is_definitive: bool) -> None:
        """Stop waiting.

        Args:
            is_definitive: the provider has said, or is told, that the work has failed. Otherwise
                it may have succeeded, and only the same key may be sent again.
        """
        self.is_open = False
        self.has_given_up = True
        self.is_spent = self.is_spent or is_definitive


class Cycles:
    """All cycles of one call, the current one last.

    Attributes:
        rounds: how often a response was awaited; one key may serve for several rounds.
    """

    def __init__(
        self, cycles: Iterable[CycleState], rounds: int, ended: Iterable[CycleEnd]
    ) -> None:
        self.rounds = rounds
        self._all = [Cycle(**one.model_dump()) for one in cycles]
        self._ended = list(ended)

    @property
    def current(self) -> Cycle:
        """The one whose key was used last."""
        return self._all[-1]

    @property
    def open(self) -> list[Cycle]:
        """Those that the provider may still be working on."""
        return [cycle for cycle in self._all if cycle.is_open]

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

    def time_out(self, cycle: Cycle, now: datetime) -> None:
        """The deadline of a cycle has passed."""
        after = cycle.elapsed(now)
        self._ended.append(CycleEnd(silent=True, after=after))
        if after is not None:
            cycle.timeouts = (*cycle.timeouts, after)

    def fail(self, cycle: Cycle, at: datetime) -> None:
        """The provider has reported a failure."""
        cycle.spend_key()
        self._ended.append(CycleEnd(silent=False, after=cycle.elapsed(at)))

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
        local: whether the first attempt may be a local activity. Such a send is forgotten with its
            workflow task, and only `prepare` can tell, if it is done again.
        first_attempt: the result of the first attempt, if `prepare` has made it.
    """

    local: bool = False
    first_attempt: Sent | FailedAttempt | None = None


@dataclass(frozen=True)
class Answered:
    """The response of a cycle is recorded.

    Attributes:
        acknowledgement: the result of the acknowledgement that was sent with the recording.
    """

    cycle: Cycle
    outcome: CallOutcome
    acknowledgement: Acknowledged | FailedAttempt | None = None


@dataclass(frozen=True)
class Failure:
    """A round ended without a response.

    Attributes:
        reason: for people.
        code: a short name for programs; parked calls are found by it.
        notice: the kind of the operation's notice that fits.
        is_retryable: another round may succeed right now.
        may_come_late: the provider never said that it has failed; its response may still come.
        is_held_back: a flag or the breaker forbids sending; `when_off` says what happens then.
    """

    reason: str
    code: str
    notice: str = "failed"
    is_retryable: bool = False
    may_come_late: bool = False
    is_held_back: bool = False

    def cause(self) -> ParkedCause:
        """For continue-as-new."""
        return ParkedCause(reason=self.reason, code=self.code, notice=self.notice)


@dataclass(frozen=True)
class CancelRequested:
    """An operator has cancelled the call."""


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


Decision = Answered | Failure | CancelRequested | ReprocessRequested
"""What ends waiting for a response."""

RoundResult = ReadyToSend | Decision | ParkingExpired
"""What decides the next step of a call."""
