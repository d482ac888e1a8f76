"""The two databases: SQLite and PostgreSQL, each of which runs plain functions as transactions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import create_async_engine

from ackbridge.clock import Clock
from ackbridge.errors import AckbridgeError, ConfigurationError, LedgerUnavailableError
from ackbridge.security.encryption import Encryption

from .tables import encrypt_columns, json_text

CONNECT_TIMEOUT: Final = 5
"""Seconds."""

_POSTGRESQL: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"})
_READERS: Final = 2
_WRITES_TOGETHER: Final = 100
"""Functions in one transaction of SQLite, at most: some ten milliseconds."""
_READS_TOGETHER: Final = 10
"""Functions that one thread reads with before it reports, at most."""
_SHARED_TRANSACTIONS: Final = 4
"""Of PostgreSQL that one process has open at once, at most; the other connections are for what is
written alone."""
_WRITES_OF_SHARED: Final = 25
"""Functions in one of them, at most: each of their statements is a round trip."""
_DEADLOCK: Final = "40P01"

P = ParamSpec("P")
R = TypeVar("R")
Work: TypeAlias = Callable[[sa.Connection], R]


@dataclass(frozen=True)
class DatabaseName:
    """What errors call a database.

    Attributes:
        setting: of its URL.
        missing_tables: what to do where there are none.
        synchronous: how SQLite's files are written. NORMAL may lose the last transactions in a
            power cut, and suits files with a WAL only.
    """

    name: str
    setting: str
    missing_tables: str
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"


LEDGER: Final = DatabaseName(
    "the ledger",
    "ACKBRIDGE_LEDGER_URL",
    "it has not been migrated yet; every worker does so when it starts",
)


class Database(Protocol):
    """Runs functions of a connection: a transaction costs one switch out of asynchronous code."""

    async def write(self, work: Work[R], *, shares: bool = False) -> R:
        """Run `work` in one transaction: everything it wrote is committed, or nothing.

        Args:
            shares: other work may be in the same transaction. It is quick, and locks only rows of
                its own call.

        Raises:
            LedgerUnavailableError: the database does not answer, or not in time.
        """

    async def read(self, work: Work[R]) -> R:
        """As `write`, but each statement sees what is committed by then."""

    async def close(self) -> None:
        """Close all connections."""


def open_database(
    url: str,
    timeout: timedelta,
    encryption: Encryption | None = None,
    name: DatabaseName = LEDGER,
) -> Database:
    """Open a database; the first use connects.

    Args:
        url: `sqlite:///path` or `postgresql://…`.
        timeout: of one transaction, including the wait for its turn.
        encryption: of the encrypted columns; None: they are written in plain.

    Raises:
        ConfigurationError: the URL is of neither database.
    """
    address = parse_url(url, name)
    kind = Sqlite if is_sqlite(address) else Postgresql
    return kind(address, timeout, encryption, name)


class Sqlite:
    """A file that several processes share.

    A transaction runs in one thread as a whole, because each switch of threads costs more than a
    statement. Writers of one process queue for the one writer thread, fairly and without polling;
    SQLite's own waiting, which polls, is left to writers of different processes. What queues while
    a transaction runs shares the next one; if one of them fails, each is run again by itself.
    Cancelling a caller does not stop a transaction that has begun.
    """

    def __init__(
        self,
        address: sa.URL,
        timeout: timedelta,
        encryption: Encryption | None = None,
        name: DatabaseName = LEDGER,
    ) -> None:
        self._timeout = timeout
        self._name = name
        self._path = Path(str(address.database)).absolute()
        self._opened: tuple[int, int] | None = None
        # Shorter than the timeout, so that the caller gets the lock's error, not a time-out.
        open_file = partial(sqlite_engine, address, timeout / 2, synchronous=name.synchronous)
        self._writing = open_file(writes=True)
        self._reading = open_file(writes=False)
        for engine in (self._writing, self._reading):
            encrypt_columns(engine.dialect, encryption)
        self._writer = _Threads(1, "ackbridge-ledger-writer", _WRITES_TOGETHER, self._write)
        self._readers = _Threads(_READERS, "ackbridge-ledger-reader", _READS_TOGETHER, self._read)

    async def write(self, work: Work[R], *, shares: bool = True) -> R:  # noqa: ARG002 -- all does
        async with database_errors(self._timeout, name=self._name):
            return await self._writer.run(work)

    async def read(self, work: Work[R]) -> R:
        async with database_errors(self._timeout, name=self._name):
            return await self._readers.run(work)

    async def close(self) -> None:
        """Close all connections; transactions that have begun are finished."""
        await asyncio.to_thread(self._close)

    def _write(self, batch: Sequence[_QueuedWork]) -> list[_End]:
        try:
            return self._write_together(batch)
        except (LedgerUnavailableError, exc.OperationalError) as error:
            return [_End(error=error)] * len(batch)
        except Exception:
            # One of them is the reason: nothing was written, and each is run by itself.
            return [self._write_alone(queued) for queued in batch]

    def _write_together(self, batch: Sequence[_QueuedWork]) -> list[_End]:
        self._check_file()
        with self._writing.begin() as connection:
            return [_End(queued.work(connection)) for queued in batch]

    def _write_alone(self, queued: _QueuedWork) -> _End:
        try:
            (end,) = self._write_together([queued])
        except Exception as error:
            return _End(error=error)
        return end

    def _read(self, batch: Sequence[_QueuedWork]) -> list[_End]:
        try:
            self._check_file()
            with self._reading.connect() as connection:
                return [_end(queued.work, connection) for queued in batch]
        except Exception as error:
            return [_End(error=error)] * len(batch)

    def _check_file(self) -> None:
        """Check that the connections that are open are to the file that is there.

        SQLite would go on writing to a file that was moved away or deleted.
        """
        try:
            status = self._path.stat()
        except OSError as error:
            raise LedgerUnavailableError(
                f"{self._name.name}'s file {self._path} ({self._name.setting}) cannot be opened:"
                f" {error.strerror}; it was moved away, or {self._name.missing_tables}"
            ) from None
        found = (status.st_dev, status.st_ino)
        if self._opened not in (None, found):
            # The next transactions open the file that is there now.
            for engine in (self._writing, self._reading):
                engine.dispose()
        self._opened = found

    def _close(self) -> None:
        for threads in (self._writer, self._readers):
            threads.close()
        for engine in (self._writing, self._reading):
            engine.dispose()


class _Threads:
    """Threads that run what is queued, several functions at a time."""

    def __init__(
        self, number: int, name: str, most: int, run: Callable[[Sequence[_QueuedWork]], list[_End]]
    ) -> None:
        """Run at most `most` functions at a time with `run`."""
        self._pool = ThreadPoolExecutor(number, name)
        self._most = most
        self._run = run
        self._queued: deque[_QueuedWork] = deque()
        self._is_called = False

    async def run(self, work: Work[R]) -> R:
        """Queue a function, and wait for its result."""
        loop = asyncio.get_running_loop()
        queued = _queued(work, loop)
        self._queued.append(queued)
        if not self._is_called:
            # Calling a thread costs more than most of the functions.
            self._is_called = True
            self._pool.submit(self._run_queued)
        result: R = await queued.done
        return result

    def close(self) -> None:
        """End the threads when they have finished what has begun; what is queued is cancelled."""
        self._pool.shutdown(cancel_futures=True)
        for queued in self._queued:
            with contextlib.suppress(RuntimeError):
                queued.loop.call_soon_threadsafe(queued.done.cancel)

    def _run_queued(self) -> None:
        # First: what is queued after the last look calls again.
        self._is_called = False
        while batch := _take(self._queued, self._most):
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_QueuedWork, _End]]] = {}
            for queued, end in zip(batch, self._run(batch), strict=True):
                by_loop.setdefault(queued.loop, []).append((queued, end))
            for loop, ended in by_loop.items():
                # The loop of a caller that did not wait may be closed.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_report, ended)


@dataclass(frozen=True, eq=False)
class _QueuedWork:
    """A function that waits for a connection, and the future of its result."""

    work: Work[Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


def _queued(work: Work[Any], loop: asyncio.AbstractEventLoop) -> _QueuedWork:
    """Whoever runs it does so in its caller's context, as `asyncio.to_thread` would."""
    context = contextvars.copy_context()
    return _QueuedWork(lambda one: context.run(work, one), loop.create_future(), loop)


