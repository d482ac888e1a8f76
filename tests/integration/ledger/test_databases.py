"""The databases: migrations, concurrent processes, and killed ones."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ackbridge.errors import ConfigurationError
from ackbridge.ledger.calls import ClaimKind
from ackbridge.ledger.database.engines import open_database, parse_url
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.database.tables import log, metadata
from ackbridge.ledger.inbox import LogEntry, LogKind, log_at_least
from ackbridge.ledger.ledger import Ledger
from tests.support.postgres import PostgreSQL

from .samples import START, MovableClock, outcome_of, request_for, response

PARTITION = Path(__file__).parents[3] / "deploy" / "partition.sql"

MIGRATE = "import sys; from ackbridge.ledger.database.migrate import migrate; migrate(sys.argv[1])"
SUPPRESS = """
import asyncio, sys
from ackbridge.clock import utc_now
from ackbridge.ledger.ledger import Ledger

async def suppress():
    ledger = Ledger.open(sys.argv[1], utc_now)
    log = ledger.inbox.log_suppressed
    await asyncio.gather(*(log("acme", "e-1", None, "duplicate") for _ in range(100)))
    await ledger.close()

asyncio.run(suppress())
"""

DIE_BEFORE_COMMIT = """
import asyncio, os, signal, sys
from ackbridge.ledger.ledger import Ledger
from tests.integration.ledger.samples import BeforeCommit, MovableClock
from tests.integration.ledger.samples import outcome_of, request_for, response

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def record():
    ledger = Ledger(BeforeCommit(sys.argv[1], die), MovableClock())
    outcome = outcome_of(request_for("1"))
    await ledger.calls.record_response("acme.order.1", 1, response("e-1"), outcome)

asyncio.run(record())
"""


def run_at_once(program: str, url: str, processes: int) -> None:
    """Run a program in several processes at once, and expect all of them to succeed."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, url],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in running]
    assert ends == [("", 0)] * processes


def test_migrations_create_the_tables(ledger_url: str) -> None:
    """The migrated database has the tables that the code describes."""
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


async def test_partitioned_tables_are_the_same_to_a_ledger(server: PostgreSQL) -> None:
    """`deploy/partition.sql` keeps rows, columns, keys and the names of indexes."""
    url, request = server.new_database(), request_for("1")
    migrate(url)
    ledger = Ledger.open(url, MovableClock())
    assert (await ledger.calls.claim(request, "run-1")).kind is ClaimKind.FRESH
    with psycopg.connect(url) as connection:
        connection.execute(PARTITION.read_text().encode())

    assert (await ledger.calls.claim(request, "run-1")).kind is ClaimKind.HELD
    for _ in range(2):
        recorded = await ledger.calls.record_response(
            request.call_id, 1, response("e-1"), outcome_of(request)
        )
        assert recorded.accepted
    await ledger.close()
    engine = sa.create_engine(parse_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: not re.search(r"_\d+$", name or "")}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_several_workers_migrate_at_once(empty_url: str) -> None:
    """A second process waits, and finds nothing to do."""
    run_at_once(MIGRATE, empty_url, 3)


async def test_several_processes_write_at_once(ledger: Ledger, ledger_url: str) -> None:
    """No write is lost or refused."""
    await asyncio.to_thread(run_at_once, SUPPRESS, ledger_url, 3)

    assert (await ledger.counts())["suppressed"] == 300


async def test_a_killed_writer_leaves_nothing(ledger: Ledger, ledger_url: str) -> None:
    """What was not committed is gone, and the event can be recorded."""
    arguments = [sys.executable, "-c", DIE_BEFORE_COMMIT, ledger_url]
    root = Path(__file__).parents[3]
    died = await asyncio.to_thread(subprocess.run, arguments, cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL

    assert await ledger.calls.responses("acme.order.1") == []
    assert not await ledger.calls.is_event_recorded("acme", "e-1")
    request = request_for("1")
    recorded = await ledger.calls.record_response(
        request.call_id, 1, response("e-1"), outcome_of(request)
    )
    assert recorded.accepted


def test_migrating_again_changes_nothing(ledger_url: str) -> None:
    """Every worker migrates when it starts."""
    migrate(ledger_url)


def test_a_newer_ledger_is_refused(ledger_url: str) -> None:
    """An older version reports that it does not know the ledger's revision, and changes nothing."""
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(ConfigurationError, match="newer version"):
        migrate(ledger_url)


async def test_a_sqlite_ledger_is_in_wal_mode(tmp_path: Path) -> None:
    """The file keeps the mode."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    engine.dispose()

    assert mode == "wal"


def test_switching_to_wal_waits_for_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports a lock at once when the journal mode changes; the migration retries."""
    writer = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: writer.rollback())

    migrate(f"sqlite:///{tmp_path}/ledger.db")

    writer.close()


