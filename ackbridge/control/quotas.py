"""The rate that a provider accepts: additive increase, multiplicative decrease. No I/O.

A provider that answers 429 is sent less at once, by everybody; while nothing is rejected, the rate
rises slowly, so that few requests are spent on finding its quota again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ackbridge.contracts.quotas import QuotaReport, QuotaStatement, QuotaStatus, SecondCounts

WINDOW: Final = timedelta(seconds=60)
"""Over which the accepted rate is measured; many quotas are per minute."""

RECENT: Final = timedelta(seconds=10)
"""The requests that decide whether the rate changes."""

SETTLED_AFTER: Final = timedelta(seconds=2)
"""Requests that were sent before a new rate had reached the queue say nothing about it."""

MIN_SHARE: Final = 0.05
MIN_THROTTLED: Final = 3
"""The share and the number of rejected requests that begin a limit."""

DECREASE: Final = 0.85
"""Of the accepted rate."""

INCREASE: Final = 0.001
"""Of the peak, each second, while the rate is used."""

INCREASE_PER_REQUEST: Final = 0.002
"""Of the peak, for each accepted request at the most: low rates rise by requests, not by time."""

DOUBLED_EVERY: Final = 0.05
"""The increase doubles with each such share above the peak: the quota is larger than it was."""

MAX_INCREASE: Final = 0.05
"""Of the peak, each second."""

USED: Final = 0.8
"""The share of the rate that has to be used before it rises."""

EXHAUSTED: Final = 0.5
"""The share of rejected requests from which on a pause helps and a lower rate does not."""

FIRST_PAUSE: Final = timedelta(seconds=2)
MAX_PAUSE: Final = timedelta(minutes=1)
"""A provider is tried again after this, whatever a 429 asks of everybody."""

PROBE_RATE: Final = 0.2
MIN_FIRST_RATE: Final = 0.5
MIN_RATE: Final = 0.01
"""Sends per second: after a pause of our own, at first, and at the least."""

RELEASED_AFTER: Final = timedelta(minutes=15)
"""Without a rejected request, the limit ends."""

LOW: Final = 0.2
"""The share of a stated limit from which on what remains is spread until it resets."""


@dataclass(frozen=True)
class _Counts:
    accepted: int
    throttled: int
    span: timedelta

    @property
    def share(self) -> float:
        return self.throttled / max(1, self.accepted + self.throttled)

    @property
    def accepted_rate(self) -> float:
        return self.accepted / max(1.0, self.span.total_seconds())

    def __str__(self) -> str:
        return f"{self.throttled} of {self.throttled + self.accepted} requests were answered 429"


def adapt(
    status: QuotaStatus | None, reports: Sequence[QuotaReport], now: datetime
) -> QuotaStatus | None:
    """The next status of a quota; the same object if nothing changes, None if nothing is limited.

    Args:
        reports: of all workers.
    """
    status = _with_statement(status, _latest_statement(reports, now), now)
    status = _with_pause(status, _latest_pause(reports, now), now)
    seconds = merged(reports)
    if status is None or status.per_second is None:
        return _started(status, seconds, now)
    rate = status.per_second
    recent = _counts(seconds, _judged_since(status, now), now)
    if status.own_pause is not None and recent.accepted and recent.share < EXHAUSTED:
        status = status.model_copy(update={"own_pause": None})
    if recent.throttled:
        return _reduced(status, rate, seconds, recent, now)
    if now - (status.throttled_at or status.since) >= RELEASED_AFTER:
        return _or_none(status.model_copy(update={"per_second": None, "peak": None}), now)
    return _raised(status, rate, seconds, now)


def effective_rate(status: QuotaStatus | None, base: float | None, now: datetime) -> float | None:
    """Sends per second; None: unlimited.

    Args:
        base: what the integration file, an operator and the breaker allow.
    """
    if status is None:
        return base
    if status.is_paused(now):
        return 0.0
    limits = [one for one in (base, status.per_second, status.stated) if one is not None]
    if status.own_pause is not None:
        limits.append(PROBE_RATE)
    return min(limits, default=None)


def merged(reports: Iterable[QuotaReport]) -> list[SecondCounts]:
    """The requests of all workers, oldest first."""
    counts: dict[int, tuple[int, int]] = {}
    for report in reports:
        for one in report.seconds:
            accepted, throttled = counts.get(one.at, (0, 0))
            counts[one.at] = (accepted + one.accepted, throttled + one.throttled)
    return [
        SecondCounts(at=at, accepted=counts[at][0], throttled=counts[at][1])
        for at in sorted(counts)
    ]


def _latest_statement(reports: Iterable[QuotaReport], now: datetime) -> QuotaStatement | None:
    known = [one.stated for one in reports if one.stated is not None and one.stated.resets_at > now]
    return max(known, key=lambda one: one.at, default=None)


def _latest_pause(reports: Iterable[QuotaReport], now: datetime) -> datetime | None:
    known = [one.paused_until for one in reports if one.paused_until is not None]
    return max((one for one in known if one > now), default=None)


def _with_statement(
    status: QuotaStatus | None, stated: QuotaStatement | None, now: datetime
) -> QuotaStatus | None:
    """Spread what remains of a stated quota until it resets, once little of it remains."""
    rate = None
    if stated is not None and stated.remaining <= max(1.0, LOW * (stated.limit or 0)):
        left = max(1.0, (stated.resets_at - now).total_seconds())
        rate = _rounded(max(MIN_RATE, stated.remaining / left))
    if status is None:
        if rate is None:
            return None
        return QuotaStatus(since=now, stated=rate, reason="the provider's rate-limit headers")
    if status.stated == rate:
        return status
    return _or_none(status.model_copy(update={"stated": rate}), now)


def _with_pause(
    status: QuotaStatus | None, until: datetime | None, now: datetime
) -> QuotaStatus | None:
    if status is None:
        if until is None:
            return None
        return QuotaStatus(since=now, paused_until=until, reason="the provider asked for a pause")
    current = status.paused_until
    if until is not None and (current is None or until > current):
        return status.model_copy(update={"paused_until": until})
    return status if status.per_second is not None else _or_none(status, now)


def _or_none(status: QuotaStatus, now: datetime) -> QuotaStatus | None:
    is_limited = status.per_second is not None or status.stated is not None
    return status if is_limited or status.is_paused(now) else None


def _judged_since(status: QuotaStatus, now: datetime) -> datetime:
    since = now - RECENT
    if status.cut_at is not None:
        since = max(since, status.cut_at + SETTLED_AFTER)
    return max(since, status.paused_until) if status.paused_until else since


def _counts(seconds: Sequence[SecondCounts], since: datetime, now: datetime) -> _Counts:
    found = [one for one in seconds if one.at >= since.timestamp() - 0.5]
    # Traffic that has just begun is measured from its beginning.
    first = seconds[0].at if seconds else now.timestamp()
    begin = max(since.timestamp(), first)
    return _Counts(
        accepted=sum(one.accepted for one in found),
        throttled=sum(one.throttled for one in found),
        span=timedelta(seconds=max(0.0, now.timestamp() - begin)),
    )


def _started(
    status: QuotaStatus | None, seconds: Sequence[SecondCounts], now: datetime
) -> QuotaStatus | None:
    recent = _counts(seconds, now - RECENT, now)
    if recent.throttled < MIN_THROTTLED or recent.share < MIN_SHARE:
        return status
    rate = _rounded(max(MIN_FIRST_RATE, DECREASE * recent.accepted_rate))
    limited = status or QuotaStatus(since=now)
    return limited.model_copy(
        update={
            "per_second": rate,
            "peak": max(rate, _rounded(recent.accepted_rate)),
            "since": now,
            "cut_at": now,
            "raised_at": now,
            "throttled_at": now,
            "reason": str(recent),
        }
    )


def _reduced(
    status: QuotaStatus,
    rate: float,
    seconds: Sequence[SecondCounts],
    recent: _Counts,
    now: datetime,
) -> QuotaStatus:
    is_repeated = status.cut_at is not None and now - status.cut_at < WINDOW
    if status.own_pause is not None or (recent.share >= EXHAUSTED and is_repeated):
        return _paused(status, recent, now)
    accepted = _counts(seconds, now - WINDOW, now).accepted_rate
    # One measurement over few requests never does more than halve it.
    known = min(rate, max(accepted, rate / 2))
    return status.model_copy(
        update={
            "per_second": _rounded(max(MIN_RATE, DECREASE * known)),
            "peak": known,
            "cut_at": now,
            "raised_at": now,
            "throttled_at": now,
            "reason": str(recent),
        }
    )


def _paused(status: QuotaStatus, recent: _Counts, now: datetime) -> QuotaStatus:
    """Pause, each time twice as long: the quota is used up until it resets."""
    pause = min(2 * status.own_pause, MAX_PAUSE) if status.own_pause else FIRST_PAUSE
    return status.model_copy(
        update={
            "paused_until": now + pause,
            "own_pause": pause,
            "throttled_at": now,
            "reason": f"{recent}; pause of {pause.total_seconds():g} s",
        }
    )


def _raised(
    status: QuotaStatus, rate: float, seconds: Sequence[SecondCounts], now: datetime
) -> QuotaStatus:
    recent = _counts(seconds, now - RECENT, now)
    raised_at = status.raised_at or status.since
    # Few requests cannot show that a low rate is used.
    is_low = rate * RECENT.total_seconds() < 5 and recent.accepted > 0
    if not (is_low or recent.accepted_rate >= USED * rate):
        return status.model_copy(update={"raised_at": now})
    peak = status.peak or rate
    share = min(INCREASE, INCREASE_PER_REQUEST * max(recent.accepted_rate, rate / 2))
    share *= 2 ** min(20.0, max(0.0, rate / peak - 1) / DOUBLED_EVERY)
    gain = peak * min(MAX_INCREASE, share) * (now - raised_at).total_seconds()
    return status.model_copy(update={"per_second": rate + gain, "raised_at": now})


def _rounded(rate: float) -> float:
    return float(f"{rate:.4g}")
