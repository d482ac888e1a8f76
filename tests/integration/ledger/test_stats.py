"""Statistics: merged over workers, and reported again without counting twice."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ackbridge.contracts.calls import Stage
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.tables import observations as table
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.stats import OperationBacklog
from ackbridge.stats.counters import COARSE, FINE, Count, Counters, Timing
from ackbridge.stats.reporter import StatsReporter

from .samples import START, MovableClock, request_for

REPORT_AND_DIE = """
import asyncio, os, signal, sys
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import Count, Counters
from ackbridge.stats.reporter import StatsReporter
from tests.integration.ledger.samples import MovableClock

async def work():
    clock, counters = MovableClock(), Counters()
    reporter = StatsReporter(counters, Ledger.open(sys.argv[1], clock).stats, clock)
    for _ in range(3):
        counters.count("acme", "order", Count.RECEIPTS, 5)
        await reporter.report()
    counters.count("acme", "order", Count.RECEIPTS, 1000)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


def counters_with(receipts: int, seconds: float = 0.2) -> Counters:
    """Counters with receipts of acme's orders."""
    counters = Counters()
    counters.count("acme", "order", Count.RECEIPTS, receipts)
    counters.time("acme", "order", Timing.RECEIPT, timedelta(seconds=seconds))
    return counters


async def receipts(ledger: Ledger, ago: timedelta = timedelta(minutes=1)) -> int:
    """The receipts of all workers."""
    stats = await ledger.stats.totals("acme", START - ago)
    return stats["order"][Count.RECEIPTS] if stats else 0


async def test_workers_add_up(ledger: Ledger, clock: MovableClock) -> None:
    """Counts and timings of all of them, without those of another provider."""
    workers = [counters_with(2, 0.1), counters_with(3, 0.4)]
    workers[0].count("other", "order", Count.RECEIPTS, 100)
    await asyncio.gather(*(StatsReporter(one, ledger.stats, clock).report() for one in workers))

    stats = await ledger.stats.totals("acme", START)

    assert stats.keys() == {"order"}
    assert stats["order"][Count.RECEIPTS] == 5
    assert stats["order"].times[Timing.RECEIPT].quantile(1) == pytest.approx(0.4, rel=0.02)
    assert await ledger.stats.providers(START - timedelta(hours=1)) == ["acme", "other"]


async def test_the_same_report_twice_counts_once(ledger: Ledger, clock: MovableClock) -> None:
    """A repeated report replaces itself."""
    worker = counters_with(2)
    buckets = worker.gather(clock())
    await ledger.stats.store(worker.worker, buckets)
    await ledger.stats.store(worker.worker, buckets)
    assert await receipts(ledger) == 2
    worker.count("acme", "order", Count.RECEIPTS)
    await StatsReporter(worker, ledger.stats, clock).report()
    assert await receipts(ledger) == 3


async def test_a_killed_worker_counts_once(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """What it has reported stays, the rest is lost, and its successor adds its own."""
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", REPORT_AND_DIE, ledger_url], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert await receipts(ledger) == 15
    await StatsReporter(counters_with(2), ledger.stats, clock).report()
    assert await receipts(ledger) == 17


async def test_nothing_is_lost_while_the_ledger_is_unavailable(
    ledger: Ledger, clock: MovableClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is reported once the ledger is available, into the right bucket."""
    absent = Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('away')}/none.db", clock)
    worker = counters_with(2)
    await StatsReporter(worker, absent.stats, clock).report()
    clock.advance(FINE.width)
    worker.count("acme", "order", Count.RECEIPTS)
    await StatsReporter(worker, ledger.stats, clock).report()
    await absent.close()
    assert await receipts(ledger) == 3


async def test_the_window_slides(ledger: Ledger, clock: MovableClock) -> None:
    """Buckets before it do not count; long windows read coarse buckets."""
    worker = Counters()
    reporter = StatsReporter(worker, ledger.stats, clock)
    for _ in range(60):
        worker.count("acme", "order", Count.RECEIPTS)
        await reporter.report()
        clock.advance(timedelta(minutes=1))

    async def within(minutes: int) -> int:
        stats = await ledger.stats.totals("acme", clock() - timedelta(minutes=minutes))
        return stats["order"][Count.RECEIPTS]

    assert await within(10) == 10
    assert 30 <= await within(30) <= 35
    assert await within(600) == 60


async def test_expired_rows_are_deleted(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """Fine ones after a quarter of an hour, all of them after a day."""
    await StatsReporter(counters_with(2), ledger.stats, clock).report()

    def widths() -> list[int]:
        engine = sa.create_engine(parse_url(ledger_url))
        with engine.connect() as connection:
            found = list(connection.execute(sa.select(table.c.width)).scalars())
        engine.dispose()
        return found

    assert sorted(widths()) == [10, 300]
    clock.advance(FINE.kept + FINE.width)
    await ledger.stats.delete_expired()
    assert widths() == [300]
    clock.advance(COARSE.kept)
    await ledger.stats.delete_expired()
    assert widths() == []


async def test_the_backlog_by_operation(ledger: Ledger) -> None:
    """Parked calls and owed acknowledgements of one provider."""
    for key in ("1", "2", "3"):
        await ledger.calls.claim(request_for(key), "chain")
    for key in ("1", "2"):
        await ledger.calls.record_stage(f"acme.order.{key}", Stage.PARKED, "silence", None)
    await ledger.calls.record_owed("acme.order.3", 1, AcknowledgementKind.SUCCESS, "503")
    assert {"order": OperationBacklog(parked=2, owed=1)} == await ledger.stats.backlog("acme")
    assert await ledger.stats.backlog("other") == {}


async def test_the_scorecard_has_both(ledger: Ledger, clock: MovableClock) -> None:
    """Statistics and backlog."""
    await StatsReporter(counters_with(4), ledger.stats, clock).report()
    await ledger.calls.claim(request_for("1"), "chain")
    await ledger.calls.record_stage("acme.order.1", Stage.PARKED, "silence", None)
    clock.advance(timedelta(minutes=2))
    card = await ledger.stats.scorecard("acme", START)
    (order,) = card.operations
    assert (order.sends, order.parked, order.receipt_rate) == (4, 1, 1.0)
    assert card.since <= START < card.until
