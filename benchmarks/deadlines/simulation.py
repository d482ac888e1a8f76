"""A day of calls to a provider, whose deadlines are learned as the real control learns them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from ackbridge.contracts.control import LearnedDeadline
from ackbridge.control.deadlines import DeadlineRules, deadline_for, learn
from ackbridge.stats.counters import Count, OperationStats, Timing

from .providers import HOUR, Provider, quantile

BUCKET = 300.0
"""Seconds; as wide as the ledger's rows that learning reads."""

LEARN_EVERY = 30.0
"""Seconds."""

RULES = DeadlineRules(
    initial=timedelta(seconds=30),
    quantile=0.99,
    factor=1.5,
    min_samples=50,
    window=timedelta(hours=1),
    floor=timedelta(seconds=1),
    ceiling=timedelta(minutes=10),
    sample=0.1,
)
"""What an integration file gets that says `learn: {}` and nothing else."""


@dataclass(frozen=True)
class Made:
    """One simulated call; times in seconds.

    Attributes:
        at: when it was sent.
        takes: its response time; infinite if there will be no response.
        deadline: how long it was awaited.
    """

    at: float
    takes: float
    deadline: float

    @property
    def is_false_alarm(self) -> bool:
        """Whether there would have been a response."""
        return self.deadline < self.takes < float("inf")


@dataclass
class Day:
    """What has come of it.

    Attributes:
        calls: in the order of sending.
        learned: when a deadline was published, and which.
        oracle: the deadline by the same rules of somebody who knows the distribution.
    """

    calls: list[Made] = field(default_factory=list)
    learned: list[tuple[float, LearnedDeadline]] = field(default_factory=list)
    oracle: Callable[[float], float] = lambda _: 0.0

    def between(self, start: float, end: float = float("inf")) -> list[Made]:
        """The calls of a time."""
        return [call for call in self.calls if start <= call.at < end]

    def deadline_at(self, now: float) -> float:
        """What was published last, in seconds; the initial value before."""
        before = [one for at, one in self.learned if at <= now]
        return (before[-1].deadline if before else RULES.initial).total_seconds()


def false_alarms(calls: list[Made]) -> float:
    """The share of calls that gave up though there would have been a response."""
    answered = [call for call in calls if call.takes < float("inf")]
    return sum(call.is_false_alarm for call in answered) / len(answered)


def simulate(
    provider: Provider,
    *,
    seed: int = 4711,
    hours: float = 4.0,
    per_second: float = 1.0,
    rules: DeadlineRules = RULES,
    late: bool = False,
) -> Day:
    """Make calls, and learn.

    Args:
        late: whether answers after the deadline are heard, as of a call that is parked.
    """
    random, day = Random(seed), Day()  # noqa: S311 -- a simulation
    known: dict[object, float] = {}

    def oracle(now: float) -> float:
        distribution = provider.at(now)
        if distribution not in known:
            known[distribution] = quantile(distribution, rules.quantile)
        wanted = known[distribution] * rules.factor
        return min(max(wanted, rules.floor.total_seconds()), rules.ceiling.total_seconds())

    day.oracle = oracle
    memory, learned, next_at = _Memory(rules), None, LEARN_EVERY
    now = random.expovariate(per_second)
    while now < hours * HOUR:
        while next_at <= now:
            fresh = learn(rules, memory.window(next_at), learned)
            if fresh is not None and fresh is not learned:
                learned = fresh
                day.learned.append((next_at, fresh))
            next_at += LEARN_EVERY
        waits = deadline_for(rules, learned, rules.initial, random.random()).deadline
        is_dropped = random.random() < provider.dropped(now)
        takes = float("inf") if is_dropped else provider.at(now).draw(random)
        call = Made(now, takes, waits.total_seconds())
        day.calls.append(call)
        memory.expect(call, late=late)
        now += random.expovariate(per_second)
    return day


class _Memory:
    """The ledger's rows: what is known at a moment, and no earlier."""

    def __init__(self, rules: DeadlineRules) -> None:
        self._window = rules.window.total_seconds()
        self._coming: list[tuple[float, int, Callable[[OperationStats], None]]] = []
        self._order = itertools.count()
        self._buckets: dict[int, OperationStats] = {}

    def expect(self, call: Made, *, late: bool) -> None:
        """Note what becomes of a call, when it does."""
        answer, wait = timedelta(seconds=min(call.takes, 1e9)), timedelta(seconds=call.deadline)

        def answered(observed: OperationStats) -> None:
            observed.counts[Count.ANSWERS] += 1
            observed.times[Timing.ANSWER].add(answer.total_seconds())

        def silent(observed: OperationStats) -> None:
            observed.counts[Count.SILENCES] += 1
            observed.times[Timing.SILENCE].add(wait.total_seconds())

        def overdue(observed: OperationStats) -> None:
            answered(observed)
            observed.counts[Count.LATE] += 1
            observed.times[Timing.OVERDUE].add(answer.total_seconds())
            observed.times[Timing.SILENCE].add(wait.total_seconds(), -1)

        if call.takes <= call.deadline:
            self._at(call.at + call.takes, answered)
            return
        self._at(call.at + call.deadline, silent)
        if late and call.is_false_alarm:
            self._at(call.at + call.takes, overdue)

    def window(self, now: float) -> OperationStats:
        """Everything observed within the window."""
        while self._coming and self._coming[0][0] <= now:
            at, _, note = heapq.heappop(self._coming)
            note(self._buckets.setdefault(int(at // BUCKET), OperationStats()))
        whole = OperationStats()
        for number, bucket in self._buckets.items():
            if (number + 1) * BUCKET > now - self._window:
                whole.merge(bucket)
        return whole

    def _at(self, moment: float, note: Callable[[OperationStats], None]) -> None:
        heapq.heappush(self._coming, (moment, next(self._order), note))
