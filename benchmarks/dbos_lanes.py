"""The lanes on DBOS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psutil

from ackbridge.local.ports import HOST, LoopbackPort
from benchmarks.peers.http_server import READY
from tests.support.postgres import postgresql

from .checks import recorded_in_file, recorded_in_postgresql
from .environments import python_of
from .lanes import Lane
from .processes import postmaster
from .testbed import Ground

POLL = 0.01
"""Seconds between two looks of DBOS for messages in SQLite, a second by default."""


@asynccontextmanager
async def dbos_on_postgresql(
    ground: Ground, name: str = "dbos-postgresql", *, pinned: bool = False
) -> AsyncIterator[list[Lane]]:
    """DBOS, its system database and the records on one PostgreSQL server.

    Args:
        pinned: DBOS' process keeps to one core, so that its threads do not fight for the
            interpreter across cores; Linux only.
    """
    with postgresql() as server:
        system, records = server.new_database(), server.new_database()
        async with _dbos(ground, name, system, records) as (url, pid):
            if pinned:
                _pin(pid)
            yield [
                Lane(
                    name,
                    partial(ground.through_edge, url),
                    {"engine": (postmaster(server.url),), "worker": (pid,)},
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
                partial(ground.through_edge, url),
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


def _pin(pid: int) -> None:
    """Keep every thread of a process on one core."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, {0})
