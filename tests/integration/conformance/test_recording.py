"""`ackbridge try` and `ackbridge record`: real exchanges become examples, without secrets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ackbridge.sandbox.fault_rates import Rates
from ackbridge.sandbox.provider import create_provider
from tests.support.processes import run_command, started
from tests.support.sandbox_client import CallbackReceiver
from tests.support.serving import serve

API_KEY = "api-key-of-this-test"
WEBHOOK_SECRET = "webhook-secret-of-this-test"
ORDER = {"amount": 5, "currency": "EUR"}


@pytest.fixture
def provider_url() -> Iterator[str]:
    """A simulated provider."""
    with serve(create_provider(API_KEY, WEBHOOK_SECRET, Rates(delay_ms=0))) as url:
        yield url


def environ(provider_url: str) -> dict[str, str]:
    """Of a command that knows the provider."""
    known = {"SANDBOX_BASE_URL": provider_url, "SANDBOX_API_KEY": API_KEY}
    return {**os.environ, **known, "SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET}


def test_try_shows_one_exchange_and_what_it_means(provider_url: str, tmp_path: Path) -> None:
    """The request of a call is sent once; the credentials are masked."""
    saved = tmp_path / "new" / "order.json"
    tried = ("try", "sandbox", "create_order", "--key", "o-1", "--payload", json.dumps(ORDER))
    done = run_command(environ(provider_url), *tried, "--save", str(saved))
    assert done.returncode == 0, done.stderr
    assert "idempotency-key: sandbox.create_order.o-1:1" in done.stdout
    assert "authorization: ***" in done.stdout
    assert API_KEY not in done.stdout + done.stderr
    works = httpx.get(f"{provider_url}/_works").json()
    assert len(works) == 1
    assert done.stdout.endswith(f"receipt of create_order, reference {works[0]['id']}\n")
    example = json.loads(saved.read_text())
    assert example["means"] == {"kind": "receipt", "reference": works[0]["id"]}
    again = run_command(environ(provider_url), *tried, "--save", str(saved))
    assert again.returncode == 2
    assert "File exists" in again.stderr
    asked = ("--send", "status", "--reference", works[0]["id"], "--json")
    done = run_command(environ(provider_url), *tried[:-2], *asked)
    assert json.loads(done.stdout)["example"]["means"]["kind"] == "success"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("shop", "create_order"), 2, "unknown provider 'shop'"),
        (("sandbox", "order"), 2, "unknown operation 'order'"),
        (("sandbox", "create_order", "--payload", "{}"), 2, "payload"),
        (("sandbox", "quote", "--send", "success"), 2, "operation quote sends none"),
        (("sandbox", "create_order", "--payload", json.dumps(ORDER)), 4, "could not connect"),
    ],
)
def test_try_says_what_is_wrong(arguments: tuple[str, ...], code: int, complaint: str) -> None:
    """In one line; nothing is sent for invalid input."""
    done = run_command(environ("http://127.0.0.1:1"), "try", *arguments, "--key", "k")
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def recorder(provider_url: str, gateway_url: str, folder: Path) -> Iterator[str]:
    """`ackbridge record` as a process."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ackbridge", "record", "sandbox", "--port", str(port)]
    options = ["--gateway", gateway_url, "--into", str(folder), "--every"]
    with started(
        [*command, *options],
        env=environ(provider_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        url = f"http://127.0.0.1:{port}"
        while running.poll() is None:
            try:
                httpx.get(f"{url}/healthz")
            except httpx.ConnectError:
                time.sleep(0.1)
            else:
                break
        yield url
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=30)
        assert "Traceback" not in said
        assert running.returncode in (0, 130)


def test_record_writes_examples_of_what_passes(provider_url: str, tmp_path: Path) -> None:
    """Requests reach the provider and callbacks the gateway; what the gateway rejects is left."""
    gateway = CallbackReceiver()
    with serve(gateway) as gateway_url, recorder(provider_url, gateway_url, tmp_path) as url:
        order = {
            **ORDER,
            "call_id": "sandbox.create_order.k",
            "callback_url": f"{url}/callbacks/sandbox",
        }
        headers = {
            "Authorization": f"Bearer {API_KEY}",
            "Idempotency-Key": "sandbox.create_order.k:1",
        }
        placed = httpx.post(f"{url}/v1/orders", json=order, headers=headers)
        assert placed.status_code == 202
        gateway.take("/callbacks/sandbox")
        gateway.answers["/callbacks/sandbox"] = lambda _callback: 401
        httpx.post(f"{url}/callbacks/sandbox", json={"type": "order.failed"})
        asked = httpx.get(f"{url}/v1/orders/{placed.json()['id']}", headers=headers)
        assert asked.json()["status"] == "completed"
    examples: dict[str, Any] = {
        path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()
    }
    assert examples.keys() == {
        "create_order-request-receipt.json",
        "create_order-callback-success.json",
        "create_order-status-success.json",
    }
    said = examples["create_order-callback-success.json"]
    assert said["means"]["call_id"] == "sandbox.create_order.k"
    assert said["delivery"]["body"]["type"] == "order.completed"
    assert "x-sandbox-signature" not in said["delivery"]["headers"]
    assert API_KEY not in json.dumps(examples)
