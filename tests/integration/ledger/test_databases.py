"""The databases: migrations, concurrent processes, and killed ones."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
import time
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
from ackbridge.ledger.ledger import Ledger
from tests.support.postgres import PostgreSQL

from .samples import MovableClock, outcome_of, request_for, response

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
