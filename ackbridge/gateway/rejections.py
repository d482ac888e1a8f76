"""Count and sample what the gateway rejects: anybody can send it, as often as he likes."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.stats.counters import Count, Counters

log = logging.getLogger(__name__)

NO_PROVIDER: Final = ""
"""The provider of requests that are for none, or that were never read."""

FORGED: Final = "forged"
"""The status of requests whose sender is not the provider."""

REFUSED_SOURCE: Final = "not allowed"
"""The status of requests from an address that is not the provider's."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines about the same provider, source and status."""

MAX_LINES: Final = 20
"""Log lines about rejections at once; then one a second."""

MAX_SOURCES: Final = 10_000
"""Sources that are remembered; the least recently seen go first."""


class TokenBucket:
    """`rate` a second, and `burst` at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class SourceLimiter:
    """A token bucket for each provider and source."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()

    def take(self, provider: str, source: str, rate: float, burst: float) -> bool:
        """Take one of `rate` a second; False if there is none left."""
        key, now = (provider, source), self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(rate, burst, now)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now)


@dataclass(slots=True)
class _Repeated:
    logged_at: float
    since: int = 0


class Rejections:
    """Counts rejected requests, and logs some of them."""

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._lines = TokenBucket(1, MAX_LINES, clock())
        self._seen: OrderedDict[tuple[str, str, str], _Repeated] = OrderedDict()
        self._unlogged = 0

    def note(self, provider: str, source: str, status: str, reason: str | None) -> None:
        """Count a rejection; log it if it is the first one of its kind for a minute.

        Args:
            provider: one that exists, or `NO_PROVIDER`: senders can make up others.
            status: as replied, or `busy`.
            reason: without anything of the request.
        """
        is_forged = status in (FORGED, REFUSED_SOURCE)
        what = Count.FORGED if is_forged else Count.TURNED_AWAY
        self._counters.count(provider, WHOLE_PROVIDER, what)
        now, key = self._clock(), (provider, source, status)
        seen = self._seen.get(key)
        if seen is not None and now - seen.logged_at < LOG_INTERVAL:
            seen.since += 1
        elif self._lines.take(now):
            self._log(key, reason, seen.since if seen else 0)
            self._remember(key, now)
        else:
            self._unlogged += 1

    def _log(self, key: tuple[str, str, str], reason: str | None, repeated: int) -> None:
        provider, source, status = key
        counts = f"; {repeated} more like the last one" if repeated else ""
        counts += f"; {self._unlogged} others not logged" if self._unlogged else ""
        self._unlogged = 0
        extra = {"provider": provider or None, "source": source, "status": status}
        what = "callback" if provider else "request"
        text = f"{what} {status}" + (f": {reason}" if reason else "")
        log.warning(
            "%s (provider %s, from %s)%s", text, provider or "-", source, counts, extra=extra
        )

    def _remember(self, key: tuple[str, str, str], now: float) -> None:
        self._seen[key] = _Repeated(now)
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_SOURCES:
            self._seen.popitem(last=False)
