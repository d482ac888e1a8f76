"""Statistics of one process: counters and timings by operation, gathered into buckets of time.

Recording takes microseconds, no lock and bounded memory; `StatsReporter` writes the buckets to the
ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self
from uuid import uuid4

from .quantile_sketch import QuantileSketch


class Count(StrEnum):
    """What is counted. The values are stored: members are only ever added."""

    # Sends, one for each attempt
    RECEIPTS = "receipts"  # the provider accepted the request
    REFUSED = "refused"  # it answered that it will not process the request
    THROTTLED = "throttled"  # it answered 408, 425 or 429
    UNANSWERED = "unanswered"  # no answer in time, no connection, or a 5xx
    # Responses, one for each cycle
    ANSWERS = "answers"  # that were recorded, late ones included
    FAILURES = "failures"  # that the provider reported
    SILENCES = "silences"  # deadlines that passed without either
    LATE = "late"  # responses whose silence had been counted before
    DUPLICATES = "duplicates"  # messages suppressed because their event had been seen
    # Status requests, acknowledgements (by whether they were accepted), and health requests
    STATUS_ANSWERED = "asked"
    STATUS_UNANSWERED = "asked_in_vain"
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNCLEAR = "unclear"
    # The ledger unavailable, a secret missing, a request that cannot be built
    OWN_ERRORS = "ours"


PROVIDER_ERRORS: Final = (
    Count.UNANSWERED,
    Count.THROTTLED,
    Count.FAILURES,
    Count.SILENCES,
    Count.STATUS_UNANSWERED,
    Count.UNACKNOWLEDGED,
    Count.UNHEALTHY,
)
"""What counts as an error of the provider. A refusal does not: it may be the request's fault."""


class Timing(StrEnum):
    """What is timed, in seconds. The values are stored."""

    RECEIPT = "receipt"  # from an attempt to its receipt
    # From the send to the provider's response or failure, late ones included; not recorded where
    # one of several sends may have been answered.
    ANSWER = "answer"
    OVERDUE = "overdue"  # the answers among them that came after their call's deadline
    # How long calls had waited when they timed out, but for those answered later.
    SILENCE = "silence"


@dataclass(slots=True)
class OperationStats:
    """Counts and timings of one operation; they can be merged."""

    counts: dict[Count, int] = field(default_factory=lambda: dict.fromkeys(Count, 0))
    times: dict[Timing, QuantileSketch] = field(
        default_factory=lambda: {name: QuantileSketch() for name in Timing}
    )

    def __getitem__(self, what: Count) -> int:
        return self.counts[what]

    def merge(self, other: OperationStats) -> None:
        for what, count in other.counts.items():
            self.counts[what] += count
        for name, sketch in other.times.items():
            self.times[name].merge(sketch)

    @property
    def sends(self) -> int:
        """Attempts to send; requests that could not be built are not among them."""
        return self.sum((Count.RECEIPTS, Count.REFUSED, Count.THROTTLED, Count.UNANSWERED))

    @property
    def errors(self) -> int:
        """Errors of the provider; our own are in `Count.OWN_ERRORS`."""
        return self.sum(PROVIDER_ERRORS)

    def sum(self, counts: Iterable[Count]) -> int:
        return sum(self.counts[what] for what in counts)

    @classmethod
    def merged(cls, parts: Iterable[OperationStats]) -> Self:
        whole = cls()
        for part in parts:
            whole.merge(part)
        return whole

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; zeros are left out."""
        times = {str(name): sketch.to_json() for name, sketch in self.times.items()}
        return {
            "counts": {str(what): count for what, count in self.counts.items() if count},
            "times": {name: bins for name, bins in times.items() if bins},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; counts and timings of a newer version are ignored."""
        stats = cls()
        for name, count in plain["counts"].items():
            if name in _COUNTS:
                stats.counts[Count(name)] = count
        for name, bins in plain["times"].items():
            if name in _TIMINGS:
                stats.times[Timing(name)] = QuantileSketch.from_json(bins)
        return stats


_COUNTS = frozenset(str(what) for what in Count)
_TIMINGS = frozenset(str(name) for name in Timing)


