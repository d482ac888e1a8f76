"""Observations in the ledger: merged over workers, reported again without counting twice."""

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
from ackbridge.ledger.database.tables import observations as table
from ackbridge.ledger.database.urls import address_of
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.rows import Unsettled
from ackbridge.stats.counters import COARSE, FINE, Observations
from ackbridge.stats.reporter import Reporter
from ackbridge.stats.totals import Count, Times

from .samples import START, MovableClock, request_for

REPORT_AND_DIE = """
import asyncio, os, signal, sys
from ackbridge.stats.counters import Observations
from ackbridge.stats.totals import Count
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.reporter import Reporter
from tests.integration.ledger.samples import MovableClock

async def work():
    clock, observations = MovableClock(), Observations()
    reporter = Reporter(observations, Ledger.open(sys.argv[1], clock), clock)
    for _ in range(3):
        observations.count("acme", "order", Count.RECEIPTS, 5)
        await reporter.report()
    observations.count("acme", "order", Count.RECEIPTS, 1000)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


def noting(receipts: int, seconds: float = 0.2) -> Observations:
    """A worker that has noted receipts of acme's orders."""
    observations = Observations()
    observations.count("acme", "order", Count.RECEIPTS, receipts)
    observations.time("acme", "order", Times.RECEIPT, timedelta(seconds=seconds))
    return observations


async def receipts(ledger: Ledger, ago: timedelta = timedelta(minutes=1)) -> int:
    """How many receipts all workers have seen."""
    observed = await ledger.observed("acme", START - ago)
    return observed["order"][Count.RECEIPTS] if observed else 0


async def test_workers_add_up(ledger: Ledger, clock: MovableClock) -> None:
    """Counts and times of all of them; those of another provider stay apart."""
    workers = [noting(2, 0.1), noting(3, 0.4)]
    workers[0].count("other", "order", Count.RECEIPTS, 100)
    await asyncio.gather(*(Reporter(one, ledger, clock).report() for one in workers))

    observed = await ledger.observed("acme", START)

    assert observed.keys() == {"order"}
    assert observed["order"][Count.RECEIPTS] == 5
    assert observed["order"].times[Times.RECEIPT].quantile(1) == pytest.approx(0.4, rel=0.02)
    assert await ledger.observed_providers(START - timedelta(hours=1)) == ["acme", "other"]


async def test_the_same_report_twice_counts_once(ledger: Ledger, clock: MovableClock) -> None:
    """Its answer was lost, say: it takes its own place."""
    worker = noting(2)
    buckets = worker.gather(clock())
    await ledger.report(worker.worker, buckets)
    await ledger.report(worker.worker, buckets)
    assert await receipts(ledger) == 2
    worker.count("acme", "order", Count.RECEIPTS)
    await Reporter(worker, ledger, clock).report()
    assert await receipts(ledger) == 3


async def test_a_killed_worker_counts_once(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """What it had reported stands, what it had not is lost, and its successor adds its own."""
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", REPORT_AND_DIE, ledger_url], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert await receipts(ledger) == 15
    await Reporter(noting(2), ledger, clock).report()
    assert await receipts(ledger) == 17


async def test_nothing_is_lost_while_the_ledger_is_away(
    ledger: Ledger, clock: MovableClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is reported when the ledger is back, into the bucket it belongs to."""
    absent = Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('away')}/none.db", clock)
    worker = noting(2)
    await Reporter(worker, absent, clock).report()
    clock.go_on(FINE.width)
    worker.count("acme", "order", Count.RECEIPTS)
    await Reporter(worker, ledger, clock).report()
    await absent.close()
    assert await receipts(ledger) == 3


async def test_the_window_slides(ledger: Ledger, clock: MovableClock) -> None:
    """Only buckets that are not over by its beginning count; long windows read coarse ones."""
    worker = Observations()
    reporter = Reporter(worker, ledger, clock)
    for _ in range(60):
        worker.count("acme", "order", Count.RECEIPTS)
        await reporter.report()
        clock.go_on(timedelta(minutes=1))

    async def within(minutes: int) -> int:
        observed = await ledger.observed("acme", clock() - timedelta(minutes=minutes))
        return observed["order"][Count.RECEIPTS]

    assert await within(10) == 10
    assert 30 <= await within(30) <= 35
    assert await within(600) == 60


async def test_old_rows_are_pruned(ledger: Ledger, ledger_url: str, clock: MovableClock) -> None:
    """Fine ones after a quarter of an hour, all of them after a day."""
    await Reporter(noting(2), ledger, clock).report()

    def widths() -> list[int]:
        engine = sa.create_engine(address_of(ledger_url))
        with engine.connect() as connection:
            found = list(connection.execute(sa.select(table.c.width)).scalars())
        engine.dispose()
        return found

    assert sorted(widths()) == [10, 300]
    clock.go_on(FINE.kept + FINE.width)
    await ledger.forget_observations()
    assert widths() == [300]
    clock.go_on(COARSE.kept)
    await ledger.forget_observations()
    assert widths() == []


async def test_what_waits_is_counted_by_operation(ledger: Ledger) -> None:
    """Parked calls and acknowledgements owed, of one provider."""
    for key in ("1", "2", "3"):
        await ledger.claim(request_for(key), "chain")
    for key in ("1", "2"):
        await ledger.conclude(f"acme.order.{key}", Stage.PARKED, "silence", None)
    await ledger.owe("acme.order.3", 1, AcknowledgementKind.SUCCESS, "503")
    assert {"order": Unsettled(parked=2, owed=1)} == await ledger.standing("acme")
    assert await ledger.standing("other") == {}


async def test_the_scorecard_has_both(ledger: Ledger, clock: MovableClock) -> None:
    """What was observed, and what waits, in one answer."""
    await Reporter(noting(4), ledger, clock).report()
    await ledger.claim(request_for("1"), "chain")
    await ledger.conclude("acme.order.1", Stage.PARKED, "silence", None)
    clock.go_on(timedelta(minutes=2))
    card = await ledger.scorecard("acme", START)
    (order,) = card.operations
    assert (order.sends, order.parked, order.receipt_rate) == (4, 1, 1.0)
    assert card.since <= START < card.until
