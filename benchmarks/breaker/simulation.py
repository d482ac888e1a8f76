# ruff: noqa: ARG002 -- the signatures of `Breaker`
"""Calls to a provider that changes, under the real control, a plain counter breaker, or none."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    MonitorState,
    SendRate,
)
from ackbridge.contracts.control import ControlSnapshot, LearnedDeadline
from ackbridge.control.admission import HalfOpenLimiter
from ackbridge.control.breaker import REPORT_LOOKBACK, BreakerRules, evaluate
from ackbridge.control.deadlines import (
    DeadlineRules,
    can_extend,
    deadline_for,
    deadline_of_probe,
    extend,
    learn,
)
from ackbridge.stats.counters import FINE, OperationStats, Timing

from .scenarios import CEILING, HOUR, HOURS, USUAL, Scenario

POLICY = BreakerPolicy()
RULES = DeadlineRules(
    initial=timedelta(seconds=30),
    quantile=0.99,
    factor=1.5,
    min_samples=50,
    window=timedelta(hours=1),
    floor=timedelta(seconds=1),
    ceiling=timedelta(seconds=CEILING),
    sample=0.1,
)
"""What an integration file gets that says `learn: {}` and nothing else."""

START = datetime(2026, 1, 1, tzinfo=UTC)
CHECK_EVERY = 2
REPORT_EVERY = 3
LEARN_EVERY = 30
BUCKET = 60
"""Seconds: as in production, but for the width of the buckets that deadlines are learned from."""

RECEIPT_AFTER = 0.1
DRAINED_PER_SECOND = 20


@dataclass
class Call:
    """One call; times in seconds.

    Attributes:
        takes: the response time; infinite for none, None for a 503.
        failed, silent: what the breaker has counted of it.
    """

    operation: str
    at: float
    takes: float | None
    bucket: float
    failed: bool = False
    silent: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether it would be answered within the ceiling, if it were sent at once."""
        return self.takes is not None and self.takes <= CEILING


class Breaker(Protocol):
    """What decides about calls."""

    def admits(self, call: Call, now: float) -> bool: ...

    def rate(self) -> float | None:
        """Sends per second; None: any number."""

    def deadline(self, call: Call, now: float) -> float: ...

    def answered(self, call: Call) -> None: ...

    def failed(self, call: Call, sent_at: float) -> None: ...

    def responded(self, call: Call, took: float, *, after: float | None) -> None:
        """A response; after a silence, it had been awaited for so long before."""

    def silent(self, call: Call, sent_at: float, waited: float) -> None: ...

    def tick(self, now: float) -> None:
        """A second has passed."""

    def has_recovered(self, operation: str) -> bool:
        """Whether it has closed since the last time; then parked calls are sent again."""


@dataclass
class Result:
    """What has come of it.

    Attributes:
        kept_back: healthy calls that were not sent within a second of their arrival, in seconds of
            traffic.
        in_vain: requests that were not answered within the ceiling.
        gave_up: healthy calls that timed out.
    """

    scenario: Scenario
    calls: int = 0
    kept_back: float = 0.0
    in_vain: int = 0
    gave_up: int = 0

    @property
    def bound(self) -> float:
        """How long healthy calls may be kept back: twice the outage, and one open period."""
        return 2 * self.scenario.outage + POLICY.open_for.total_seconds()


def simulate(
    scenario: Scenario,
    breaker: Breaker,
    *,
    per_second: float = 1.0,
    seed: int = 4711,
) -> Result:
    """Let calls arrive; those that are not sent now are parked, and sent after a recovery."""
    random, result = Random(seed), Result(scenario)  # noqa: S311 -- a simulation
    events: list[tuple[float, int, Callable[[], None]]] = []
    order = itertools.count()
    parked: dict[str, list[Call]] = {}
    recovered: deque[Call] = deque()
    queue: deque[Call] = deque()
    credit = 0.0

    def later(at: float, event: Callable[[], None]) -> None:
        heapq.heappush(events, (at, next(order), event))

    def keep_back(call: Call) -> None:
        if call.is_healthy:
            result.kept_back += 1 / per_second

    def send(call: Call, now: float) -> None:
        if call.takes is None:
            result.in_vain += 1
            later(now + RECEIPT_AFTER, lambda: breaker.failed(call, now))
            park(call)
            return
        takes, deadline = call.takes, breaker.deadline(call, now)
        result.in_vain += takes > CEILING
        later(now + RECEIPT_AFTER, lambda: breaker.answered(call))
        if takes <= deadline:
            later(now + takes, lambda: breaker.responded(call, takes, after=None))
            return
        result.gave_up += call.is_healthy
        later(now + deadline, lambda: breaker.silent(call, now, deadline))
        if scenario.late and takes < math.inf:
            later(now + takes, lambda: breaker.responded(call, takes, after=deadline))
        else:
            later(now + deadline, lambda: park(call))

    def park(call: Call) -> None:
        parked.setdefault(call.operation, []).append(call)

    def drawn_again(call: Call, now: float) -> Call:
        call.takes = scenario.condition(call.operation, now).draw(random)
        return call

    next_at = random.expovariate(per_second)
    for second in range(int(HOURS * HOUR)):
        now = float(second)
        while events and events[0][0] <= now:
            heapq.heappop(events)[2]()
        breaker.tick(now)
        while next_at <= now:
            is_other = scenario.endpoint is not None and random.random() < 1 / 8
            name = "endpoint" if is_other else "order"
            takes = scenario.condition(name, now).draw(random)
            call = Call(name, now, takes, random.random())
            result.calls += 1
            next_at += random.expovariate(per_second)
            if breaker.admits(call, now):
                queue.append(call)
            else:
                keep_back(call)
                park(call)
        for name in parked:
            if breaker.has_recovered(name):
                recovered.extend(parked[name])
                parked[name] = []
        rate = breaker.rate()
        credit = math.inf if rate is None else min(credit + rate, max(1.0, rate))
        while queue and credit >= 1:
            call = queue.popleft()
            credit -= 1
            if now - call.at > 1:
                keep_back(call)
                drawn_again(call, now)
            send(call, now)
        for _ in range(min(len(recovered), DRAINED_PER_SECOND)):
            if credit < 1:
                break
            credit -= 1
            again = drawn_again(recovered.popleft(), now)
            if breaker.admits(again, now):
                send(again, now)
            else:
                park(again)
        if credit == math.inf:
            credit = 0.0
    return result


