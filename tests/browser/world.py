"""A call in a ledger, an API that shows it, and pages that follow it."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn
from temporalio.client import Client

from ackbridge.api.access import ApiParts
from ackbridge.api.app import build_api
from ackbridge.api.event_streams import open_streams
from ackbridge.api.event_tokens import EventTokens
from ackbridge.catalog.catalog import Catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    Effect,
    Notice,
    OutcomeCode,
    OutcomeStatus,
    Stage,
    Timings,
)
from ackbridge.contracts.edge import EdgeLimits, StreamSettings
from ackbridge.contracts.identity import AuthSettings
from ackbridge.contracts.steps import Parking
from ackbridge.gateway.app import build_config, serve_until_stopped
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.http_auth import HttpAuth
from ackbridge.security.secrets import Secrets
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER
from tests.support.api import write_keys

from .network import Network
from .pages import PageServer

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

WITHIN = 15_000
"""Milliseconds."""

_SECRET = "s" * 32


class RestartableApi:
    """The calls API in a thread of its own, on one port, which can be stopped and started again."""

    def __init__(self, ledger_url: str, origin: str, folder: Path) -> None:
        self._ledger_url = ledger_url
        self._settings = StreamSettings(
            secrets="env:STREAMS", origins=origin, poll_every=timedelta(milliseconds=50)
        )
        self._folder = folder
        self.tokens = EventTokens([_SECRET], timedelta(minutes=1), utc_now)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]

    def start(self) -> None:
        """Start it; requests that come too early are refused."""
        write_keys(self._folder / "keys.json", "read")
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()

    def stop(self) -> None:
        """Stop it, as SIGTERM does."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        ledger = Ledger.open(self._ledger_url, utc_now)
        secrets = Secrets({"STREAMS": _SECRET}, Path())
        streams = open_streams(self._settings, secrets, ledger.call_events, utc_now)
        assert streams is not None
        client = await Client.connect("127.0.0.1:1", lazy=True, data_converter=DATA_CONVERTER)
        auth = HttpAuth(AuthSettings(api_keys=self._folder / "keys.json"), utc_now)
        calls = AckbridgeClient(client)
        parts = ApiParts(client, calls, ledger, Catalog({}), auth, utc_now, "dev", streams)
        config = build_config(
            build_api(parts),
            limits=EdgeLimits(),
            host="127.0.0.1",
            port=self.port,
            log_config=None,
        )
        serving = asyncio.create_task(serve_until_stopped(config, streams.hub.close_all))
        await self._stopped.wait()
        uvicorn_server(serving).should_exit = True
        async with asyncio.timeout(5):
            await serving
        await ledger.close()


def uvicorn_server(serving: asyncio.Task[None]) -> uvicorn.Server:
    """The server of a task, which has no other handle than a signal for the whole process."""
    coroutine: Any = serving.get_coro()
    while not isinstance(coroutine.cr_frame.f_locals.get("self"), uvicorn.Server):
        coroutine = coroutine.cr_await
    server: uvicorn.Server = coroutine.cr_frame.f_locals["self"]
    return server


@dataclass
class World:
    """What a test acts on."""

    context: BrowserContext
    pages: PageServer
    ledger: Ledger
    api: RestartableApi
    network: Network
    call_id: str = "sandbox.create_order.o/1"

    async def begin(self) -> None:
        """The call has been started."""
        provider, operation, key = self.call_id.split(".", 2)
        request = CallRequest(provider=provider, operation=operation, key=key)
        await self.ledger.calls.claim(request, "chain-1")

    async def park(self, title: str = "It takes longer") -> None:
        """The call is delayed."""
        await self.ledger.calls.record_stage(
            self.call_id,
            Stage.PARKED,
            "silence",
            None,
            parking=Parking(reason="no_response", times=1),
            effect=Effect.UNKNOWN,
            notice=Notice(kind="delayed", title=title, message="We keep working on it."),
        )

    async def end(self, status: OutcomeStatus, effect: Effect, notice: Notice | None) -> None:
        """The call has an outcome, or another one."""
        outcome = CallOutcome(
            call_id=self.call_id,
            status=status,
            effect=effect,
            code=None if status is OutcomeStatus.COMPLETED else OutcomeCode.NO_RESPONSE,
            notice=notice,
            timings=Timings(started_at=utc_now()),
        )
        await self.ledger.calls.record_stage(self.call_id, Stage(status), None, outcome)

    async def open(self, stream: str | None = None, silent: int = 45_000) -> Page:
        """Open the page of the call in a new tab.

        Args:
            stream: another one than the API's.
            silent: milliseconds of silence after which it connects again.
        """
        page = await self.context.new_page()
        own = f"{self.network.url}/calls/{quote(self.call_id, safe='')}/events"
        followed = quote(stream or own, safe="")
        query = f"call={quote(self.call_id, safe='')}&url={followed}&silent={silent}"
        await page.goto(f"{self.pages.url}/?{query}")
        return page


async def reach(page: Page, name: str, expected: list[Any]) -> None:
    """Wait until a list of the page is what it should be, and see that nothing is added to it."""
    has_all = f"window.{name} && window.{name}.length >= {len(expected)}"
    try:
        await page.wait_for_function(has_all, timeout=WITHIN)
    finally:
        await asyncio.sleep(0.3)
        found = await page.evaluate(f"window.{name}")
        assert found == expected
    assert await page.evaluate("window.problems") == []


connected = partial(reach, name="connections", expected=["open"])
