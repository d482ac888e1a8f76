"""The lanes of other systems; each starts what it needs, in an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psutil
import psycopg

from ackbridge.loopback import HOST, LoopbackPort
from tests.postgres import PostgreSQL, postgresql

from .checking import recorded_in_file, recorded_in_postgresql
from .environments import python_of
from .ground import Ground
from .lanes import PAYLOAD, Lane
from .peers.serving import READY

POLL = 0.01
"""Seconds between two looks of DBOS for messages in SQLite, a second by default."""


@asynccontextmanager
async def dbos_on_postgresql(ground: Ground) -> AsyncIterator[list[Lane]]:
    """DBOS, its system database and the records on one PostgreSQL server."""
    with postgresql() as server:
        system, records = server.new_database(), server.new_database()
        async with _dbos(ground, "dbos-postgresql", system, records) as (url, pid):
            yield [
                Lane(
                    "dbos-postgresql",
                    partial(_through_edge, ground, url),
                    {"engine": (_postmaster(server),), "worker": (pid,)},
                    partial(recorded_in_postgresql, records),
                )
            ]


@asynccontextmanager
async def dbos_on_sqlite(ground: Ground) -> AsyncIterator[list[Lane]]:
    """DBOS, its system database and the records each in a file."""
    records = ground.folder / "dbos-records.db"
    system = f"sqlite:///{ground.folder / 'dbos-system.db'}"
    options = ("--poll", str(POLL))
    async with _dbos(ground, "dbos-sqlite", system, f"sqlite:///{records}", *options) as (url, pid):
        yield [
            Lane(
                "dbos-sqlite",
                partial(_through_edge, ground, url),
                {"worker": (pid,)},
                partial(recorded_in_file, records),
            )
        ]


@asynccontextmanager
async def _dbos(
    ground: Ground, name: str, system: str, records: str, *options: str
) -> AsyncIterator[tuple[str, int]]:
    """DBOS' process; gives its URL and its id."""
    python = await asyncio.to_thread(python_of, "dbos")
    port = LoopbackPort()
    command = (
        *(str(python), "-m", "benchmarks.peers.dbos_service", "--provider", ground.provider_url),
        *("--system", system, "--records", records, "--port", str(port.number), *options),
    )
    async with ground.running(name, command, ready=READY) as child:
        yield f"http://{HOST}:{port.number}", child.pid


async def _through_edge(ground: Ground, url: str, key: str) -> str:
    """One call through the peer's HTTP edge, to its end."""
    await ground.post(f"{url}/calls", {"key": key, "payload": PAYLOAD})
    return key


def _postmaster(server: PostgreSQL) -> int:
    """The process whose children are the connections."""
    with contextlib.closing(psycopg.connect(server.url)) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()
