"""A worker that kills itself (`kill -9`) once at each point a call's key names.

The key `before-send-...` of a call means: die before `send` is performed for it, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

import worker
from ackbridge.catalog import load_catalog
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.controls import watch_controls
from ackbridge.engine import connect
from ackbridge.ledger import Ledger
from ackbridge.settings import load_settings
from ackbridge.transport import build_client


class Deadly(Interceptor):
    """Dies around activities, once for each point; what has happened stands in `marks`."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's own name
        return _Around(next, self._marks)


class _Around(ActivityInboundInterceptor):
    def __init__(self, inner: ActivityInboundInterceptor, marks: Path) -> None:
        super().__init__(inner)
        self._marks = marks

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 -- the SDK's own name
        info = activity.info()
        # The id of a notice is its call's, and a little more.
        call_id = str(info.workflow_id).removeprefix(names.notice_id(""))
        _, _, key = names.split_call_id(call_id)
        self._die(f"before-{info.activity_type}", key)
        result = await self.next.execute_activity(input)
        self._die(f"after-{info.activity_type}", key)
        return result

    def _die(self, point: str, key: str) -> None:
        mark = self._marks / key
        if key.startswith(point) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


async def main(marks: Path) -> None:
    """Serve like the real worker does, until death."""
    settings = load_settings()
    catalog = load_catalog(Path(os.environ["ACKBRIDGE_INTEGRATIONS"]), os.environ)
    client = await connect(os.environ)
    ledger = Ledger.open(settings.ledger_url, utc_now)
    async with build_client() as http, contextlib.AsyncExitStack() as running:
        control = watch_controls(client, catalog)
        provisions = worker.provide(
            settings, os.environ, catalog, ledger, http, control, indexed=True
        )
        for one in worker.build_workers(client, catalog, provisions, interceptors=[Deadly(marks)]):
            await running.enter_async_context(one)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
