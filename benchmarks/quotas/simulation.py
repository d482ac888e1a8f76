"""Simulate sends to a provider with a hidden quota, with the real control and simulated time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ackbridge.contracts.quotas import QuotaReport, QuotaStatus, SecondCounts
from ackbridge.control.quotas import WINDOW, adapt, effective_rate

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)

TICK = 0.02
CHECK_EVERY = 2.0
REPORT_WITHIN = 1.0
APPLIED_AFTER = 0.5
"""Seconds: `observe` checks, workers report what was rejected, the engine applies a new rate."""

LONGEST_BACKOFF = 30.0
"""Seconds until a rejected request is sent again."""


class Quota(Protocol):
    """What a provider enforces: `per_second` in the long run."""

    @property
    def per_second(self) -> float: ...

    def accepts(self, now: float) -> bool: ...


@dataclass
class TokenBucket:
    per_second: float
    burst: float
    _tokens: float = -1.0
    _at: float = 0.0

    def accepts(self, now: float) -> bool:
        tokens = self.burst if self._tokens < 0 else self._tokens
        self._tokens = min(self.burst, tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class FixedWindow:
    requests: int
    seconds: float
    _window: int = -1
    _used: int = 0

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def accepts(self, now: float) -> bool:
        window = int(now / self.seconds)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        return self._used <= self.requests


@dataclass
class SlidingWindow:
    requests: int
    seconds: float
    _accepted: deque[float] = field(default_factory=deque)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def accepts(self, now: float) -> bool:
        while self._accepted and self._accepted[0] <= now - self.seconds:
            self._accepted.popleft()
        if len(self._accepted) >= self.requests:
            return False
        self._accepted.append(now)
        return True


@dataclass
class Result:
    """What the provider was sent after the first quarter of the time, and the rates over time.

    Attributes:
        used: the share of the quota that was used.
    """

    accepted: int = 0
    rejected: int = 0
    used: float = 0.0
    rates: list[tuple[float, float | None]] = field(default_factory=list)

    @property
    def waste(self) -> float:
        return self.rejected / max(1, self.accepted + self.rejected)


@dataclass
class _World:
    """Calls that wait, the rate of their queue, and what workers know of the answers."""

    quota: Quota
    chance: random.Random
    latency: float
    is_adaptive: bool = True
    waiting: float = 0.0
    tokens: float = 1.0
    rate: float | None = None
    status: QuotaStatus | None = None
    answers: list[tuple[float, float, bool]] = field(default_factory=list)
    reports: list[tuple[float, int, bool]] = field(default_factory=list)
    retries: list[float] = field(default_factory=list)
    changes: deque[tuple[float, float | None]] = field(default_factory=deque)
    seconds: dict[int, list[int]] = field(default_factory=dict)

    def send(self, now: float) -> Iterator[bool]:
        """Send what the rate allows; whether each request is accepted."""
        while self.retries and self.retries[0] <= now:
            heapq.heappop(self.retries)
            self.waiting += 1
        while self.changes and self.changes[0][0] <= now:
            self.rate = self.changes.popleft()[1]
        allowed = int(self.waiting)
        if self.rate is not None:
            self.tokens = min(max(1.0, self.rate), self.tokens + self.rate * TICK)
            allowed = min(allowed, int(self.tokens))
            self.tokens -= allowed
        self.waiting -= allowed
        for _ in range(allowed):
            is_accepted = self.quota.accepts(now)
            answered = now + self.latency * self.chance.uniform(0.5, 1.5)
            heapq.heappush(self.answers, (answered, now, is_accepted))
            yield is_accepted

    def read(self, now: float) -> None:
        """Read the answers, and report them."""
        while self.answers and self.answers[0][0] <= now:
            _, sent_at, is_accepted = heapq.heappop(self.answers)
            reported = now + self.chance.uniform(0, REPORT_WITHIN)
            heapq.heappush(self.reports, (reported, int(sent_at), is_accepted))
            if not is_accepted:
                heapq.heappush(self.retries, now + self.chance.uniform(0.5, LONGEST_BACKOFF))
        while self.reports and self.reports[0][0] <= now:
            _, second, is_accepted = heapq.heappop(self.reports)
            self.seconds.setdefault(second, [0, 0])[not is_accepted] += 1

    def check(self, now: float) -> None:
        """Decide the rate, as `observe` does."""
        if not self.is_adaptive:
            return
        for second in [one for one in self.seconds if one < now - WINDOW.total_seconds()]:
            del self.seconds[second]
        begin = int(EPOCH.timestamp())
        seconds = tuple(
            SecondCounts(at=begin + second, accepted=counts[0], throttled=counts[1])
            for second, counts in sorted(self.seconds.items())
        )
        at = EPOCH + timedelta(seconds=now)
        self.status = adapt(self.status, [QuotaReport(provider="p", seconds=seconds)], at)
        rate = effective_rate(self.status, None, at)
        last = self.changes[-1][1] if self.changes else self.rate
        if rate != last:
            self.changes.append((now + APPLIED_AFTER, rate))


def simulate(
    quota: Quota,
    demand: float,
    seconds: float = 1200,
    *,
    latency: float = 0.1,
    seed: int = 1,
    is_adaptive: bool = True,
) -> Result:
    """Send calls that arrive at `demand` per second, at random, for some time.

    Args:
        latency: the mean, in seconds.
        is_adaptive: whether the rate adapts; otherwise each rejected call backs off by itself.
    """
    chance = random.Random(seed)  # noqa: S311 -- a simulation that can be repeated
    world = _World(quota, chance, latency, is_adaptive)
    result, check_at = Result(), 0.0
    for tick in range(int(seconds / TICK)):
        now = tick * TICK
        world.waiting += demand * TICK * chance.uniform(0, 2)
        for is_accepted in world.send(now):
            if now >= seconds / 4:
                result.accepted += is_accepted
                result.rejected += not is_accepted
        world.read(now)
        if now >= check_at:
            check_at = now + CHECK_EVERY
            world.check(now)
            result.rates.append((now, world.rate))
    result.used = result.accepted / (quota.per_second * seconds * 3 / 4)
    return result
