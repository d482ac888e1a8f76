"""The scorecard of a provider: availability, errors and response times, and what is pending."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime

from ackbridge.contracts.breaker import BreakerStatus
from ackbridge.contracts.control import WHOLE_PROVIDER, ControlSnapshot
from ackbridge.contracts.wire import Wire

from .counters import Count, OperationStats, Timing

ANSWERED: Final = (
    Count.RECEIPTS,
    Count.REFUSED,
    Count.THROTTLED,
    Count.STATUS_ANSWERED,
    Count.ACKNOWLEDGED,
    Count.HEALTHY,
)
NOT_ANSWERED: Final = (
    Count.UNANSWERED,
    Count.STATUS_UNANSWERED,
    Count.UNACKNOWLEDGED,
    Count.UNHEALTHY,
)
"""Which requests show that a provider is up or down. One that throttles is up."""


class Latency(Wire):
    """Quantiles, in seconds."""

    p50: float
    p95: float
    p99: float


class Score(Wire):
    """The statistics of one operation, or of the provider as a whole."""

    operation: str  # its name; "" for the whole provider, health requests included
    # The share of time buckets in which at least half of the requests were answered; buckets
    # without requests do not count; None: there was no request at all.
    uptime: float | None = None
    sends: int = 0
    # Of the provider: no answer, 408, 425, 429 or 5xx, failures, silences.
    errors_per_minute: float = 0.0
    # Our own: the ledger unavailable, a secret missing, an invalid request.
    ours_per_minute: float = 0.0
    receipt_rate: float | None = None  # the share of sends that the provider accepted
    # The share of cycles that ended with a response, not a failure or a silence; a late response
    # counts as both.
    answer_rate: float | None = None
    # receipt, answer: how long they took, from the send; None when there was none.
    receipt: Latency | None = None
    answer: Latency | None = None
    silences: int = 0
    late: int = 0
    duplicates: int = 0
    refused: int = 0
    throttled: int = 0
    failures: int = 0
    parked: int = 0  # calls that are parked now
    owed: int = 0  # acknowledgements that are pending now
    # deadline, deadline_reason: of new calls, where it is learned.
    deadline: timedelta | None = None
    deadline_reason: str | None = None


class Scorecard(Wire):
    """The statistics of a provider in a period; `breaker` is from the control's last snapshot."""

    provider: str
    since: AwareDatetime
    until: AwareDatetime
    whole: Score
    operations: tuple[Score, ...] = ()
    breaker: BreakerStatus | None = None


Timeline = Mapping[datetime, Mapping[str, OperationStats]]
"""Statistics by the start of their bucket, then by operation."""

Backlog = Mapping[str, tuple[int, int]]
"""By operation, how many calls are parked, and how many acknowledgements are pending."""


def scorecard(
    provider: str,
    timeline: Timeline,
    backlog: Backlog,
    since: datetime,
    until: datetime,
    snapshot: ControlSnapshot | None = None,
) -> Scorecard:
    """Compute the scorecard of a period; it begins no later than the first bucket."""
    deadlines = snapshot.deadlines if snapshot else {}
    with_stats = {operation for bucket in timeline.values() for operation in bucket}
    names = (with_stats | backlog.keys() | deadlines.keys()) - {WHOLE_PROVIDER}
    minutes = max((until - since) / timedelta(minutes=1), 1 / 60)
    operations = []
    for name in sorted(names):
        buckets = [bucket[name] for bucket in timeline.values() if name in bucket]
        score = _score(name, buckets, minutes, *backlog.get(name, (0, 0)))
        if name in deadlines:
            learned = deadlines[name]
            known = {"deadline": learned.deadline, "deadline_reason": learned.reason}
            score = score.model_copy(update=known)
        operations.append(score)
    together = [OperationStats.merged(bucket.values()) for bucket in timeline.values()]
    parked = sum(parked for parked, _ in backlog.values())
    owed = sum(owed for _, owed in backlog.values())
    return Scorecard(
        provider=provider,
        since=since,
        until=until,
        whole=_score(WHOLE_PROVIDER, together, minutes, parked, owed),
        operations=tuple(operations),
        breaker=snapshot.breaker if snapshot else None,
    )


def _score(
    operation: str, buckets: list[OperationStats], minutes: float, parked: int, owed: int
) -> Score:
    stats = OperationStats.merged(buckets)
    answers = stats[Count.ANSWERS]
    return Score(
        operation=operation,
        uptime=_uptime(buckets),
        sends=stats.sends,
        errors_per_minute=stats.errors / minutes,
        ours_per_minute=stats[Count.OWN_ERRORS] / minutes,
        receipt_rate=_share(stats[Count.RECEIPTS], stats.sends),
        answer_rate=_share(answers, answers + stats[Count.FAILURES] + stats[Count.SILENCES]),
        receipt=_latency(stats, Timing.RECEIPT),
        answer=_latency(stats, Timing.ANSWER),
        silences=stats[Count.SILENCES],
        late=stats[Count.LATE],
        duplicates=stats[Count.DUPLICATES],
        refused=stats[Count.REFUSED],
        throttled=stats[Count.THROTTLED],
        failures=stats[Count.FAILURES],
        parked=parked,
        owed=owed,
    )


def _uptime(buckets: list[OperationStats]) -> float | None:
    up = down = 0
    for bucket in buckets:
        answered, unanswered = bucket.sum(ANSWERED), bucket.sum(NOT_ANSWERED)
        if answered or unanswered:
            up, down = (up + 1, down) if answered >= unanswered else (up, down + 1)
    return _share(up, up + down)


def _latency(stats: OperationStats, name: Timing) -> Latency | None:
    p50, p95, p99 = (stats.times[name].quantile(share) for share in (0.5, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return Latency(p50=p50, p95=p95, p99=p99)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
