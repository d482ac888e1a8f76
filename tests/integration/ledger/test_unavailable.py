"""Errors of a ledger whose database is unavailable, locked, not migrated or invalid."""

from __future__ import annotations

import asyncio
import os
import traceback
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from tests.support.postgres import PostgreSQL

from .samples import MovableClock


async def test_a_ledger_that_is_not_migrated_says_so(empty_url: str, clock: MovableClock) -> None:
    """A gateway that starts before the first worker is not ready, and reports why."""
    if empty_url.startswith("sqlite"):
        Path(str(parse_url(empty_url).database)).parent.mkdir()
    ledger = Ledger.open(empty_url, clock)

    with pytest.raises(LedgerUnavailableError, match="has not been migrated yet"):
        await ledger.ping()

    await ledger.close()


async def test_a_migrated_ledger_answers(ledger: Ledger) -> None:
    """A ledger with its tables is ready."""
    await ledger.ping()


async def test_a_server_that_comes_back_is_used_again(
    server: PostgreSQL, clock: MovableClock
) -> None:
    """Broken connections fail their transactions, and are replaced."""
    url = server.new_database()
    migrate(url)
    ledger = Ledger.open(url, clock)
    await asyncio.gather(*(ledger.ping() for _ in range(5)))
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [parse_url(url).database],
        )

    with pytest.raises(LedgerUnavailableError):
        await ledger.ping()
    await ledger.ping()

    await ledger.close()


async def test_a_locked_ledger_is_unavailable_for_now(tmp_path: Path, clock: MovableClock) -> None:
    """A writer that locks the file for too long leads to an error, and nothing lasting."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger.open(url, clock, timeout=timedelta(milliseconds=200))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError):
            await ledger.inbox.log_suppressed("acme", "e-1", None, "duplicate")
        assert (await ledger.counts())["suppressed"] == 0
        connection.rollback()
    engine.dispose()

    await ledger.inbox.log_suppressed("acme", "e-1", None, "duplicate")
    assert (await ledger.counts())["suppressed"] == 1
    await ledger.close()


async def test_a_server_without_a_listener_is_unavailable(clock: MovableClock) -> None:
    """No error or its cause shows the password."""
    url = "postgres://ackbridge:hunter2@127.0.0.1:1/ledger"
    ledger = Ledger.open(url, clock)
    with pytest.raises(LedgerUnavailableError) as by_ping:
        await ledger.ping()
    with pytest.raises(LedgerUnavailableError) as by_migrate:
        await asyncio.to_thread(migrate, url)
    await ledger.close()

    for caught in (by_ping, by_migrate):
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in repr(vars(ledger))


async def test_an_impossible_folder_is_unavailable(tmp_path: Path, clock: MovableClock) -> None:
    """A path through a file is reported as such."""
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/ledger.db"
    ledger = Ledger.open(url, clock)

    with pytest.raises(LedgerUnavailableError):
        migrate(url)
    with pytest.raises(LedgerUnavailableError):
        await ledger.ping()

    await ledger.close()


async def test_a_file_that_is_moved_away_is_unavailable(
    tmp_path: Path, clock: MovableClock
) -> None:
    """Nothing is written to a file that is not there: it would be lost, and seem to be stored."""
    path = tmp_path / "ledger.db"
    migrate(f"sqlite:///{path}")
    ledger = Ledger.open(f"sqlite:///{path}", clock)
    await ledger.inbox.log_suppressed("acme", "e-1", None, "duplicate")
    path.rename(tmp_path / "away.db")
    for use in (ledger.ping, lambda: ledger.inbox.log_suppressed("acme", "e-2", None, "again")):
        with pytest.raises(LedgerUnavailableError, match=r"ledger\.db \(ACKBRIDGE_LEDGER_URL\)"):
            await use()
    assert not path.exists()

    (tmp_path / "away.db").rename(path)
    await ledger.inbox.log_suppressed("acme", "e-2", None, "again")
    assert (await ledger.counts())["suppressed"] == 2
    await ledger.close()


async def test_a_file_that_was_replaced_is_opened_again(
    tmp_path: Path, clock: MovableClock
) -> None:
    """Such as a restored one: connections to the file before are not used any more."""
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    for one in (path, other):
        migrate(f"sqlite:///{one}")
    ledger = Ledger.open(f"sqlite:///{path}", clock)
    await ledger.inbox.log_suppressed("acme", "e-1", None, "duplicate")
    assert (await ledger.counts())["suppressed"] == 1
    for file in (path, *tmp_path.glob("ledger.db-*")):
        file.unlink()
    other.rename(path)

    assert (await ledger.counts())["suppressed"] == 0
    await ledger.inbox.log_suppressed("acme", "e-2", None, "duplicate")
    assert (await ledger.counts())["suppressed"] == 1
    await ledger.close()


async def test_files_and_folders_are_private(tmp_path: Path, clock: MovableClock) -> None:
    """Whatever the umask of the process; also those that SQLite adds, and files that were open."""
    path = tmp_path / "a" / "b" / "ledger.db"
    before = os.umask(0)
    try:
        migrate(f"sqlite:///{path}")
        ledger = Ledger.open(f"sqlite:///{path}", clock)
        await ledger.inbox.log_suppressed("acme", "e-1", None, "duplicate")
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "a").rglob("*")}
    finally:
        os.umask(before)
    private = {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}
    assert modes == {"b": 0o700, **private}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    await ledger.close()

    path.chmod(0o644)
    migrate(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o777 == 0o600


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
    """They are refused before anything starts, without showing a password."""
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
    """Every usual spelling leads to one driver for each database."""
    assert parse_url(url).drivername == driver