async def test_a_sqlite_transaction_locks_at_its_start(tmp_path: Path) -> None:
    """It may read first and write later: no other process writes in between."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)

    def read_then_write(connection: sa.Connection) -> None:
        connection.execute(sa.select(log)).all()
        other = sqlite3.connect(tmp_path / "ledger.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("DELETE FROM log")
        other.close()
        connection.execute(log.delete())

    database = open_database(url, timedelta(seconds=10))
    await database.write(read_then_write)
    await database.close()


async def test_work_that_shares_a_transaction_fails_by_itself(ledger_url: str) -> None:
    """What one of them raises is its own end; the others are written, in few transactions."""
    database = open_database(ledger_url, timedelta(seconds=10))
    connections = set[int]()

    def write(connection: sa.Connection, number: int) -> int:
        if number == 3:
            connections.add(id(connection))
            raise ValueError(str(number))
        entry = LogEntry(LogKind.SUPPRESSED, "acme", f"e-{number}", None, "duplicate")
        log_at_least(connection, entry, START)
        connections.add(id(connection))
        return number

    async def share(number: int) -> int:
        return await database.write(lambda connection: write(connection, number), shares=True)

    try:
        ends = await asyncio.gather(*map(share, range(20)), return_exceptions=True)
        several = len(connections)
        connections.clear()
        await asyncio.gather(*map(share, range(20, 40)))
    finally:
        await database.close()
    assert [str(end) for end in ends] == [str(number) for number in range(20)]
    assert isinstance(ends[3], ValueError)
    assert several > 1
    # SQLite's writer thread may take the first before the others are queued.
    assert len(connections) <= 2
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.connect() as connection:
        written = connection.execute(sa.select(log.c.subject)).scalars().all()
    engine.dispose()
    assert sorted(written) == sorted(f"e-{number}" for number in range(40) if number != 3)


async def test_work_runs_in_the_context_of_its_caller(ledger_url: str) -> None:
    """Also where it shares a transaction or a thread: the trace and the activity are its own."""
    database = open_database(ledger_url, timedelta(seconds=10))
    caller: ContextVar[int] = ContextVar("caller")

    def look(connection: sa.Connection) -> int:
        connection.execute(sa.select(1))
        return caller.get()

    async def call(number: int) -> list[int]:
        caller.set(number)
        return [
            await database.write(look, shares=True),
            await database.write(look),
            await database.read(look),
        ]

    try:
        seen = await asyncio.gather(*map(call, range(20)))
    finally:
        await database.close()
    assert seen == [[number] * 3 for number in range(20)]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
async def test_many_reads_at_once_all_end(tmp_path: Path) -> None:
    """Threads that empty the queue at the same time lose nothing of it."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    database = open_database(url, timedelta(seconds=3))

    async def read(number: int) -> int:
        return await database.read(lambda _: number)

    try:
        for _ in range(500):
            assert await asyncio.gather(*map(read, range(40))) == list(range(40))
    finally:
        await database.close()


async def test_shared_transactions_that_wait_for_each_other(server: PostgreSQL) -> None:
    """PostgreSQL ends one of two deadlocked transactions; its work is done again, by itself."""
    url = server.new_database()
    migrate(url)
    is_written = {"x": threading.Event(), "y": threading.Event()}
    attempts: list[str] = []

    def write(connection: sa.Connection, key: str, after: str | None) -> None:
        if after is not None:
            assert is_written[after].wait(timeout=10)
        attempts.append(key)
        entry = LogEntry(LogKind.SUPPRESSED, "acme", key, None, "duplicate")
        log_at_least(connection, entry, START)
        is_written[key].set()

    async def share(first: str, second: str) -> None:
        database = open_database(url, timedelta(seconds=20))
        await asyncio.gather(
            database.write(lambda one: write(one, first, None), shares=True),
            database.write(lambda one: write(one, second, second), shares=True),
        )
        await database.close()

    await asyncio.gather(
        asyncio.to_thread(lambda: asyncio.run(share("x", "y"))),
        asyncio.to_thread(lambda: asyncio.run(share("y", "x"))),
    )
    assert len(attempts) > 4
    with psycopg.connect(url) as connection:
        subjects = connection.execute("SELECT subject FROM log ORDER BY subject").fetchall()
    assert subjects == [("x",), ("y",)]
