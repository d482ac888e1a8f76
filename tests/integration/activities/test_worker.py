"""worker.py: starting while the engine is down, and what it warns of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.settings import WORKER_READY

from .world import ACME, unreachable_url

SHOP = """
subscriber: shop
url: http://127.0.0.1:9/notices
secrets: ["env:SHOP_SECRET"]
"""


@contextmanager
def worker(folder: Path, address: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A worker without its secrets, and the files of its output and its errors."""
    files = folder / "integrations"
    (files / "subscribers").mkdir(parents=True)
    (files / "acme.yaml").write_text(ACME)
    (files / "subscribers" / "shop.yaml").write_text(SHOP)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")},
        "ACME_URL": "http://127.0.0.1:9",
        "ACKBRIDGE_INTEGRATIONS": str(files),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "TEMPORAL_ADDRESS": address,
    }
    out, err = folder / "out", folder / "err"
    with (
        out.open("wb") as output,
        err.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "worker.py"], env=environ, stdout=output, stderr=errors
        ) as process,
    ):
        try:
            yield process, out, err
        finally:
            process.kill()


def wait_for(text: str, file: Path) -> str:
    """What a file contains, as soon as it contains a text."""
    deadline = time.monotonic() + 60
    while text not in (content := file.read_text()):
        assert time.monotonic() < deadline, content
        time.sleep(0.05)
    return content


def test_worker_waits_for_the_engine(tmp_path: Path) -> None:
    """It says so, and serves once the engine is there."""
    address = unreachable_url().removeprefix("http://")
    with worker(tmp_path, address) as (process, out, err):
        wait_for(f"no Temporal server answers at {address}", err)
        assert out.read_text() == ""
        port = int(address.rpartition(":")[2])
        with EmbeddedEngine(tmp_path / "engine.db", port=port, headless=True):
            wait_for(WORKER_READY, out)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_worker_stops(tmp_path: Path, number: signal.Signals) -> None:
    """As any other worker does, with exit status 0."""
    with worker(tmp_path, unreachable_url().removeprefix("http://")) as (process, _, err):
        wait_for("trying again", err)
        process.send_signal(number)
        assert process.wait(30) == 0


def test_worker_warns_of_missing_secrets(tmp_path: Path) -> None:
    """Of those that a worker needs, and of nothing else: the gateway verifies callbacks."""
    with worker(tmp_path, unreachable_url().removeprefix("http://")) as (_, _, err):
        said = wait_for("trying again", err)
    assert "acme: env:ACME_TOKEN: is not set" in said
    assert "shop: env:SHOP_SECRET: is not set" in said
    assert "ACME_HOOK" not in said
