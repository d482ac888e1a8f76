"""Bringing a ledger to the tables of this version, however many workers start at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import exc

from ackbridge.errors import ConfigurationError, LedgerUnavailableError

from .db_errors import unavailable
from .postgresql import CONNECT_WITHIN
from .sqlite import sqlite_engine
from .urls import address_of, is_sqlite

_WAIT: Final = timedelta(seconds=60)
"""For another worker that is migrating."""

_ADVISORY_LOCK: Final = 0x61636B6272646765
"""Chosen once, for every version: the bytes of "ackbrdge"."""


def migrate(url: str) -> None:
    """Create the ledger, or bring it up to date; blocking, and safe to run several times at once.

    Everything happens in one transaction that holds a lock: whoever comes second waits, and then
    finds nothing to do.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/database`.

    Raises:
        ConfigurationError: the URL is neither of the two databases', or the ledger has been
            migrated by a newer version.
        LedgerUnavailableError: the database does not answer.
    """
    address = address_of(url)
    try:
        if is_sqlite(address):
            _prepare_file(address)
            engine = sqlite_engine(address, _WAIT, writes=True)
        else:
            engine = sa.create_engine(
                address, hide_parameters=True, connect_args={"connect_timeout": CONNECT_WITHIN}
            )
        _upgrade(engine)
    except exc.DBAPIError as error:
        raise unavailable(error, address.password) from None
    except OSError as error:
        raise LedgerUnavailableError(f"the ledger cannot be created: {error.strerror}") from None


def _upgrade(engine: sa.Engine) -> None:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                _lock_postgresql(connection)
            with _explained():
                command.upgrade(_config(connection), "head")
    finally:
        engine.dispose()


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "ackbridge.ledger.database:migrations")
    config.attributes["connection"] = connection
    return config


def _lock_postgresql(connection: sa.Connection) -> None:
    wait = int(_WAIT.total_seconds() * 1000)
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {wait}"))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _prepare_file(address: sa.URL) -> None:
    """Switch the file to WAL, once for its life: readers then never wait for writers."""
    Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlite_engine(address, _WAIT, writes=False)
    until = time.monotonic() + _WAIT.total_seconds()
    try:
        while not _switched_to_wal(engine):
            if time.monotonic() > until:
                raise LedgerUnavailableError("the ledger's file stays locked by another process")
            time.sleep(0.02)
    finally:
        engine.dispose()


def _switched_to_wal(engine: sa.Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except exc.OperationalError as error:
        # Two that switch at once are told so without any waiting for the busy timeout.
        if "locked" in str(error.orig):
            return False
        raise
    return True


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        reason = f"the ledger has been migrated by a newer version of Ackbridge: {error}"
        raise ConfigurationError(reason) from None