@dataclass(frozen=True)
class Resolution:
    """How finely statistics are stored: the time span of one bucket, and how long it is kept."""

    width: timedelta
    kept: timedelta

    def begin(self, now: datetime) -> datetime:
        """The start of the bucket that contains a time."""
        seconds = self.width.total_seconds()
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)


FINE: Final = Resolution(timedelta(seconds=10), timedelta(minutes=15))
"""For the breaker and for scorecards of the last minutes."""

COARSE: Final = Resolution(timedelta(minutes=5), timedelta(hours=25))
"""For learning deadlines over up to a day, with a thirtieth of the rows."""

RESOLUTIONS: Final = (FINE, COARSE)


def resolution_for(since: datetime, now: datetime) -> Resolution:
    """The finest resolution whose buckets go back that far."""
    return FINE if since >= now - FINE.kept + FINE.width else COARSE


@dataclass(frozen=True)
class StatsBucket:
    """The statistics that one worker has of an operation, from `begin` for `width`."""

    provider: str
    operation: str
    width: timedelta
    begin: datetime
    stats: OperationStats


class Counters:
    """The statistics of this process, for the thread of the event loop; `worker` is unique."""

    def __init__(self) -> None:
        self.worker = uuid4().hex
        self._pending: dict[tuple[str, str], OperationStats] = {}
        self._gathered: dict[tuple[str, str], OperationStats] = {}
        self._open: dict[tuple[str, str, timedelta], StatsBucket] = {}
        self._unreported: dict[tuple[str, str, timedelta, datetime], StatsBucket] = {}

    def count(self, provider: str, operation: str, what: Count, times: int = 1) -> None:
        self._pending_of(provider, operation).counts[what] += times

    def time(
        self, provider: str, operation: str, name: Timing, took: timedelta, weight: int = 1
    ) -> None:
        """Add a time; the weight -1 takes back one that was added before."""
        self._pending_of(provider, operation).times[name].add(took.total_seconds(), weight)

    def gather(self, now: datetime) -> list[StatsBucket]:
        """The buckets that have changed since they were reported, each as a whole.

        A later report of a bucket replaces the earlier one. Buckets that could not be reported for
        longer than they would be kept are dropped.
        """
        for (provider, operation), fresh in self._pending.items():
            for resolution in RESOLUTIONS:
                self._add(provider, operation, resolution, fresh, now)
            self._gathered.setdefault((provider, operation), OperationStats()).merge(fresh)
        self._pending.clear()
        self._drop_expired(now)
        return list(self._unreported.values())

    def mark_reported(self, buckets: Iterable[StatsBucket]) -> None:
        """Leave these out of `gather` until they change. Nothing may be counted in between."""
        for one in buckets:
            self._unreported.pop((one.provider, one.operation, one.width, one.begin), None)

    def totals(self) -> dict[tuple[str, str], OperationStats]:
        """By provider and operation, a copy of everything since the process started."""
        totals: dict[tuple[str, str], OperationStats] = {}
        for part in (self._gathered, self._pending):
            for key, stats in part.items():
                totals.setdefault(key, OperationStats()).merge(stats)
        return totals

    def _pending_of(self, provider: str, operation: str) -> OperationStats:
        key = (provider, operation)
        found = self._pending.get(key)
        if found is None:
            found = self._pending[key] = OperationStats()
        return found

    def _add(
        self,
        provider: str,
        operation: str,
        resolution: Resolution,
        fresh: OperationStats,
        now: datetime,
    ) -> None:
        begin, width = resolution.begin(now), resolution.width
        bucket = self._open.get((provider, operation, width))
        if bucket is None or bucket.begin != begin:
            bucket = StatsBucket(provider, operation, width, begin, OperationStats())
            self._open[provider, operation, width] = bucket
        bucket.stats.merge(fresh)
        self._unreported[provider, operation, width, begin] = bucket

    def _drop_expired(self, now: datetime) -> None:
        kept = {resolution.width: resolution.kept for resolution in RESOLUTIONS}
        for key, bucket in list(self._unreported.items()):
            if bucket.begin + kept[bucket.width] < now:
                del self._unreported[key]
        for slot, bucket in list(self._open.items()):
            if bucket.begin + 2 * bucket.width < now:
                del self._open[slot]
