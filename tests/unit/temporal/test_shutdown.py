"""A worker that does not stop does not hold its process up."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Self, cast

import pytest
from temporalio.worker import Worker

from ackbridge.temporal import shutdown
from ackbridge.temporal.shutdown import BoundedShutdown


class Stuck:
    """Stands in for a worker whose core never returns, which cannot be had on request."""

    task_queue = "stuck"

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._failure is not None:
            raise self._failure
        await asyncio.Event().wait()


async def test_a_worker_that_does_not_stop_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The block ends, and the log says which worker it was."""
    monkeypatch.setattr(shutdown, "RESTS_WITHIN", timedelta(milliseconds=1))
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(30), BoundedShutdown(cast("Worker", Stuck())):
            pass
    assert "the worker of stuck does not come to rest" in caplog.text


async def test_a_fatal_error_of_the_worker_is_raised() -> None:
    """What has ended a worker is not swallowed."""
    with pytest.raises(RuntimeError, match="fatal"):
        async with BoundedShutdown(cast("Worker", Stuck(RuntimeError("fatal")))):
            pass