class NoBreaker:
    """Sends everything at once; deadlines are learned from all responses within them."""

    def __init__(self) -> None:
        self.learning = _Learning()
        self.known: dict[str, LearnedDeadline] = {}
        self.now = 0.0

    def admits(self, call: Call, now: float) -> bool:
        return True

    def rate(self) -> float | None:
        return None

    def deadline(self, call: Call, now: float) -> float:
        learned = self.known.get(call.operation)
        found = deadline_for(RULES, learned, RULES.initial, call.bucket)
        return found.deadline.total_seconds()

    def answered(self, call: Call) -> None:
        pass

    def failed(self, call: Call, sent_at: float) -> None:
        pass

    def responded(self, call: Call, took: float, *, after: float | None) -> None:
        self.learning.responded(call.operation, self.now, took, after)

    def silent(self, call: Call, sent_at: float, waited: float) -> None:
        self.learning.silent(call.operation, self.now, waited)

    def tick(self, now: float) -> None:
        self.now = now
        if now % LEARN_EVERY == 0 and self.may_learn():
            self.known |= self.learning.learn(self.known, now)

    def may_learn(self) -> bool:
        return True

    def has_recovered(self, operation: str) -> bool:
        return False


class CounterBreaker(NoBreaker):
    """A plain one: consecutive failures of any kind open it, one probe decides after the pause."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.opened_at: float | None = None
        self.is_probing = False
        self.was_open = False

    def admits(self, call: Call, now: float) -> bool:
        if self.opened_at is None:
            return True
        if self.is_probing or now - self.opened_at < POLICY.open_for.total_seconds():
            return False
        self.is_probing = True
        return True

    def responded(self, call: Call, took: float, *, after: float | None) -> None:
        super().responded(call, took, after=after)
        self.failures, self.opened_at, self.is_probing = 0, None, False

    def failed(self, call: Call, sent_at: float) -> None:
        self.failures += 1
        if self.is_probing or self.failures >= POLICY.consecutive:
            self.opened_at, self.is_probing = self.now, False

    def silent(self, call: Call, sent_at: float, waited: float) -> None:
        super().silent(call, sent_at, waited)
        self.failed(call, sent_at)

    def may_learn(self) -> bool:
        return self.opened_at is None

    def has_recovered(self, operation: str) -> bool:
        has_closed = self.was_open and self.opened_at is None
        self.was_open = self.opened_at is not None
        return has_closed


class RealBreaker:
    """The functions of production, with its intervals of reporting, checking and learning."""

    def __init__(self, deadlines: DeadlineRules = RULES) -> None:
        self.rules = BreakerRules(POLICY)
        self.learning = _Learning(deadlines)
        self._deadlines = deadlines
        self.now = 0.0
        self.history: list[tuple[float, str, str]] = []
        self._snapshot = ControlSnapshot(
            provider="acme",
            version=1,
            at=START,
            breaker=BreakerStatus.initial(START),
            rate=SendRate(),
        )
        self._monitor = MonitorState()
        self._limiter = HalfOpenLimiter(lambda: self.now)
        self._pending: dict[str, dict[str, int]] = {}
        self._reports: dict[str, dict[str, BreakerCounts]] = {}
        self._open: set[str] = set()

    def admits(self, call: Call, now: float) -> bool:
        return self._limiter.admits(self._snapshot, call.operation)

    def rate(self) -> float | None:
        return self._snapshot.rate.per_second if self._snapshot.rate else None

    def deadline(self, call: Call, now: float) -> float:
        learned = self._snapshot.deadlines.get(call.operation)
        found = deadline_for(self._deadlines, learned, self._deadlines.initial, call.bucket)
        if self._snapshot.breaker_of(call.operation).state is not BreakerState.CLOSED:
            found = deadline_of_probe(found, self._deadlines.ceiling, "not closed")
        return found.deadline.total_seconds()

    def answered(self, call: Call) -> None:
        self._count(call, "answered")

    def failed(self, call: Call, sent_at: float) -> None:
        if not call.failed and self._snapshot.judges(call.operation, _at(sent_at)):
            self._count(call, "failed")
        call.failed = True

    def responded(self, call: Call, took: float, *, after: float | None) -> None:
        self._count(call, "responded")
        self.learning.responded(call.operation, self.now, took, after)

    def silent(self, call: Call, sent_at: float, waited: float) -> None:
        if not call.silent and self._snapshot.judges(call.operation, _at(sent_at)):
            self._count(call, "silent")
        call.silent = True
        self.learning.silent(call.operation, self.now, waited)

    def tick(self, now: float) -> None:
        self.now = now
        if now % REPORT_EVERY == 0:
            self._report(now)
        if now % CHECK_EVERY == 0:
            self._check(now)
        if now % LEARN_EVERY == 0:
            known = self._snapshot.deadlines
            if learned := self.learning.learn(known, now):
                self._publish(deadlines={**known, **learned})

    def has_recovered(self, operation: str) -> bool:
        is_open = self._snapshot.breaker_of(operation).state is not BreakerState.CLOSED
        has_closed = operation in self._open and not is_open
        (self._open.add if is_open else self._open.discard)(operation)
        return has_closed

    def _count(self, call: Call, what: str) -> None:
        counts = self._pending.setdefault(call.operation, {})
        counts[what] = counts.get(what, 0) + 1

    def _report(self, now: float) -> None:
        oldest = FINE.begin(_at(now) - REPORT_LOOKBACK).isoformat()
        begin = FINE.begin(_at(now)).isoformat()
        for name, counts in self._pending.items():
            reports = self._reports.setdefault(name, {})
            reports[begin] = reports.get(begin, NO_COUNTS) + BreakerCounts(**counts)
        self._pending = {}
        for name, reports in self._reports.items():
            self._reports[name] = {at: one for at, one in reports.items() if at >= oldest}

    def _check(self, now: float) -> None:
        known, before, rules = self._snapshot.deadlines, self._snapshot, self._deadlines
        extendable = {name for name in self._reports if can_extend(rules, known.get(name))}
        found = evaluate(
            self.rules,
            before.breaker,
            before.breakers,
            self._monitor,
            self._reports,
            None,
            _at(now),
            extendable=extendable,
        )
        self._monitor = found.monitor
        extended = {
            name: extend(rules, known.get(name), _at(now), to_ceiling=to_ceiling)
            for name, to_ceiling in found.to_extend.items()
        }
        is_same = found.breaker is before.breaker and found.rate == before.rate
        if is_same and not found.breakers:
            return
        for name, one in (("", found.breaker), *found.breakers.items()):
            was = before.breakers.get(name) if name else before.breaker
            if one is not was:
                self.history.append((now, name, f"{one.state}: {one.reason}"))
        self._publish(
            breaker=found.breaker,
            breakers={**before.breakers, **found.breakers},
            rate=found.rate,
            deadlines={**known, **extended},
        )

    def _publish(self, **changes: object) -> None:
        self._snapshot = self._snapshot.model_copy(update=changes)


class _Learning:
    """The statistics that deadlines are learned from, after an hour of usual responses."""

    def __init__(self, rules: DeadlineRules = RULES) -> None:
        self._rules = rules
        self._buckets: dict[str, dict[int, OperationStats]] = {}
        random = Random(1)  # noqa: S311 -- a simulation
        for name in ("order", "endpoint"):
            for second in range(int(HOUR)):
                self._add(name, second - HOUR, Timing.ANSWER, USUAL.draw(random))

    def responded(self, operation: str, now: float, took: float, after: float | None) -> None:
        self._add(operation, now, Timing.ANSWER, took)
        if after is not None:
            self._add(operation, now, Timing.OVERDUE, took)
            self._add(operation, now, Timing.SILENCE, after, -1)

    def silent(self, operation: str, now: float, waited: float) -> None:
        self._add(operation, now, Timing.SILENCE, waited)

    def learn(self, known: dict[str, LearnedDeadline], now: float) -> dict[str, LearnedDeadline]:
        changed = {}
        for name, buckets in self._buckets.items():
            before = known.get(name)
            since = now - self._rules.window.total_seconds()
            if before is not None and before.since is not None:
                since = max(since, (before.since - START).total_seconds() + BUCKET)
            first, last = int(since // BUCKET), int(now // BUCKET)
            stats = OperationStats.merged(
                buckets[number] for number in range(first, last + 1) if number in buckets
            )
            learned = learn(self._rules, stats, before, _at(now))
            if learned is not None and learned is not before:
                changed[name] = learned
        return changed

    def _add(
        self, operation: str, now: float, what: Timing, seconds: float, weight: int = 1
    ) -> None:
        buckets = self._buckets.setdefault(operation, {})
        number = int(now // BUCKET)
        if number not in buckets:
            buckets[number] = OperationStats()
        buckets[number].times[what].add(seconds, weight)


def _at(now: float) -> datetime:
    return START + timedelta(seconds=now)
