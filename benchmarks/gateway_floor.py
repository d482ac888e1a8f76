"""The engine's own ceiling: one client process that does nothing but signal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import uvloop
from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client

from ackbridge.contracts import names
from ackbridge.temporal.connect import connect

from .gateway_load import Answered

PATIENCE = timedelta(seconds=60)


async def signal(messages: list[tuple[str, str, str]], in_flight: int) -> Answered:
    """Signal calls, one message after the other in each of so many lines.

    Args:
        messages: call id, request id and body of each.
        in_flight: how many at once.
    """
    client = await connect(os.environ)
    requests = [await _request(client, *message) for message in messages]
    waiting = iter(requests)
    took: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_line(client, waiting, took) for _ in range(in_flight)))
    return Answered(
        time.perf_counter() - started,
        time.process_time() - cpu,
        {"signalled": len(took)},
        took,
    )


async def _line(
    client: Client, waiting: Iterator[SignalWorkflowExecutionRequest], took: list[float]
) -> None:
    for request in waiting:
        sent = time.perf_counter()
        await client.workflow_service.signal_workflow_execution(request, timeout=PATIENCE)
        took.append((time.perf_counter() - sent) * 1000)


async def _request(
    client: Client, call_id: str, request_id: str, body: str
) -> SignalWorkflowExecutionRequest:
    return SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=call_id),
        signal_name=names.PROVIDER_MESSAGE,
        input=Payloads(payloads=await client.data_converter.encode([json.loads(body)])),
        identity=client.identity,
        request_id=request_id,
    )


def main() -> None:
    """Read messages and how many at once from the file named, and print what came of it."""
    wanted = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(asdict(uvloop.run(signal(wanted["messages"], wanted["in_flight"])))))


if __name__ == "__main__":
    main()
