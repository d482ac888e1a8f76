"""Encrypt rows again with the key that encrypts now, so that an older key can be removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc

from .database.engines import Store, is_sqlite, parse_url, sqlite_engine, unavailable, writes
from .database.tables import Encrypted, is_current, metadata

PAGE_ROWS: Final = 200
"""How many rows one transaction looks at."""

COMPACT_TIMEOUT: Final = timedelta(seconds=60)
"""How long to wait for other processes."""

_Key: TypeAlias = tuple[str | int, ...]


class Reencryption(Store):
    """Goes through every table with encrypted columns, in the order of its primary key."""

    async def run(self) -> AsyncIterator[tuple[str, int]]:
        """Rewrite what is plain, or encrypted with another key.

        May be interrupted, and run while others write.

        Yields:
            After each transaction, the table and how many rows were rewritten.

        Raises:
            DecryptionError: the key of a row is missing.
        """
        for table in metadata.sorted_tables:
            if _encrypted(table):
                last: _Key | None = ()
                while last is not None:
                    last, rewritten = await self._page(table, last)
                    yield table.name, rewritten

    @writes
    def _page(
        self, connection: sa.Connection, table: sa.Table, after: _Key
    ) -> tuple[_Key | None, int]:
        """The key of the page's last row, None if it was the last page; and how many it rewrote."""
        key, columns = _key(table), _encrypted(table)
        raw = [sa.type_coerce(column, column.type.stored_as()) for column in columns]
        query = sa.select(*key, *raw).order_by(*key).limit(PAGE_ROWS).with_for_update()
        if after:
            query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
        rows = connection.execute(query).all()
        rewritten = 0
        for row in rows:
            own, values = tuple(row[: len(key)]), row[len(key) :]
            if all(
                is_current(column.type, value, connection.dialect)
                for column, value in zip(columns, values, strict=True)
            ):
                continue
            which = sa.tuple_(*key) == sa.tuple_(*own)
            read = connection.execute(sa.select(*columns).where(which)).one()
            changes = {column.name: read[n] for n, column in enumerate(columns)}
            connection.execute(table.update().where(which).values(changes))
            rewritten += 1
        return (tuple(rows[-1][: len(key)]) if len(rows) == PAGE_ROWS else None), rewritten


def compact(url: str) -> None:
    """Leave nothing of replaced rows in the free pages of an SQLite file. Blocking.

    PostgreSQL does so by itself, with its next vacuum.

    Raises:
        LedgerUnavailableError: another process keeps the file locked.
    """
    address = parse_url(url)
    if not is_sqlite(address):
        return
    engine = sqlite_engine(address, COMPACT_TIMEOUT, writes=False)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except exc.DBAPIError as error:
        raise unavailable(error, None) from None
    finally:
        engine.dispose()


def _encrypted(table: sa.Table) -> list[Any]:
    return [column for column in table.columns if isinstance(column.type, Encrypted)]


def _key(table: sa.Table) -> list[Any]:
    """The primary key as it is stored, in the order of its index."""
    return [
        column if isinstance(column.type, sa.Integer) else sa.type_coerce(column, sa.Text)
        for column in table.primary_key.columns
    ]
