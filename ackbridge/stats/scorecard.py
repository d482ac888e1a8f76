"""The scorecard of a provider: how it has done, and what waits for it; its trouble, and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import AwareDatetime

from ackbridge.contracts.breaker import BreakerStatus
from ackbridge.contracts.control import WHOLE_PROVIDER, ControlSnapshot
from ackbridge.contracts.wire import Wire

from .totals import Count, Observed, Times

ANSWERED = (
    Count.RECEIPTS,
    Count.REFUSED,
    Count.THROTTLED,
    Count.ASKED,
    Count.ACKNOWLEDGED,
    Count.HEALTHY,
)
NOT_ANSWERED = (
    Count.UNANSWERED,
    Count.ASKED_IN_VAIN,
    Count.UNACKNOWLEDGED,
    Count.UNHEALTHY,
)
"""What an exchange with a provider says about whether it is up. A throttling one is."""


class Latency(Wire):
    """How long something took, in seconds: half of it, all but a twentieth, all but a hundredth."""

    p50: float
    p95: float
    p99: float


class Score(Wire):
    """How one operation has done, or the provider as a whole.

    Attributes:
        operation: its name; "" for all of the provider, its health requests included.
        uptime: the share of time, as far as anything was heard or not heard, in which at least
            half of what it was asked was answered; None when it was not asked anything.
        sends: attempts.
        errors_per_minute: of the provider's: no answer, 408, 425, 429 or 5xx, failures, silences.
        ours_per_minute: of ours: the ledger away, a secret missing, a request that is no good.
        receipt_rate: the share of sends that the provider took.
        answer_rate: the share of cycles that ended with a response, not a failure or a silence;
            a late response counts for both.
        receipt, answer: how long they took, from the sending; None when there was none.
        silences: deadlines that passed.
        late, duplicates, refused, throttled, failures: how many.
        parked: calls that are parked now.
        owed: acknowledgements that the provider has not accepted by now.
        deadline, deadline_reason: of calls that begin now, where it is learned.
    """

    operation: str
    uptime: float | None = None
    sends: int = 0
    errors_per_minute: float = 0.0
    ours_per_minute: float = 0.0
    receipt_rate: float | None = None
    answer_rate: float | None = None
    receipt: Latency | None = None
    answer: Latency | None = None
    silences: int = 0
    late: int = 0
    duplicates: int = 0
    refused: int = 0
    throttled: int = 0
    failures: int = 0
    parked: int = 0
    owed: int = 0
    deadline: timedelta | None = None
    deadline_reason: str | None = None


class Scorecard(Wire):
    """How a provider has done since a moment.

    Attributes:
        whole: all operations together.
        operations: each of them, sorted by name.
        breaker: as its control published it last; None where that is not known.
    """

    provider: str
    since: AwareDatetime
    until: AwareDatetime
    whole: Score
    operations: tuple[Score, ...] = ()
    breaker: BreakerStatus | None = None


Timeline = Mapping[datetime, Mapping[str, Observed]]
"""What was observed, by the beginning of its bucket and by operation."""

Waiting = Mapping[str, tuple[int, int]]
"""By operation, how much is parked and how much is owed."""


def scorecard(
    provider: str,
    timeline: Timeline,
    waiting: Waiting,
    since: datetime,
    until: datetime,
    snapshot: ControlSnapshot | None = None,
) -> Scorecard:
    """Add everything up.

    Args:
        since: the beginning of the first bucket of the timeline, or earlier.
        snapshot: what the provider's control publishes.
    """
    deadlines = snapshot.deadlines if snapshot else {}
    observed = {operation for bucket in timeline.values() for operation in bucket}
    names = (observed | waiting.keys() | deadlines.keys()) - {WHOLE_PROVIDER}
    minutes = max((until - since) / timedelta(minutes=1), 1 / 60)
    operations = []
    for name in sorted(names):
        parts = [bucket[name] for bucket in timeline.values() if name in bucket]
        score = _score(name, parts, minutes, *waiting.get(name, (0, 0)))
        if name in deadlines:
            learned = deadlines[name]
            known = {"deadline": learned.deadline, "deadline_reason": learned.reason}
            score = score.model_copy(update=known)
        operations.append(score)
    together = [_sum(bucket.values()) for bucket in timeline.values()]
    parked = sum(one for one, _ in waiting.values())
    owed = sum(one for _, one in waiting.values())
    return Scorecard(
        provider=provider,
        since=since,
        until=until,
        whole=_score(WHOLE_PROVIDER, together, minutes, parked, owed),
        operations=tuple(operations),
        breaker=snapshot.breaker if snapshot else None,
    )


def _score(
    operation: str, buckets: list[Observed], minutes: float, parked: int, owed: int
) -> Score:
    seen = _sum(buckets)
    answers = seen[Count.ANSWERS]
    return Score(
        operation=operation,
        uptime=_uptime(buckets),
        sends=seen.sends,
        errors_per_minute=seen.errors / minutes,
        ours_per_minute=seen[Count.OURS] / minutes,
        receipt_rate=_share(seen[Count.RECEIPTS], seen.sends),
        answer_rate=_share(answers, answers + seen[Count.FAILURES] + seen[Count.SILENCES]),
        receipt=_latency(seen, Times.RECEIPT),
        answer=_latency(seen, Times.ANSWER),
        silences=seen[Count.SILENCES],
        late=seen[Count.LATE],
        duplicates=seen[Count.DUPLICATES],
        refused=seen[Count.REFUSED],
        throttled=seen[Count.THROTTLED],
        failures=seen[Count.FAILURES],
        parked=parked,
        owed=owed,
    )


def _uptime(buckets: list[Observed]) -> float | None:
    up = down = 0
    for bucket in buckets:
        answered = sum(bucket[what] for what in ANSWERED)
        unanswered = sum(bucket[what] for what in NOT_ANSWERED)
        if answered or unanswered:
            up, down = (up + 1, down) if answered >= unanswered else (up, down + 1)
    return _share(up, up + down)


def _latency(seen: Observed, name: Times) -> Latency | None:
    found = [seen.times[name].quantile(wanted) for wanted in (0.5, 0.95, 0.99)]
    p50, p95, p99 = found
    if p50 is None or p95 is None or p99 is None:
        return None
    return Latency(p50=p50, p95=p95, p99=p99)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _sum(parts: Iterable[Observed]) -> Observed:
    whole = Observed()
    for part in parts:
        whole.merge(part)
    return whole
