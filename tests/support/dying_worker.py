"""A worker that kills itself (`kill -9`) once at each point a call's key names.

The key `before-send-...` of a call means: die before `send` is performed for it, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

import worker
from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control_startup import watch_controls
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.steps import AcknowledgeStep, SendStep
from ackbridge.http.client import build_client
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import load_settings
from ackbridge.temporal.connect import connect
from activities.acknowledge import Acknowledge
from activities.send import Send


class Deadly(Interceptor):
    """Dies around steps, once for each point; what has happened stands in `marks`.

    A send and an acknowledgement may ride along with another activity: they are wrapped inside.
    """

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self._wrap(Send, "_send", names.SEND)
        self._wrap(Acknowledge, "_acknowledge", names.ACKNOWLEDGE)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 -- the SDK's own name
        return _Around(next, self.die)

    def die(self, when: str, step: str, key: str) -> None:
        """Die, if that is the point that the key names."""
        mark = self._marks / key
        if key.startswith(f"{when}-{step}-") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrap(self, performer: type, method: str, step: str) -> None:
        inner = getattr(performer, method)

        async def around(this: Any, argument: SendStep | AcknowledgeStep, *more: Any) -> Any:
            self.die("before", step, argument.request.key)
            result = await inner(this, argument, *more)
            self.die("after", step, argument.request.key)
            return result

        setattr(performer, method, around)


class _Around(ActivityInboundInterceptor):
    def __init__(
        self, inner: ActivityInboundInterceptor, die: Callable[[str, str, str], None]
    ) -> None:
        super().__init__(inner)
        self._die = die

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 -- the SDK's own name
        info = activity.info()
        if info.workflow_type not in (names.INTEGRATION_CALL, names.DELIVER_NOTICE):
            return await self.next.execute_activity(input)
        # The id of a notice is its call's, and a little more.
        call_id = str(info.workflow_id).removeprefix(names.notice_id(""))
        _, _, key = names.split_call_id(call_id)
        self._die("before", info.activity_type, key)
        result = await self.next.execute_activity(input)
        self._die("after", info.activity_type, key)
        return result


def main(arguments: list[str]) -> None:
    """Serve like the real worker does, until death; the argument is the folder of the marks."""
    asyncio.run(_serve(Path(*arguments)))


async def _serve(marks: Path) -> None:
    settings = load_settings()
    catalog = load_catalog(Path(os.environ["ACKBRIDGE_INTEGRATIONS"]), os.environ)
    client = await connect(os.environ)
    ledger = Ledger.open(settings.ledger_url, utc_now)
    async with build_client() as http, contextlib.AsyncExitStack() as running:
        control = watch_controls(client, catalog, ledger)
        deps = worker.build_dependencies(
            settings, os.environ, catalog, ledger, http, control, has_search_attributes=True
        )
        for one in worker.build_workers(client, catalog, deps, interceptors=[Deadly(marks)]):
            await running.enter_async_context(one)
        await asyncio.Event().wait()
