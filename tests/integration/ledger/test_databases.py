"""The ledger's databases: migrations, several processes at once, and killed ones."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ackbridge.errors import ConfigurationError
from ackbridge.ledger.database.engines import open_database, parse_url
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.database.tables import log, metadata
from ackbridge.ledger.ledger import Ledger

from .samples import outcome_of, request_for, response

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
    ends = [(process.communicate()[1], process.returncode) for process in running]
    assert ends == [("", 0)] * processes


def test_revisions_lead_to_the_tables(ledger_url: str) -> None:
    """The migrated database is the one that the code describes."""
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_several_workers_migrate_at_once(empty_url: str) -> None:
    """Whoever comes second waits, and finds nothing to do."""
    run_at_once(MIGRATE, empty_url, 3)


async def test_several_processes_write_at_once(ledger: Ledger, ledger_url: str) -> None:
    """Workers and gateways share one ledger, and no write is lost or refused."""
    await asyncio.to_thread(run_at_once, SUPPRESS, ledger_url, 3)

    assert (await ledger.counts())["suppressed"] == 300


async def test_a_killed_writer_leaves_nothing(ledger: Ledger, ledger_url: str) -> None:
    """What was not committed is gone with its process, and the event is free to be recorded."""
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


def test_a_newer_ledger_is_left_alone(ledger_url: str) -> None:
    """A version that does not know the ledger's revision says so, and touches nothing."""
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(ConfigurationError, match="newer version"):
        migrate(ledger_url)


async def test_a_sqlite_ledger_is_journalled_ahead(tmp_path: Path) -> None:
    """The file is in WAL mode for whoever opens it."""
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
    """SQLite reports a lock at once when it should change the journal; migrating tries again."""
    writer = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: writer.rollback())

    migrate(f"sqlite:///{tmp_path}/ledger.db")

    writer.close()


async def test_a_writer_of_sqlite_keeps_others_out_from_its_start(tmp_path: Path) -> None:
    """A transaction may read first and write later: nobody writes in between."""
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
