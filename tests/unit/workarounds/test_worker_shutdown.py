"""A worker that does not shut down does not block its process."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Self, cast

import pytest
from temporalio.worker import Worker

from ackbridge.workarounds import temporal_sdk
from ackbridge.workarounds.temporal_sdk import BoundedShutdown


class Stuck:
    """A worker whose shutdown never returns, which cannot be provoked in a real one."""

    task_queue = "stuck"

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._failure is not None:
            raise self._failure
        await asyncio.Event().wait()


async def test_worker_that_does_not_shut_down_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The block ends, and the log names the queue."""
    monkeypatch.setattr(temporal_sdk, "SHUTDOWN_TIMEOUT", timedelta(milliseconds=1))
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(30), BoundedShutdown(cast("Worker", Stuck())):
            pass
    assert "worker for queue stuck did not shut down within" in caplog.text


async def test_a_fatal_error_of_the_worker_is_raised() -> None:
    """The fatal error of a worker is raised again."""
    with pytest.raises(RuntimeError, match="fatal"):
        async with BoundedShutdown(cast("Worker", Stuck(RuntimeError("fatal")))):
            pass
