"""The quota meter: what a worker counts, when all pause, and what it reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts.quotas import QuotaStatement, SecondCounts
from ackbridge.stats.counters import MAX_PAUSE, QuotaMeter

NOW = datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)
KEY = ("acme", "")


def count(meter: QuotaMeter, after: float = 0, **more: Any) -> None:
    """One answer, to a request sent then."""
    at = NOW + timedelta(seconds=after)
    meter.count(KEY, at, at, **{"throttled": False, **more})


def paused_for(meter: QuotaMeter, after: float = 0) -> float:
    at = NOW + timedelta(seconds=after)
    until = meter.paused_until(KEY, at)
    return (until - at).total_seconds() if until else 0


def test_provider_that_rejects_nothing_is_not_reported() -> None:
    """It costs no write."""
    meter = QuotaMeter()
    count(meter)
    assert meter.take_reports(NOW) == []
    assert not meter.is_urgent.is_set()


def test_rejection_is_reported_with_the_requests_before_it() -> None:
    """The accepted rate is measured over both; what could not be stored is reported again."""
    meter = QuotaMeter()
    for second in (-1, 0, 0):
        count(meter, second)
    count(meter, 0, throttled=True)
    assert meter.is_urgent.is_set()
    (report,) = reports = meter.take_reports(NOW)
    begin = int(NOW.timestamp())
    assert report.seconds == (
        SecondCounts(at=begin - 1, accepted=1),
        SecondCounts(at=begin, accepted=2, throttled=1),
    )
    assert meter.take_reports(NOW) == []
    meter.restore(reports)
    assert meter.take_reports(NOW) == reports
    count(meter, 120)
    (report,) = meter.take_reports(NOW + timedelta(seconds=120))
    assert len(report.seconds) == 1


def test_worker_that_is_not_rejected_reports_while_the_quota_is_limited() -> None:
    """Its requests use the quota, too."""
    meter = QuotaMeter()
    count(meter, is_limited=True)
    assert len(meter.take_reports(NOW)) == 1


def test_pause_is_for_all_where_others_are_rejected_too() -> None:
    """It ends when a request that was sent later is accepted: then it was about one request."""
    meter = QuotaMeter()
    count(meter, throttled=True, pause=timedelta(seconds=30))
    assert paused_for(meter) == 30
    count(meter, 0, throttled=True, pause=timedelta(seconds=10))
    assert paused_for(meter) == 30
    meter.count(KEY, NOW - timedelta(seconds=1), NOW + timedelta(seconds=1), throttled=False)
    assert paused_for(meter, 1) == 29
    count(meter, 2)
    assert paused_for(meter, 2) == 0


def test_pause_of_one_request_among_many_is_its_own() -> None:
    """Nineteen of twenty were accepted."""
    meter = QuotaMeter()
    for _ in range(19):
        count(meter)
    count(meter, throttled=True, pause=timedelta(seconds=30))
    assert paused_for(meter) == 0
    assert meter.is_slowed(KEY, NOW)


def test_nobody_pauses_for_an_hour_because_of_one_answer() -> None:
    """The provider is tried again before."""
    meter = QuotaMeter()
    count(meter, throttled=True, pause=timedelta(hours=1))
    assert paused_for(meter) == MAX_PAUSE.total_seconds()


def test_quota_that_is_used_up_pauses() -> None:
    """The headers say so before a request is rejected."""
    meter = QuotaMeter()
    stated = QuotaStatement(at=NOW, remaining=0, resets_at=NOW + timedelta(seconds=20))
    count(meter, stated=stated)
    assert paused_for(meter) == 20
    assert meter.take_reports(NOW)[0].stated == stated


def test_tenants_that_send_nothing_are_forgotten() -> None:
    """There may be many; one whose requests were rejected is remembered for longer."""
    meter = QuotaMeter()
    count(meter, throttled=True)
    for number in range(100):
        meter.count(("acme", f"tenant-{number}"), NOW, NOW, throttled=False)
    meter.take_reports(NOW)
    assert len(meter) == 101
    meter.take_reports(NOW + timedelta(minutes=2))
    assert len(meter) == 1
    meter.take_reports(NOW + timedelta(minutes=20))
    assert len(meter) == 0
