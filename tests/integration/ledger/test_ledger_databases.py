"""The ledger's databases: migrations, several processes, and what happens when they are away."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ackbridge.errors import ConfigurationError, LedgerUnavailable
from ackbridge.ledger import Ledger, migrate
from ackbridge.ledger.addresses import address_of
from ackbridge.ledger.tables import metadata
from tests.postgres import PostgreSQL

from .samples import MovableClock, outcome_of, request_for, response

MIGRATE = "import sys; from ackbridge.ledger import migrate; migrate(sys.argv[1])"
SUPPRESS = """
import asyncio, sys
from ackbridge.clock import utc_now
from ackbridge.ledger import Ledger

async def suppress():
    ledger = Ledger.open(sys.argv[1], utc_now)
    await asyncio.gather(*(ledger.suppress("acme", "e-1", None, "duplicate") for _ in range(100)))
    await ledger.close()

asyncio.run(suppress())
"""

DIE_BEFORE_COMMIT = """
import asyncio, os, signal, sys
from datetime import timedelta
from ackbridge.ledger import responses
from ackbridge.ledger.database import open_database
from tests.integration.ledger.samples import START, outcome_of, request_for, response

def record_and_die(connection):
    capture = responses.Capture(
        "acme.order.1", "acme", "order", 1, response("e-1"), outcome_of(request_for("1"))
    )
    assert responses.record(connection, capture, START).accepted
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(open_database(sys.argv[1], timedelta(seconds=10)).write(record_and_die))
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
    engine = sa.create_engine(address_of(ledger_url))
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

    assert await ledger.responses("acme.order.1") == []
    assert not await ledger.is_recorded("acme", "e-1")
    request = request_for("1")
    recorded = await ledger.record(
        request.call_id, "acme", "order", 1, response("e-1"), outcome_of(request)
    )
    assert recorded.accepted


async def test_a_server_that_comes_back_is_used_again(
    server: PostgreSQL, clock: MovableClock
) -> None:
    """Broken connections fail what was using them, and are replaced."""
    url = server.new_database()
    migrate(url)
    ledger = Ledger.open(url, clock)
    await asyncio.gather(*(ledger.ping() for _ in range(5)))
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [address_of(url).database],
        )

    with pytest.raises(LedgerUnavailable):
        await ledger.ping()
    await ledger.ping()

    await ledger.close()


def test_migrating_again_changes_nothing(ledger_url: str) -> None:
    """Every worker migrates when it starts."""
    migrate(ledger_url)


def test_a_newer_ledger_is_left_alone(ledger_url: str) -> None:
    """A version that does not know the ledger's revision says so, and touches nothing."""
    engine = sa.create_engine(address_of(ledger_url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(ConfigurationError, match="newer version"):
        migrate(ledger_url)


async def test_a_ledger_that_is_not_migrated_says_so(empty_url: str, clock: MovableClock) -> None:
    """A gateway that starts before the first worker is not ready, and knows why."""
    if empty_url.startswith("sqlite"):
        Path(str(address_of(empty_url).database)).parent.mkdir()
    ledger = Ledger.open(empty_url, clock)

    with pytest.raises(LedgerUnavailable, match="has not been migrated yet"):
        await ledger.ping()

    await ledger.close()


async def test_a_migrated_ledger_answers(ledger: Ledger) -> None:
    """A ledger with its tables is ready."""
    await ledger.ping()


async def test_a_sqlite_ledger_is_journalled_ahead(tmp_path: Path) -> None:
    """The file is in WAL mode for whoever opens it."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    engine.dispose()

    assert mode == "wal"


async def test_a_locked_ledger_is_unavailable_for_now(tmp_path: Path, clock: MovableClock) -> None:
    """A writer that holds the file too long is waited for, reported, and forgotten."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger.open(url, clock, within=timedelta(milliseconds=200))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable):
            await ledger.suppress("acme", "e-1", None, "duplicate")
        assert (await ledger.counts())["suppressed"] == 0
        connection.rollback()
    engine.dispose()

    await ledger.suppress("acme", "e-1", None, "duplicate")
    assert (await ledger.counts())["suppressed"] == 1
    await ledger.close()


async def test_a_server_that_is_away_is_unavailable(clock: MovableClock) -> None:
    """Nothing that is raised, printed or chained shows the password."""
    url = "postgres://ackbridge:hunter2@127.0.0.1:1/ledger"
    ledger = Ledger.open(url, clock)
    with pytest.raises(LedgerUnavailable) as by_ping:
        await ledger.ping()
    with pytest.raises(LedgerUnavailable) as by_migrate:
        await asyncio.to_thread(migrate, url)
    await ledger.close()

    for caught in (by_ping, by_migrate):
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in repr(vars(ledger))


async def test_a_folder_that_cannot_be_is_unavailable(tmp_path: Path, clock: MovableClock) -> None:
    """A path through a file is reported as what it is, by everybody."""
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/ledger.db"
    ledger = Ledger.open(url, clock)

    with pytest.raises(LedgerUnavailable):
        migrate(url)
    with pytest.raises(LedgerUnavailable):
        await ledger.ping()

    await ledger.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "hunter2",
        "postgresql://u:hunter2@h:port/d",
    ],
)
def test_other_urls_are_refused(url: str, clock: MovableClock) -> None:
    """What is not a ledger is refused before anything starts, and without any password."""
    with pytest.raises(ConfigurationError, match="the ledger's URL must be") as caught:
        Ledger.open(url, clock)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://h/d", "postgresql+psycopg"),
        ("postgresql://h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg"),
        ("sqlite:///d", "sqlite"),
    ],
)
def test_usual_urls_are_understood(url: str, driver: str) -> None:
    """Every usual spelling leads to the one driver of its database."""
    assert address_of(url).drivername == driver
