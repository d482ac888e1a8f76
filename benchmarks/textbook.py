"""What our call is measured against: the engine's floor, and the call as a textbook has it.

Run as a process of its own, it serves both workflows and receives the textbook's callbacks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import workflow_runner

from .orchestration import TASK_QUEUE, Floor, Textbook

READY = "textbook ready"
"""The line that says so."""


@activity.defn(name="nothing")
async def nothing() -> None:
    """Do nothing: what remains is the engine."""


class Steps:
    """The textbook's activities, against the same simulated provider and a database of its own."""

    def __init__(self, client: httpx.AsyncClient, database: Path, callback_url: str) -> None:
        self._client = client
        self._callback_url = callback_url
        self._database = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, response TEXT)")

    @activity.defn(name="prepare")
    async def prepare(self, request: dict[str, Any]) -> None:
        """Claim the key."""
        self._database.execute("INSERT OR IGNORE INTO calls (key) VALUES (?)", (request["key"],))

    @activity.defn(name="send")
    async def send(self, request: dict[str, Any]) -> str:
        """Send the order; the answer is its reference."""
        reply = await self._client.post(
            "/v1/orders",
            json={
                "call_id": request["key"],
                "callback_url": self._callback_url,
                **request["payload"],
            },
            headers={"Idempotency-Key": request["key"]},
        )
        reply.raise_for_status()
        return str(reply.json()["id"])

    @activity.defn(name="record")
    async def record(self, done: dict[str, Any]) -> None:
        """Write the response."""
        self._database.execute(
            "UPDATE calls SET response = ? WHERE key = ? AND response IS NULL",
            (json.dumps(done["response"]), done["key"]),
        )

    @activity.defn(name="acknowledge")
    async def acknowledge(self, done: dict[str, Any]) -> None:
        """Confirm to the provider."""
        reply = await self._client.post(
            f"/v1/orders/{done['reference']}/acknowledgements",
            json={"status": "success", "call_id": done["key"]},
            headers={"Idempotency-Key": f"{done['key']}:success"},
        )
        reply.raise_for_status()

    @property
    def activities(self) -> list[Callable[..., Awaitable[Any]]]:
        """What the worker registers."""
        return [nothing, self.prepare, self.send, self.record, self.acknowledge]


def receiver(client: Client) -> Starlette:
    """The textbook's callback endpoint: every callback becomes a signal."""

    async def callback(request: Request) -> Response:
        event = await request.json()
        try:
            await client.get_workflow_handle(event["call_id"]).signal("callback", event)
        except RPCError as error:
            # A duplicate after the end; refused, it would be sent again and again.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return Response(status_code=200)

    return Starlette(routes=[Route("/", callback, methods=["POST"])])


async def serve(options: argparse.Namespace) -> None:
    """Serve both workflows until SIGTERM."""
    if options.tuned:
        client = await connect(os.environ | {"TEMPORAL_ADDRESS": options.engine})
    else:
        client = await Client.connect(options.engine)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = uvicorn.Server(
        uvicorn.Config(receiver(client), host="127.0.0.1", port=options.port, log_level="critical")
    )
    async with httpx.AsyncClient(
        base_url=options.provider,
        headers={"Authorization": f"Bearer {os.environ['SANDBOX_API_KEY']}"},
        limits=httpx.Limits(max_connections=200),
    ) as http:
        steps = Steps(http, options.database, f"http://127.0.0.1:{options.port}/")
        async with Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[Floor, Textbook],
            activities=steps.activities,
            workflow_runner=workflow_runner() if options.tuned else SandboxedWorkflowRunner(),
        ):
            serving = asyncio.create_task(server.serve())
            print(READY, flush=True)
            await stopped.wait()
            server.should_exit = True
            await serving


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--database", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--tuned", action="store_true", help="run as our own worker does")
    options = parser.parse_args()
    run = uvloop.run if options.tuned else asyncio.run
    run(serve(options))


if __name__ == "__main__":
    main()
