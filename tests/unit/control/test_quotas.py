"""How sends adapt to what a provider rejects, over simulated hours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from ackbridge.contracts.quotas import QuotaReport, QuotaStatement, QuotaStatus, SecondCounts
from ackbridge.control.quotas import RELEASED_AFTER, adapt, effective_rate
from benchmarks.quotas.simulation import (
    EPOCH,
    FixedWindow,
    Quota,
    SlidingWindow,
    TokenBucket,
    simulate,
)

MAX_WASTE = 0.05


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: TokenBucket(10, 10), id="bucket"),
        pytest.param(lambda: FixedWindow(100, 10), id="window of 10 s"),
        pytest.param(lambda: FixedWindow(240, 60), id="window of a minute"),
        pytest.param(lambda: SlidingWindow(30, 60), id="any minute"),
    ],
)
@pytest.mark.parametrize("demand", [1.2, 5])
def test_hidden_quota_is_hardly_exceeded(build: Callable[[], Quota], demand: float) -> None:
    """In the steady state at most a twentieth is rejected, and the quota is used."""
    result = simulate(build(), demand * build().per_second, 1200)
    assert result.waste <= MAX_WASTE
    assert result.used >= 0.8


def test_without_control_most_requests_are_wasted() -> None:
    """What the simulation shows is the control's doing."""
    assert simulate(TokenBucket(10, 10), 20, 300, is_adaptive=False).waste > 0.3


def test_larger_quota_is_found() -> None:
    """A quota that was raised tenfold is used within a quarter of an hour."""
    status: QuotaStatus | None = _limited(5.0)
    at = EPOCH
    while status is not None and (rate := status.per_second or 0.0) < 50:
        at += timedelta(seconds=2)
        status = adapt(status, [_report(at, accepted=rate)], at)
    assert at - EPOCH < timedelta(minutes=15)


def test_few_rejections_do_not_limit() -> None:
    """One request that is rejected is that request's matter; so are two of a hundred."""
    now = EPOCH + timedelta(minutes=5)
    assert adapt(None, [_report(now, accepted=0, throttled=0.1)], now) is None
    assert adapt(None, [_report(now, accepted=20, throttled=0.4)], now) is None
    limited = adapt(None, [_report(now, accepted=10, throttled=10)], now)
    assert limited is not None
    assert limited.per_second == pytest.approx(8.5, rel=0.15)
    assert limited.reason == "100 of 200 requests were answered 429"


def test_limit_ends() -> None:
    """After a quarter of an hour without a rejection nothing is limited any more."""
    now = EPOCH + RELEASED_AFTER
    assert adapt(_limited(5.0), [], now - timedelta(seconds=1)) is not None
    assert adapt(_limited(5.0), [], now) is None


def test_unused_rate_does_not_rise() -> None:
    """A rate that nobody uses says nothing about the provider."""
    now = EPOCH + timedelta(minutes=2)
    status = adapt(_limited(50.0), [_report(now, accepted=5)], now)
    assert status is not None
    assert status.per_second == 50.0


def test_exhausted_quota_is_waited_for() -> None:
    """When a lower rate is rejected as well, all pause, longer each time, and then probe."""
    now = EPOCH + timedelta(seconds=10)
    status = adapt(_limited(50.0), [_report(now, accepted=0, throttled=5)], now)
    assert status is not None
    assert effective_rate(status, 100.0, now) == 0
    until = status.paused_until
    assert until is not None
    now = until + timedelta(seconds=3)
    assert effective_rate(status, 100.0, now) == pytest.approx(0.2)
    again = adapt(status, [_report(now, throttled=1, seconds=2)], now)
    assert again is not None
    assert again.own_pause == 2 * (status.own_pause or timedelta(0))
    well = adapt(status, [_report(now, accepted=1, seconds=2)], now)
    assert well is not None
    assert effective_rate(well, 100.0, now) == pytest.approx(50, rel=0.01)


def test_pause_that_was_asked_for_is_kept_by_all() -> None:
    """One worker was told to wait: nobody sends until then, and then as before."""
    until = EPOCH + timedelta(seconds=30)
    report = QuotaReport(provider="p", paused_until=until)
    status = adapt(None, [QuotaReport(provider="p"), report], EPOCH)
    assert effective_rate(status, None, EPOCH) == 0
    assert adapt(status, [report], until) is None


def test_stated_quota_is_spread_when_little_is_left() -> None:
    """The last tenth of a stated quota is spread over the time until it resets."""

    def status(remaining: float) -> QuotaStatus | None:
        resets_at = EPOCH + timedelta(seconds=100)
        stated = QuotaStatement(at=EPOCH, remaining=remaining, limit=1000, resets_at=resets_at)
        return adapt(None, [QuotaReport(provider="p", stated=stated)], EPOCH)

    assert status(500) is None
    assert effective_rate(status(100), None, EPOCH) == 1.0
    assert effective_rate(status(100), 0.5, EPOCH) == 0.5


def _limited(rate: float) -> QuotaStatus:
    return QuotaStatus(
        per_second=rate, peak=rate, since=EPOCH, cut_at=EPOCH, raised_at=EPOCH, throttled_at=EPOCH
    )


def _report(
    at: datetime, accepted: float = 0, throttled: float = 0, seconds: int = 10
) -> QuotaReport:
    """Requests per second, of the last ones."""
    end = int(at.timestamp())
    counted = [0.0, 0.0]
    rows = []
    for second in range(end - seconds, end):
        before = [int(one) for one in counted]
        counted = [counted[0] + accepted, counted[1] + throttled]
        rows.append(
            SecondCounts(
                at=second,
                accepted=int(counted[0]) - before[0],
                throttled=int(counted[1]) - before[1],
            )
        )
    return QuotaReport(provider="p", seconds=tuple(rows))
