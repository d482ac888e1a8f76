"""Statistics of one process: counters and timings by operation, gathered into buckets of time.

Recording takes microseconds, no lock and bounded memory; `StatsReporter` writes the buckets to the
ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self
from uuid import uuid4

from ackbridge.contracts.quotas import QuotaReport, QuotaStatement, SecondCounts

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
    IGNORED = "ignored"  # events that the provider's file ignores
    # Events of the provider's own list that catching up did not keep
    LISTED_UNREADABLE = "listed_unreadable"
    LISTED_UNAWAITED = "listed_unawaited"  # no call waits for them, and no rule forwards them
    # Callbacks that were rejected before anything of them was kept
    FORGED = "forged"  # the signature, the credentials or the source are wrong
    TURNED_AWAY = "turned_away"  # too large, too slow, too many, or for nobody
    # Status requests, acknowledgements (by whether they were accepted), and health requests
    STATUS_ANSWERED = "asked"
    STATUS_UNANSWERED = "asked_in_vain"
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNCLEAR = "unclear"
    # For the breaker: each at most once per call, whatever its number of attempts and cycles; after
    # a call was parked, its successes count again
    CALLS_ANSWERED = "calls_answered"  # the provider accepted or refused the request
    CALLS_FAILED = "calls_failed"  # an attempt was not answered, or with a 5xx
    CALLS_RESPONDED = "calls_responded"  # a response was recorded, or a failure reported
    CALLS_SILENT = "calls_silent"  # a deadline passed without either
    CALLS_HEARD = "calls_heard"  # CALLS_RESPONDED once more, when the call's deadline is over
    # Those of CALLS_FAILED and CALLS_SILENT that were sent before a call that was answered
    CALLS_FAILED_OVERTAKEN = "calls_failed_overtaken"
    CALLS_SILENT_OVERTAKEN = "calls_silent_overtaken"
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


class SendingOrder:
    """Which calls were sent before others that were answered, as far as this process knows."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, Count], datetime] = {}

    def answered(self, provider: str, operation: str, what: Count, sent_at: datetime) -> None:
        """A call that was sent at this time was answered."""
        key = (provider, operation, what)
        self._answered[key] = max(sent_at, self._answered.get(key, sent_at))

    def is_overtaken(self, provider: str, operation: str, what: Count, sent_at: datetime) -> bool:
        """Whether a call that was sent later was answered; `what` is that success."""
        last = self._answered.get((provider, operation, what))
        return last is not None and sent_at < last


class Counters:
    """The statistics of this process, for the thread of the event loop; `worker` is unique."""

    def __init__(self) -> None:
        self.worker = uuid4().hex
        self.quotas = QuotaMeter()
        self.order = SendingOrder()
        self._later: dict[tuple[str, str, Count], dict[int, int]] = {}
        self._pending: dict[tuple[str, str], OperationStats] = {}
        self._gathered: dict[tuple[str, str], OperationStats] = {}
        self._open: dict[tuple[str, str, timedelta], StatsBucket] = {}
        self._unreported: dict[tuple[str, str, timedelta, datetime], StatsBucket] = {}

    def count(self, provider: str, operation: str, what: Count, times: int = 1) -> None:
        self._pending_of(provider, operation).counts[what] += times

    def count_at(self, provider: str, operation: str, what: Count, at: datetime) -> None:
        """Count at a time to come; what this process has not counted by its end is lost."""
        of_kind = self._later.setdefault((provider, operation, what), {})
        second = int(at.timestamp())
        of_kind[second] = of_kind.get(second, 0) + 1

    def time(
        self, provider: str, operation: str, name: Timing, took: timedelta, weight: int = 1
    ) -> None:
        """Add a time; the weight -1 takes back one that was added before."""
        self._pending_of(provider, operation).times[name].add(took.total_seconds(), weight)

    def gather(self, now: datetime) -> list[StatsBucket]:
        """The buckets that have changed since they were reported, each as a whole.

        A later report of a bucket replaces the earlier one. Buckets that could not be reported for
        longer than they would be kept are dropped. What has no provider is in `totals` only.
        """
        self._count_due(now)
        for (provider, operation), fresh in self._pending.items():
            for resolution in RESOLUTIONS if provider else ():
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

    def _count_due(self, now: datetime) -> None:
        for (provider, operation, what), of_kind in self._later.items():
            for second in [one for one in of_kind if one <= now.timestamp()]:
                self.count(provider, operation, what, of_kind.pop(second))

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


QUOTA_WINDOW: Final = 60
"""Seconds of requests that are remembered for each quota."""

QUOTA_REPORTED_FOR: Final = timedelta(minutes=15)
"""Quotas are reported for this long after a request was rejected, or a header was read."""

MAX_PAUSE: Final = timedelta(minutes=1)
"""Of everybody, because of the Retry-After of one request."""

PAUSE_SHARE: Final = 0.1
"""The share of the last ten seconds' requests that are rejected, from which on all pause."""

_RECENT: Final = timedelta(seconds=10)


