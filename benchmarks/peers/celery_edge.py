"""Celery's HTTP edge: it claims calls, records responses, and starts the tasks between."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from .celery_app import CREATE, DONE, acknowledge, send
from .http_server import serve_edge

CONNECTIONS = 8


class Edge:
    """Calls in, callbacks in, and who waits for which call."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def start(self, asked: dict[str, Any]) -> None:
        """Claim the call, have it sent, and wait for its end."""
        key, payload = asked["key"], asked["payload"]
        ended = self._waiting[key] = asyncio.get_running_loop().create_future()
        async with self._pool.connection() as connection:
            claimed = await connection.execute(
                "INSERT INTO calls (key, payload, state) VALUES (%s, %s, 'new')"
                " ON CONFLICT DO NOTHING",
                (key, json.dumps(payload)),
            )
        if claimed.rowcount:
            send.delay(key, payload)
        await ended

    async def callback(self, event: dict[str, Any]) -> None:
        """Record the response, and have it acknowledged; a duplicate changes nothing."""
        key = event["call_id"]
        async with self._pool.connection() as connection:
            recorded = await connection.execute(
                "UPDATE calls SET response = %s, state = 'answered', changed_at = now()"
                " WHERE key = %s AND response IS NULL",
                (json.dumps(event), key),
            )
        if recorded.rowcount:
            acknowledge.delay(key, event["order"]["id"])

    async def listen(self, redis: Redis) -> None:
        """Release those who wait."""
        async with redis.pubsub() as channel:
            await channel.subscribe(DONE)
            async for message in channel.listen():
                if message["type"] == "message":
                    ended = self._waiting.pop(message["data"].decode(), None)
                    if ended is not None:
                        ended.set_result(None)


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    pool = AsyncConnectionPool(
        os.environ["PEER_DATABASE"],
        kwargs={"autocommit": True},
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        open=False,
    )
    async with pool, Redis.from_url(os.environ["PEER_REDIS"]) as redis:
        async with pool.connection() as connection:
            await connection.execute(CREATE)
        edge = Edge(pool)
        listening = asyncio.create_task(edge.listen(redis))
        await serve_edge(port, edge.start, edge.callback)
        listening.cancel()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True, type=int)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