@dataclass(frozen=True)
class _End:
    result: Any = None
    error: BaseException | None = None


def _end(work: Work[Any], connection: sa.Connection) -> _End:
    try:
        return _End(work(connection))
    except Exception as error:
        return _End(error=error)


def _take(queued: deque[_QueuedWork], most: int) -> list[_QueuedWork]:
    """The next functions of a transaction."""
    batch: list[_QueuedWork] = []
    while len(batch) < most:
        try:
            # Another thread may take the last one at the same time.
            first = queued.popleft()
        except IndexError:
            break
        # A caller that was cancelled, or whose time is over, has no transaction any more.
        if not first.done.done():
            batch.append(first)
    return batch


def _is_unavailable(error: Exception) -> bool:
    """Whether the database is the reason, and no function."""
    if isinstance(error, exc.OperationalError):
        return getattr(error.orig, "sqlstate", None) != _DEADLOCK
    return isinstance(error, exc.TimeoutError | TimeoutError | OSError)


def _report(ended: Iterable[tuple[_QueuedWork, _End]]) -> None:
    for queued, end in ended:
        if queued.done.done():
            continue
        if end.error is not None:
            queued.done.set_exception(end.error)
        else:
            queued.done.set_result(end.result)


class Postgresql:
    """A server, by psycopg 3; up to ten transactions at once in each process.

    Work that shares, and queues while such transactions run, has the next one together, as with
    SQLite: beginning and committing cost more than most of the statements.
    """

    def __init__(
        self,
        address: sa.URL,
        timeout: timedelta,
        encryption: Encryption | None = None,
        name: DatabaseName = LEDGER,
    ) -> None:
        self._timeout = timeout
        self._name = name
        self._password = address.password
        self._engine = create_async_engine(
            address,
            pool_size=10,
            max_overflow=0,
            pool_timeout=timeout.total_seconds(),
            # A connection that a firewall has dropped silently would cost a whole timeout.
            pool_recycle=1800,
            hide_parameters=True,
            json_serializer=json_text,
            connect_args={"connect_timeout": CONNECT_TIMEOUT},
        )
        encrypt_columns(self._engine.dialect, encryption)
        # One round trip instead of three.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._queued: deque[_QueuedWork] = deque()
        self._sharing: set[asyncio.Task[None]] = set()

    async def write(self, work: Work[R], *, shares: bool = False) -> R:
        async with database_errors(self._timeout, self._password, self._name):
            if not shares:
                async with self._engine.begin() as connection:
                    return await connection.run_sync(work)
            loop = asyncio.get_running_loop()
            queued = _queued(work, loop)
            self._queued.append(queued)
            # Those that have ended, and of which the set does not know yet, take nothing any more.
            if sum(not task.done() for task in self._sharing) < _SHARED_TRANSACTIONS:
                task = loop.create_task(self._write_queued())
                self._sharing.add(task)
                task.add_done_callback(self._sharing.discard)
            result: R = await queued.done
            return result

    async def _write_queued(self) -> None:
        while batch := _take(self._queued, _WRITES_OF_SHARED):
            try:
                ends = await self._write_together(batch)
            except Exception as error:
                if len(batch) == 1 or _is_unavailable(error):
                    ends = [_End(error=error)] * len(batch)
                else:
                    # One of them is the reason: nothing was written, and each is run by itself.
                    ends = [await self._write_alone(queued) for queued in batch]
            _report(zip(batch, ends, strict=True))

    async def _write_together(self, batch: Sequence[_QueuedWork]) -> list[_End]:
        async with (
            asyncio.timeout(self._timeout.total_seconds()),
            self._engine.begin() as connection,
        ):
            return await connection.run_sync(
                lambda connection: [_End(queued.work(connection)) for queued in batch]
            )

    async def _write_alone(self, queued: _QueuedWork) -> _End:
        try:
            (end,) = await self._write_together([queued])
        except Exception as error:
            return _End(error=error)
        return end

    async def read(self, work: Work[R]) -> R:
        async with (
            database_errors(self._timeout, self._password, self._name),
            self._reading.connect() as connection,
        ):
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Close all connections; shared transactions that have begun are finished."""
        for queued in self._queued:
            queued.done.cancel()
        await asyncio.gather(*self._sharing, return_exceptions=True)
        await self._engine.dispose()


class Store:
    """One part of the ledger. A method marked `writes` or `reads` is one transaction.

    Such a method is written as a function of a connection, and called without it, with `await`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock


