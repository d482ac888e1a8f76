"""`python -m benchmarks.api`: starts a second through the calls API, and through the client.

No worker runs: what is measured is the start alone, at the same durability in both lanes. Rounds
alternate, on one engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.identity import Role
from ackbridge.ledger.database.migrate import migrate
from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import ManagedProcess
from ackbridge.local.stack import Stack
from ackbridge.security.http_auth import new_api_key, write_api_keys
from ackbridge.temporal.connect import connect

from .gateway_load import Answered, Load
from .lanes import PAYLOAD
from .processes import cpu_seconds
from .testbed import CHECKOUT

TARGET: Final = 0.6
STARTS_WITHIN: Final = 60.0
"""Seconds."""
WARM_UP: Final = 100


def main() -> int:
    """Measure, and print; exit 1 below the target."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ackbridge-api-") as name:
        folder = Path(name)
        stack = Stack(folder / "state", environ=os.environ, parts=("engine",))
        with stack:
            migrate(stack.environment["ACKBRIDGE_LEDGER_URL"])
            with _api(stack, folder) as (port, key, process):
                return asyncio.run(_measure(stack, folder, port, key, process, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=1500, help="in each round of each lane")
    parser.add_argument("--in-flight", type=int, default=32, help="starts at the same time")
    return parser.parse_args()


async def _measure(
    stack: Stack,
    folder: Path,
    port: int,
    key: str,
    process: ManagedProcess,
    options: argparse.Namespace,
) -> int:
    calls = AckbridgeClient(await connect(stack.environment))
    await _through_client(calls, WARM_UP, options.in_flight)
    await _through_api(folder, port, key, WARM_UP, options.in_flight)
    direct, api, used = [], [], []
    for number in range(options.rounds):
        direct.append(await _through_client(calls, options.calls, options.in_flight))
        before = cpu_seconds([process.pid])
        answered = await _through_api(folder, port, key, options.calls, options.in_flight)
        used.append((cpu_seconds([process.pid]) - before) * 1000 / options.calls)
        if answered.codes != {"202": options.calls}:
            print(f"not every start was a 202: {answered.codes}", file=sys.stderr)
            return 1
        api.append(options.calls / answered.seconds)
        print(f"round {number + 1}: client {direct[-1]:,.0f}/s, API {api[-1]:,.0f}/s", flush=True)
    ratio = statistics.median(api) / statistics.median(direct)
    print(
        f"median: client {statistics.median(direct):,.0f}/s, API {statistics.median(api):,.0f}/s,"
        f" ratio {ratio:.2f} (target {TARGET});"
        f" the API uses {statistics.median(used):.2f} ms of CPU a start"
    )
    return 0 if ratio >= TARGET else 1


async def _through_client(calls: AckbridgeClient, count: int, in_flight: int) -> float:
    """Starts a second."""
    requests = iter([_request() for _ in range(count)])

    async def start() -> None:
        for request in requests:
            await calls.start(request)

    began = time.perf_counter()
    await asyncio.gather(*(start() for _ in range(in_flight)))
    return count / (time.perf_counter() - began)


async def _through_api(folder: Path, port: int, key: str, count: int, in_flight: int) -> Answered:
    """Send the same, from a process of its own."""
    load = Load(port, "/calls", [_post(key) for _ in range(count)], in_flight)
    file = folder / "load.json"
    file.write_text(json.dumps(asdict(load)))
    sender = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateway_load", str(file)),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await sender.communicate()
    return Answered(**json.loads(output))


def _request() -> CallRequest:
    return CallRequest(
        provider="sandbox", operation="create_order", key=uuid.uuid4().hex, payload=PAYLOAD
    )


def _post(key: str) -> tuple[dict[str, str], str]:
    request = _request()
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": request.key}
    body = {"provider": request.provider, "operation": request.operation, "payload": PAYLOAD}
    return headers, json.dumps(body)


@contextmanager
def _api(stack: Stack, folder: Path) -> Iterator[tuple[int, str, ManagedProcess]]:
    """The API in a process of its own; gives its port and a key."""
    key, entry = new_api_key(
        "bench", "bench", frozenset({Role.START}), utc_now() + timedelta(days=1)
    )
    write_api_keys(folder / "api-keys.json", (entry,))
    port = LoopbackPort().number
    process = ManagedProcess(
        [sys.executable, "-m", "ackbridge", "api", "--port", str(port)],
        environ={
            **stack.environment,
            "ACKBRIDGE_AUTH_API_KEYS": str(folder / "api-keys.json"),
            "PYTHONPATH": str(CHECKOUT),
        },
        log=folder / "api.log",
        folder=folder,
    )
    process.start()
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
        yield port, key, process
    finally:
        process.stop(timedelta(seconds=10))


def _wait_until_ready(url: str, process: ManagedProcess) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and process.is_running:
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the API did not start:\n{process.tail()}")


if __name__ == "__main__":
    sys.exit(main())
