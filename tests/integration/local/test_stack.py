"""The whole stack as processes, as `up` and `demo` run it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest
from ackbridge.local.processes import ProcessDiedError
from ackbridge.local.stack import PARTS, SHOP, Stack
from ackbridge.settings import app_folder
from tests.support.processes import started

pytestmark = pytest.mark.slow

TIMEOUT = timedelta(seconds=30)
STRIPE = {"amount": 5, "currency": "EUR"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        # What belongs to other deployments must not get through.
        environ={**os.environ, "TEMPORAL_ADDRESS": "nowhere:1", "ACKBRIDGE_LOG_LEVEL": "nonsense"},
        sandbox_options=("--rates", '{"delay_ms": 1}'),
        parts=(*PARTS, SHOP),
    ) as running:
        yield running


async def complete(stack: Stack, provider: str, operation: str, key: str, payload: Any) -> Any:
    """Make a call and wait for its response."""
    calls = await AckbridgeClient.connect(stack.environment)
    request = CallRequest(provider=provider, operation=operation, key=key, payload=payload)
    status = await calls.start_and_wait(request, TIMEOUT)
    assert status.outcome is not None, status
    assert status.outcome.status == "completed", status
    return status.outcome.response


@pytest.mark.parametrize("behaviour", [{}, {"early": True}, {"duplicates": 3}])
async def test_order_passes_through_every_part(stack: Stack, behaviour: dict[str, Any]) -> None:
    """Request, receipt, callback and acknowledgement between real processes."""
    key = f"order-{'-'.join(behaviour)}"
    payload = {"amount": 5, "currency": "EUR", "behaviour": behaviour}
    response = await complete(stack, "sandbox", "create_order", key, payload)
    assert response["status"] == "completed"


OVERCOME: list[dict[str, Any]] = [
    {"throttle": 1, "retry_after": 0},
    {"receipt_failures": 1},
    {"resets": 1},
    {"lost_receipts": 1},
    {"closed_receipts": 1},
    {"reset_receipts": 1},
    {"forged": True, "malformed": True},
    {"lost_callbacks": 2, "duplicates": 1},
    {"contradictory": "completed"},
    {"fail": 1, "retryable": True},
    {"extend_ms": 100, "extensions": 2},
    {"acknowledgement_failures": 1, "lost_acknowledgements": 1},
]


async def test_calls_complete_despite_faults(stack: Stack) -> None:
    """Each call completes, with the work of its last cycle done once and acknowledged."""
    client = await AckbridgeClient.connect(stack.environment)
    calls = [
        await client.start(
            CallRequest(
                provider="sandbox",
                operation="create_order",
                key=f"overcome-{number}",
                payload={"amount": 5, "currency": "EUR", "behaviour": behaviour},
            )
        )
        for number, behaviour in enumerate(OVERCOME)
    ]
    outcomes = await asyncio.gather(*(call.outcome(TIMEOUT, settled=True) for call in calls))
    assert {outcome.status for outcome in outcomes} == {"completed"}
    assert not any(outcome.acknowledgement_owed for outcome in outcomes)
    async with httpx.AsyncClient(base_url=stack.addresses.sandbox, trust_env=False) as http:
        for number, behaviour in enumerate(OVERCOME):
            call = {"call_id": f"sandbox.create_order.overcome-{number}"}
            works = (await http.get("/_works", params=call)).json()
            assert [work["cycle"] for work in works] == [1, 2][: len(works)], behaviour
            assert len(works) == 1 + behaviour.get("fail", 0), behaviour
            assert works[-1]["acknowledged"] == "success", behaviour


async def test_report_is_polled(stack: Stack) -> None:
    """There is no callback; the worker polls, and acknowledges."""
    payload = {"subject": "sales", "behaviour": {"delay_ms": 300, "status_failures": 1}}
    response = await complete(stack, "sandbox", "create_report", "report", payload)
    assert (response["subject"], response["status"]) == ("sales", "completed")


async def test_booking_that_fails_once_completes(stack: Stack) -> None:
    """A retryable failure opens the next cycle, under a new key."""
    behaviour = {"fail": 1, "retryable": True}
    payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
    response = await complete(stack, "sandbox", "create_booking", "booking", payload)
    assert response["room"] == "attic"


async def test_payment_through_localstripe(stack: Stack) -> None:
    """Its webhook was registered at the start."""
    response = await complete(stack, "stripe", "create_payment", "payment", STRIPE)
    assert response["status"] == "succeeded"


async def test_page_of_the_shop_is_told_what_happens(stack: Stack) -> None:
    """Its backend speaks to the calls API alone; with its token the page follows its booking."""
    async with httpx.AsyncClient(base_url=stack.addresses.shop, trust_env=False) as http:
        assert "<title>" in (await http.get("/")).text
        assert "followCall" in (await http.get("/ackbridge-events.js")).text
        body = {"room": "Room 7", "scenario": "failed"}
        booking = (await http.post("/bookings", json=body)).raise_for_status().json()
        path = f"/bookings/{booking['id']}/event-token"
        token = (await http.post(path)).raise_for_status().json()["token"]
        # It ends by itself after the last event.
        stream = await http.get(booking["url"], headers={"Authorization": f"Bearer {token}"})
    assert '"type":"call.failed"' in stream.text
    assert "Choose another room" in stream.text


async def test_every_part_can_be_killed_and_restarted(stack: Stack) -> None:
    """With the same addresses; `check` ignores parts that were killed on purpose."""
    for part in PARTS:
        stack.kill(part)
        stack.check()
        stack.restart(part)
        stack.check()
    response = await complete(stack, "stripe", "create_payment", "payment-after", STRIPE)
    assert response["status"] == "succeeded"
    await complete(stack, "sandbox", "quote", "quote-after", STRIPE)


def test_part_that_dies_is_reported_with_the_end_of_its_log(stack: Stack) -> None:
    """The error names the part and its log."""
    os.kill(stack.pid("sandbox"), signal.SIGKILL)
    with pytest.raises(
        ProcessDiedError, match=r"sandbox ended with -9; the end of its log, .*sandbox\.log"
    ):
        _check_for(stack, seconds=30)
    stack.restart("sandbox")
    stack.check()


def _check_for(stack: Stack, seconds: float) -> None:
    """Check repeatedly: the end of a process is known with a delay."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack.check()
        time.sleep(0.05)


