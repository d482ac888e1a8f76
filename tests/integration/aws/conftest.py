"""AWS, played by moto in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import boto3
import httpx
import pytest

from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import ManagedProcess


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead any AWS SDK to it."""
    folder, port = tmp_path_factory.mktemp("aws"), LoopbackPort()
    url = f"http://127.0.0.1:{port.number}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port.number)]
    server = ManagedProcess(command, environ={}, log=folder / "moto.log", folder=folder)
    server.start()
    try:
        _wait_until_ready(f"{url}/moto-api/", server)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.stop(timedelta(seconds=5))


@pytest.fixture
def aws_environment(aws: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, also in the environment of this process."""
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return aws


def _wait_until_ready(url: str, server: ManagedProcess) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=1)
        except httpx.HTTPError:
            assert server.is_running, server.tail()
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"moto does not answer: {server.tail()}")
