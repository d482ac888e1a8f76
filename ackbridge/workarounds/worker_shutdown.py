"""Shut a worker down within a bounded time; see the package for when this can go."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from types import TracebackType

from temporalio.worker import Worker

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = timedelta(seconds=15)
"""How long a worker may take to shut down after the grace period of its activities."""


class BoundedShutdown:
    """Run a worker while the block runs; a context manager like the worker itself.

    `Worker.shutdown` may never return (temporalio 1.35, in one of a dozen runs under load, after
    every task of ours had ended). By then the worker no longer polls, and the server gives its open
    tasks to another worker.
    """

    def __init__(self, worker: Worker, grace: timedelta = timedelta(0)) -> None:
        self._worker = worker
        self._timeout = grace + SHUTDOWN_TIMEOUT

    async def __aenter__(self) -> Worker:
        return await self._worker.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut the worker down, or log that it took too long; raises its fatal error."""
        shutdown = asyncio.create_task(self._worker.__aexit__(kind, error, traceback))
        done, _ = await asyncio.wait({shutdown}, timeout=self._timeout.total_seconds())
        if not done:
            log.warning(
                "worker for queue %s did not shut down within %g s; exiting without it",
                self._worker.task_queue,
                self._timeout.total_seconds(),
            )
            return
        await shutdown