S = TypeVar("S", bound=Store)


def writes(
    work: Callable[Concatenate[S, sa.Connection, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Run a method as one transaction."""

    @wraps(work)
    async def transaction(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await store.database.write(
            lambda connection: work(store, connection, *args, **kwargs)
        )

    return transaction


def writes_of_call(
    work: Callable[Concatenate[S, sa.Connection, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """As `writes`, for what is quick and locks only rows of one call: it shares transactions."""

    @wraps(work)
    async def transaction(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await store.database.write(
            lambda connection: work(store, connection, *args, **kwargs), shares=True
        )

    return transaction


def reads(
    work: Callable[Concatenate[S, sa.Connection, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Run a method that only reads; each of its statements sees what is committed by then."""

    @wraps(work)
    async def transaction(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await store.database.read(
            lambda connection: work(store, connection, *args, **kwargs)
        )

    return transaction


def parse_url(url: str, name: DatabaseName = LEDGER) -> sa.URL:
    """Read the URL of a ledger, or of another database.

    Raises:
        ConfigurationError: it is of neither database; the text never shows a password.
    """
    expected = f"{name.name}'s URL must be sqlite:///path or postgresql://user@host/database"
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError(expected) from None
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in _SQLITE:
        raise ConfigurationError(f"{expected}, not {parsed.drivername}://")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(f"{expected}; an SQLite database must be a file")
    return parsed.set(drivername="sqlite")


def is_sqlite(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def sqlite_engine(
    address: sa.URL, busy_timeout: timedelta, *, writes: bool, synchronous: str = LEDGER.synchronous
) -> sa.Engine:
    """An engine of a file, which has to exist, that begins transactions explicitly.

    Args:
        busy_timeout: how long to wait for a writer in another process.
        writes: whether it begins transactions; otherwise each statement is one.
    """
    # The driver would create a file that is missing, without the tables.
    path = quote(str(Path(str(address.database)).absolute()))

    def open_file() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{path}?mode=rw", uri=True, check_same_thread=False)

    engine = sa.create_engine(
        address,
        creator=open_file,
        pool_size=_READERS,
        hide_parameters=True,
        json_serializer=json_text,
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # The driver would begin transactions implicitly, late and never IMMEDIATE.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout.total_seconds() * 1000)}")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    if writes:

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            # A transaction that first reads and then writes would fail at once, whatever the busy
            # timeout, if another process has written in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def upsert(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that takes `ON CONFLICT` clauses, which both databases spell alike."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def insert_new(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one of its unique keys exists; waits for a concurrent insert.

    Returns:
        Whether the row was inserted.
    """
    statement = _insert_new(connection.dialect.name, table)
    return connection.execute(statement, row).rowcount == 1


# Building a statement costs as much as executing it, and every call executes this one.
@cache
def _insert_new(dialect: str, table: sa.Table) -> sa.Insert:
    statement = upsert(dialect, table).on_conflict_do_nothing()
    return statement.execution_options(preserve_rowcount=True)


@asynccontextmanager
async def database_errors(
    within: timedelta, password: object = None, name: DatabaseName = LEDGER
) -> AsyncIterator[None]:
    """Raise `LedgerUnavailableError` for a timeout and for errors of the connection or driver.

    Args:
        within: the time limit of everything inside.
        password: removed from the driver's texts.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            yield
    except (TimeoutError, exc.TimeoutError):
        reason = f"{name.name} did not answer within {within.total_seconds():g} s"
        raise LedgerUnavailableError(reason) from None
    except exc.DBAPIError as error:
        if isinstance(error, exc.DataError | exc.IntegrityError):
            raise
        raise unavailable(error, password, name) from None
    except exc.StatementError as error:
        # Of an encrypted column, whose key is not available.
        if isinstance(error.orig, AckbridgeError):
            raise error.orig from None
        raise
    except OSError as error:
        raise LedgerUnavailableError(f"no connection to {name.name}: {error.strerror}") from None


def unavailable(
    error: exc.DBAPIError, password: object, name: DatabaseName = LEDGER
) -> LedgerUnavailableError:
    """The first line of the driver's error, without the password."""
    lines = str(error.orig).strip().splitlines()
    text = lines[0][:300] if lines else type(error.orig).__name__
    if password:
        text = text.replace(str(password), "***")
    if "no such table" in text or ("relation" in text and "does not exist" in text):
        text += f" ({name.missing_tables})"
    return LedgerUnavailableError(f"{name.name} does not answer: {text}")
