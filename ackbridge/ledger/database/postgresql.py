"""PostgreSQL, by psycopg 3 and SQLAlchemy's asynchronous engine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from .columns import json_text
from .db_errors import answering

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_WITHIN: Final = 5
"""Seconds."""


class Postgresql:
    """A `Database` on a server; up to ten transactions at once in each process."""

    def __init__(self, address: sa.URL, within: timedelta) -> None:
        self._within = within
        self._password = address.password
        self._engine = create_async_engine(
            address,
            pool_size=10,
            max_overflow=0,
            pool_timeout=within.total_seconds(),
            # A connection that a firewall has dropped in silence would cost a whole timeout.
            pool_recycle=1800,
            hide_parameters=True,
            json_serializer=json_text,
            connect_args={"connect_timeout": CONNECT_WITHIN},
        )
        # One round trip instead of three.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def write(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Database.write`."""
        async with answering(self._within, self._password), self._engine.begin() as connection:
            return await connection.run_sync(work, *args, **kwargs)

    async def read(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Database.read`."""
        async with answering(self._within, self._password), self._reading.connect() as connection:
            return await connection.run_sync(work, *args, **kwargs)

    async def close(self) -> None:
        """See `Database.close`."""
        await self._engine.dispose()
