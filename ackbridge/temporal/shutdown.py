"""Workers that come to rest within a bounded time."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from types import TracebackType

from temporalio.worker import Worker

log = logging.getLogger(__name__)

RESTS_WITHIN = timedelta(seconds=15)
"""How long a worker may take to stop, once its activities had their time."""


class BoundedShutdown:
    """Runs a worker while the block runs; a context manager like the worker itself.

    The SDK's core may wait for ever when it shuts down (seen with temporalio 1.35 in one of a
    dozen runs under load: every task of ours had ended, and it did not return). By then the worker
    polls no more, and what it had in hand is the engine's to give to another one.
    """

    def __init__(self, worker: Worker, grace: timedelta = timedelta(0)) -> None:
        """Take the worker, and the time its running activities have to finish."""
        self._worker = worker
        self._within = grace + RESTS_WITHIN

    async def __aenter__(self) -> Worker:
        """Start it; a fatal error of its cancels the block."""
        return await self._worker.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, or leave it behind and say so; raises its fatal error if there was one."""
        stopping = asyncio.create_task(self._worker.__aexit__(kind, error, traceback))
        done, _ = await asyncio.wait({stopping}, timeout=self._within.total_seconds())
        if not done:
            log.warning("the worker of %s does not come to rest", self._worker.task_queue)
            return
        await stopping
