"""Migrations: create the tables, or upgrade them to this version."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import exc

from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.security.private_files import make_private_file, make_private_folder

from .engines import CONNECT_TIMEOUT, is_sqlite, parse_url, sqlite_engine, unavailable

log = logging.getLogger(__name__)

_LOCK_TIMEOUT: Final = timedelta(seconds=60)
"""How long to wait for another process that is migrating."""

_ADVISORY_LOCK: Final = 0x61636B6272646765
"""The same in every version: the bytes of "ackbrdge"."""


def migrate(url: str) -> None:
    """Create the ledger, or upgrade it. Blocking; several processes may call it at once.

    Everything happens in one transaction that holds a lock: a second process waits, and then finds
    nothing to do.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/database`.

    Raises:
        ConfigurationError: the URL is of neither database, or the ledger was migrated by a newer
            version.
        LedgerUnavailableError: the database does not answer.
    """
    address = parse_url(url)
    try:
        if is_sqlite(address):
            _prepare_file(address)
            engine = sqlite_engine(address, _LOCK_TIMEOUT, writes=True)
        else:
            engine = sa.create_engine(
                address, hide_parameters=True, connect_args={"connect_timeout": CONNECT_TIMEOUT}
            )
        _upgrade(engine)
    except exc.DBAPIError as error:
        raise unavailable(error, address.password) from None
    except OSError as error:
        raise LedgerUnavailableError(
            f"the ledger {address.database} (ACKBRIDGE_LEDGER_URL) cannot be created:"
            f" {error.strerror}"
        ) from None


def _upgrade(engine: sa.Engine) -> None:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                _lock_postgresql(connection)
            before = MigrationContext.configure(connection).get_current_revision()
            with _command_errors():
                command.upgrade(_config(connection), "head")
            after = MigrationContext.configure(connection).get_current_revision()
            if before != after:
                log.info("the ledger was migrated: %s to %s", before or "new", after)
    finally:
        engine.dispose()


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "ackbridge.ledger.database:migrations")
    config.attributes["connection"] = connection
    return config


def _lock_postgresql(connection: sa.Connection) -> None:
    wait = int(_LOCK_TIMEOUT.total_seconds() * 1000)
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {wait}"))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _prepare_file(address: sa.URL) -> None:
    """Switch the file to WAL, permanently: readers then never wait for writers."""
    path = Path(str(address.database))
    make_private_folder(path.parent)
    # The files of the WAL get its mode.
    make_private_file(path)
    engine = sqlite_engine(address, _LOCK_TIMEOUT, writes=False)
    until = time.monotonic() + _LOCK_TIMEOUT.total_seconds()
    try:
        while not _switched_to_wal(engine):
            if time.monotonic() > until:
                raise LedgerUnavailableError("another process keeps the ledger's file locked")
            time.sleep(0.02)
    finally:
        engine.dispose()


def _switched_to_wal(engine: sa.Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except exc.OperationalError as error:
        # Two processes that switch at once get this at once, whatever the busy timeout.
        if "locked" in str(error.orig):
            return False
        raise
    return True


@contextmanager
def _command_errors() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        reason = f"the ledger was migrated by a newer version of Ackbridge: {error}"
        raise ConfigurationError(reason) from None
