"""The cycles of a call: which key is in use, and what the provider may still be working on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.continuation import CycleState
    from ackbridge.contracts.messages import ProviderMessage
    from ackbridge.contracts.steps import CycleEnd


@dataclass
class Cycle:
    """What is known about the work a provider does under one idempotency key.

    Attributes:
        number: from 1; part of the key.
        reference: the provider's own id of the work, once it is known.
        was_sent: the provider has the request, or may have it.
        is_open: it was sent, and neither answered nor given up.
        is_spent: the key is used up: the provider would only replay what it has stored under it.
        has_given_up: we stopped waiting; what comes now is late.
        sent_at: when, where no other sending under this key can be meant by what is answered.
        silences: for how long it was awaited in vain, each time it was.
    """

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    is_spent: bool = False
    has_given_up: bool = False
    sent_at: datetime | None = None
    silences: tuple[timedelta, ...] = ()

    def sent(self, at: datetime | None = None) -> None:
        """The provider has the request, or may have it; an answer is awaited (again).

        Args:
            at: when, if it is known.
        """
        self.sent_at = None if self.was_sent else at
        self.was_sent = self.is_open = True
        self.has_given_up = False

    def waited(self, now: datetime) -> timedelta | None:
        """For how long; None where it is not known since which sending."""
        return now - self.sent_at if self.sent_at is not None else None

    def spend(self) -> None:
        """The provider has refused or failed; it would only say so again under the same key."""
        self.is_spent = True

    def answered(self) -> None:
        """The response of this cycle is ours."""
        self.is_open = False

    def give_up(self, *, is_definitive: bool) -> None:
        """Stop waiting.

        Args:
            is_definitive: the provider has said, or was told, that the work has failed. Otherwise
                it may have succeeded, and only the same key may be sent again.
        """
        self.is_open = False
        self.has_given_up = True
        self.is_spent = self.is_spent or is_definitive


class Cycles:
    """All cycles of one call, the current one last.

    Attributes:
        rounds: how often a response was awaited; a key that is not spent serves for several.
    """

    def __init__(self, remembered: Iterable[CycleState] = (), rounds: int = 0) -> None:
        self.rounds = rounds
        self._ends: list[CycleEnd] = []
        self._all = [Cycle(**one.model_dump()) for one in remembered] or [Cycle(1)]

    @property
    def current(self) -> Cycle:
        """The one whose key was used last."""
        return self._all[-1]

    @property
    def open(self) -> list[Cycle]:
        """Those whose work the provider may still be doing."""
        return [cycle for cycle in self._all if cycle.is_open]

    @property
    def last_sent(self) -> Cycle:
        """The last one that the provider may know of, else the current one."""
        return next((cycle for cycle in reversed(self._all) if cycle.was_sent), self.current)

    def next(self) -> Cycle:
        """The cycle to send in: the current one while its key is good for something."""
        if self.current.is_spent:
            self._all.append(Cycle(self.current.number + 1))
        return self.current

    def spoken_of(self, message: ProviderMessage) -> Cycle:
        """The cycle a message is about, by the provider's reference; without one, the last sent."""
        if message.reference is None:
            return self.last_sent
        backwards = list(reversed(self._all))
        known = next((one for one in backwards if one.reference == message.reference), None)
        # A receipt that was lost would have told the reference.
        unnamed = next((one for one in backwards if one.was_sent and one.reference is None), None)
        return known or unnamed or self.last_sent

    def fell_silent(self, cycle: Cycle, now: datetime) -> None:
        """The deadline of a cycle has passed, and nothing was heard."""
        after = cycle.waited(now)
        self._ends.append(CycleEnd(silent=True, after=after))
        if after is not None:
            cycle.silences = (*cycle.silences, after)

    def failed(self, cycle: Cycle, at: datetime) -> None:
        """The provider has reported that the work of a cycle has failed."""
        self._ends.append(CycleEnd(silent=False, after=cycle.waited(at)))

    def take_ends(self) -> tuple[CycleEnd, ...]:
        """The ends without a response since the last time, for the statistics."""
        taken, self._ends = tuple(self._ends), []
        return taken

    def memory(self) -> tuple[CycleState, ...]:
        """For the run that continues this one."""
        return tuple(CycleState(**asdict(cycle)) for cycle in self._all)
