"""The four steps as one DBOS workflow, with the callback by `send` and `recv`."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID

from .http_server import serve_edge
from .provider import Provider
from .records import Records, open_records

Run = Callable[[str, dict[str, Any]], Awaitable[None]]

DEADLINE = 30.0
"""Seconds."""
TOPIC = "response"
POOL = 40
"""Connections to the system database; 20 by default, of which a loaded process runs short."""
RECORD_CONNECTIONS = 8


def define_call(provider: Provider, records: Records, callback_url: str) -> Run:
    """The workflow; its steps are functions, because DBOS registers no bound methods."""

    @DBOS.step()
    async def prepare(key: str) -> None:
        await records.claim(key)

    @DBOS.step()
    async def send(key: str, payload: dict[str, Any]) -> str:
        return await provider.send(key, payload, callback_url)

    @DBOS.step()
    async def record(key: str, response: dict[str, Any]) -> None:
        await records.record(key, response)

    @DBOS.step()
    async def acknowledge(key: str, reference: str) -> None:
        await provider.acknowledge(key, reference)

    @DBOS.workflow()
    async def run(key: str, payload: dict[str, Any]) -> None:
        await prepare(key)
        reference = await send(key, payload)
        response = await DBOS.recv_async(TOPIC, timeout_seconds=DEADLINE)
        if response is None:
            raise TimeoutError(f"{key}: no response within {DEADLINE} s")
        await record(key, response)
        await acknowledge(key, reference)

    return run


@sa.event.listens_for(sa.Engine, "connect")
def _tune(connection: Any, _record: Any) -> None:
    """SQLite in the mode of Ackbridge's own embedded engine; DBOS leaves it as it comes."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    provider = Provider(options.provider)
    records = await open_records(options.records, RECORD_CONNECTIONS)
    config: DBOSConfig = {
        "name": "benchmark",
        "system_database_url": options.system,
        "sys_db_pool_size": POOL,
        "log_level": "ERROR",
    }
    if options.poll:
        config["notification_listener_polling_interval_sec"] = options.poll
    DBOS(config=config)
    run = define_call(provider, records, f"http://127.0.0.1:{options.port}/callbacks")
    DBOS.launch()

    async def start(asked: dict[str, Any]) -> None:
        with SetWorkflowID(asked["key"]):
            await run(asked["key"], asked["payload"])

    async def callback(event: dict[str, Any]) -> None:
        # The key lets the system database drop a duplicate.
        await DBOS.send_async(event["call_id"], event, TOPIC, idempotency_key=event["event_id"])

    try:
        await serve_edge(options.port, start, callback)
    finally:
        await asyncio.to_thread(DBOS.destroy)
        await records.close()
        await provider.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", required=True, help="its URL")
    parser.add_argument("--system", required=True, help="URL of DBOS' system database")
    parser.add_argument("--records", required=True, help="URL of the database with the responses")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--poll", type=float, help="seconds between looks for messages (SQLite)")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