def test_files_of_a_stack_are_private(stack: Stack) -> None:
    """The ledger, the engine's state, locks, logs and the folder: only their owner reads them."""
    state = stack.log("worker").parents[1]
    files = [path for path in (state, *state.rglob("*")) if not path.is_symlink()]
    open_to_others = [path for path in files if path.stat().st_mode & 0o077]

    assert open_to_others == []
    assert len(files) > 8


def test_secrets_are_not_in_logs(stack: Stack) -> None:
    """Nor in command lines, which every user of the machine can read."""
    secrets = [
        value for name, value in stack.environment.items() if name.endswith(("_KEY", "_SECRET"))
    ]
    assert len(secrets) >= 4
    for part in PARTS:
        told = stack.log(part).read_text() + " ".join(psutil.Process(stack.pid(part)).cmdline())
        assert not [secret for secret in secrets if secret in told]


def test_part_that_cannot_start_stops_all_others(tmp_path: Path) -> None:
    """The error ends with the output of that part."""
    stack = Stack(
        tmp_path, environ=os.environ, parts=("sandbox",), sandbox_options=("--no-such-option",)
    )
    with pytest.raises(ProcessDiedError, match="unrecognized arguments: --no-such-option"):
        stack.start()
    assert not psutil.pid_exists(stack.pid("engine"))


def test_preferred_port_is_used_if_free(tmp_path: Path) -> None:
    """Otherwise another one."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        crowded = Stack(tmp_path, environ={}, preferred_ports={"gateway": taken})
        assert crowded.addresses.gateway != f"http://127.0.0.1:{taken}"
    del crowded
    free = Stack(tmp_path, environ={}, preferred_ports={"gateway": taken})
    assert free.addresses.gateway == f"http://127.0.0.1:{taken}"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal")
def test_kill_9_of_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    """Every part ends with the process that started it."""
    program = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from ackbridge.local.stack import PARTS, Stack
        stack = Stack(Path({str(tmp_path)!r}), environ=os.environ)
        stack.start()
        print(*(stack.pid(part) for part in PARTS), flush=True)
        sys.stdin.read()
        """
    )
    with started(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=app_folder(),
    ) as supervisor:
        assert supervisor.stdout is not None
        parts = [psutil.Process(int(pid)) for pid in supervisor.stdout.readline().split()]
        assert len(parts) == len(PARTS)
        os.kill(supervisor.pid, signal.SIGKILL)
        assert psutil.wait_procs(parts, timeout=30)[1] == []