@dataclass(slots=True)
class _Quota:
    """What this process knows of one quota.

    Attributes:
        seconds: accepted and throttled requests, by the second in which they were sent.
        throttled_at: when a request was rejected last.
        noted_at: when others had to know of it last.
    """

    seconds: dict[int, list[int]] = field(default_factory=dict)
    throttled_at: datetime | None = None
    noted_at: datetime | None = None
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    stated: QuotaStatement | None = None
    has_changed: bool = False

    def pause(self, now: datetime, length: timedelta) -> None:
        """Let nobody send for so long, or until a later request is accepted."""
        self.paused_at = self.paused_at or now
        self.paused_until = max(self.paused_until or now, now + min(length, MAX_PAUSE))

    def throttled_share(self, now: datetime) -> float:
        """Of the requests of the last seconds."""
        since = int((now - _RECENT).timestamp())
        recent = [counts for second, counts in self.seconds.items() if second >= since]
        return sum(counts[1] for counts in recent) / max(1, sum(map(sum, recent)))

    def is_of_interest(self, now: datetime) -> bool:
        return self.noted_at is not None and now - self.noted_at < QUOTA_REPORTED_FOR

    def report(self, provider: str, tenant: str) -> QuotaReport:
        return QuotaReport(
            provider=provider,
            tenant=tenant,
            seconds=tuple(
                SecondCounts(at=second, accepted=counts[0], throttled=counts[1])
                for second, counts in sorted(self.seconds.items())
            ),
            paused_until=self.paused_until,
            stated=self.stated,
        )


class QuotaMeter:
    """Which requests providers accept and which they answer 429, by provider and tenant.

    Nothing is reported of providers that reject nothing and state no quota.

    Attributes:
        is_urgent: a request was rejected; others should know soon.
    """

    def __init__(self) -> None:
        self.is_urgent = asyncio.Event()
        self._quotas: dict[tuple[str, str], _Quota] = {}

    def __len__(self) -> int:
        """Quotas that are remembered."""
        return len(self._quotas)

    def count(
        self,
        key: tuple[str, str],
        sent_at: datetime,
        now: datetime,
        *,
        throttled: bool,
        pause: timedelta | None = None,
        stated: QuotaStatement | None = None,
        is_limited: bool = False,
    ) -> None:
        """Count one answered request.

        Args:
            key: the provider and the tenant whose quota it is.
            pause: the delay that a 429 asks for, where it concerns all requests.
            is_limited: whether the provider's control limits the quota.
        """
        quota = self._quotas.get(key)
        if quota is None:
            quota = self._quotas[key] = _Quota()
        second = int(sent_at.timestamp())
        counts = quota.seconds.get(second)
        if counts is None:
            counts = quota.seconds[second] = [0, 0]
            _forget_before(quota.seconds, second - QUOTA_WINDOW)
        counts[throttled] += 1
        quota.has_changed = True
        if throttled or is_limited or stated is not None:
            quota.noted_at = now
        if stated is not None:
            quota.stated = stated
            if stated.remaining < 1 and stated.resets_at > now:
                quota.pause(now, stated.resets_at - now)
        if throttled:
            quota.throttled_at = now
            self.is_urgent.set()
            if pause is not None and quota.throttled_share(now) >= PAUSE_SHARE:
                quota.pause(now, pause)
        elif quota.paused_at is not None and sent_at > quota.paused_at:
            # Others are accepted: the pause was about one request.
            quota.paused_at = quota.paused_until = None

    def paused_until(self, key: tuple[str, str], now: datetime) -> datetime | None:
        """When the next request may be sent; None: now."""
        quota = self._quotas.get(key)
        until = quota.paused_until if quota else None
        return until if until is not None and until > now else None

    def is_slowed(self, key: tuple[str, str], now: datetime) -> bool:
        """Whether requests have to wait, or were rejected a moment ago."""
        quota = self._quotas.get(key)
        last = quota.throttled_at if quota else None
        was_rejected = last is not None and now - last < _RECENT
        return was_rejected or self.paused_until(key, now) is not None

    def take_reports(self, now: datetime) -> list[QuotaReport]:
        """What has changed and others should know; `restore` them if they cannot be stored."""
        self.is_urgent.clear()
        self._forget_idle(now)
        taken = []
        for (provider, tenant), quota in self._quotas.items():
            if not quota.has_changed or not quota.is_of_interest(now):
                continue
            quota.has_changed = False
            _forget_before(quota.seconds, int(now.timestamp()) - QUOTA_WINDOW)
            taken.append(quota.report(provider, tenant))
        return taken

    def restore(self, reports: Iterable[QuotaReport]) -> None:
        """Report these again."""
        for one in reports:
            self._quotas[one.provider, one.tenant].has_changed = True

    def _forget_idle(self, now: datetime) -> None:
        """Forget quotas that nobody uses: there may be many tenants."""
        begin = int(now.timestamp()) - QUOTA_WINDOW
        for key, quota in list(self._quotas.items()):
            if not quota.is_of_interest(now) and all(second < begin for second in quota.seconds):
                del self._quotas[key]


def _forget_before(seconds: dict[int, list[int]], begin: int) -> None:
    for second in [one for one in seconds if one < begin]:
        del seconds[second]
