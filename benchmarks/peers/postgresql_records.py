"""A peer's records in PostgreSQL."""

from __future__ import annotations

import json
from typing import Any, Self

from psycopg_pool import AsyncConnectionPool

from .records import CREATE


class PostgreSQLRecords:
    """A table of PostgreSQL; every statement is a transaction."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, connections: int) -> Self:
        """Connect, and create the table where it is missing."""
        pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True},
            min_size=connections,
            max_size=connections,
            open=False,
        )
        await pool.open(wait=True)
        async with pool.connection() as connection:
            await connection.execute(CREATE)
        return cls(pool)

    async def claim(self, key: str) -> None:
        """Take note of a call; again is the same."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO calls (key) VALUES (%s) ON CONFLICT DO NOTHING", (key,)
            )

    async def record(self, key: str, response: dict[str, Any]) -> None:
        """Write its response; the first one stands."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE calls SET response = %s WHERE key = %s AND response IS NULL",
                (json.dumps(response), key),
            )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()
