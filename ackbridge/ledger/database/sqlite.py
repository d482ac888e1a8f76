"""SQLite, in a writer's thread and two readers' threads of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import sqlalchemy as sa

from .columns import json_text
from .db_errors import answering

P = ParamSpec("P")
R = TypeVar("R")
Work: TypeAlias = Callable[[sa.Connection], R]

_READERS: Final = 2


class Sqlite:
    """A `Database` in a file that several processes share.

    A transaction goes to its thread as a whole, because each switch of threads costs more than
    a statement. Writers of one process queue for the one writer's thread, fairly and without
    polling; SQLite's own waiting, which polls, is left to writers of different processes.
    A caller who stops waiting does not stop a transaction that has begun.
    """

    def __init__(self, address: sa.URL, within: timedelta) -> None:
        self._within = within
        # Half of it in the worst case, so that the caller hears of a lock rather than of time.
        self._writing = sqlite_engine(address, within / 2, writes=True)
        self._reading = sqlite_engine(address, within / 2, writes=False)
        self._writer = ThreadPoolExecutor(1, "ackbridge-ledger-writer")
        self._readers = ThreadPoolExecutor(_READERS, "ackbridge-ledger-reader")

    async def write(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Database.write`."""
        return await self._run(self._writer, self._write, lambda c: work(c, *args, **kwargs))

    async def read(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Database.read`."""
        return await self._run(self._readers, self._read, lambda c: work(c, *args, **kwargs))

    async def close(self) -> None:
        """See `Database.close`; transactions that have begun come to their end."""
        await asyncio.to_thread(self._close)

    async def _run(
        self,
        threads: ThreadPoolExecutor,
        host: Callable[[Work[R]], R],
        work: Work[R],
    ) -> R:
        async with answering(self._within):
            return await asyncio.get_running_loop().run_in_executor(threads, host, work)

    def _write(self, work: Work[R]) -> R:
        with self._writing.begin() as connection:
            return work(connection)

    def _read(self, work: Work[R]) -> R:
        with self._reading.connect() as connection:
            return work(connection)

    def _close(self) -> None:
        for threads in (self._writer, self._readers):
            threads.shutdown(cancel_futures=True)
        for engine in (self._writing, self._reading):
            engine.dispose()


def sqlite_engine(address: sa.URL, busy: timedelta, *, writes: bool) -> sa.Engine:
    """An engine of a file whose transactions are ours to begin.

    Args:
        busy: how long to wait for a writer in another process.
        writes: whether transactions write, or else every statement stands alone.
    """
    engine = sa.create_engine(
        address, pool_size=_READERS, hide_parameters=True, json_serializer=json_text
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # The driver would begin transactions on its own, late and never IMMEDIATE.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(busy.total_seconds() * 1000)}")
        connection.execute("PRAGMA synchronous=NORMAL")

    if writes:

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            # A transaction that reads first and writes later fails at once, whatever the busy
            # timeout, when another process has written in between: say it at the start.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
