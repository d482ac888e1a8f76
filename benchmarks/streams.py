"""Many open streams of events on one process: `python -m benchmarks.streams`.

The server is `ackbridge api` with an SQLite ledger. Each stream follows a call of its own. What is
measured: memory and CPU of the server while nothing happens, how long an event takes from its
commit in the ledger to the page, and how long all pages need to come back after a restart.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

from ackbridge.api.event_tokens import EventTokens
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallRequest, Effect, Notice, Stage
from ackbridge.contracts.steps import Parking
from ackbridge.gateway.connections import allow_many_files
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.local.processes import StackProcess, api_plan
from ackbridge.security.http_auth import write_api_keys

from .measurement import quantiles
from .processes import cpu_seconds, memory

SECRET = "s" * 32
NOTICE = Notice(kind="delayed", title="Later", message="We keep working on it.")
AT_ONCE = 200
"""Connections that are opened at the same time."""

QUIET_FOR = 20.0
"""Seconds for which the server is watched while nothing happens."""


@dataclass
class Page(asyncio.Protocol):
    """One connection, which is opened again when it is lost, as a page does."""

    target: tuple[str, int]
    request: bytes
    got_at: list[float] = field(default_factory=list)
    is_open: bool = False
    is_closed: bool = False

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_closed:
            try:
                await loop.create_connection(lambda: self, *self.target)
            except OSError:
                await asyncio.sleep(0.5)
            else:
                return

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- what TCP gives
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"200 OK" in data[:20]:
            self.is_open = True
        if b"data: " in data:
            self.got_at.append(time.perf_counter())

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        if not self.is_closed:
            self._again = asyncio.ensure_future(self.connect())

    def close(self) -> None:
        self.is_closed = True
        if self.is_open:
            self._transport.abort()


def _pages(url: str, calls: Sequence[str], tokens: EventTokens) -> list[Page]:
    at = urlsplit(url)
    target = (str(at.hostname), int(at.port or 80))
    return [
        Page(
            target,
            f"GET /calls/{quote(one, safe='')}/events HTTP/1.1\r\nHost: {at.netloc}\r\n"
            f"Authorization: Bearer {tokens.mint(one)[0]}\r\n"
            "Accept: text/event-stream\r\nOrigin: https://shop.example\r\n\r\n".encode(),
        )
        for one in calls
    ]


async def _until(pages: Sequence[Page], has: Callable[[Page], object], within: float = 300) -> None:
    until = time.perf_counter() + within
    while missing := sum(not has(page) for page in pages):
        if time.perf_counter() > until:
            raise TimeoutError(f"{missing} of {len(pages)} pages still wait")
        await asyncio.sleep(0.02)


async def _until_open(pages: Sequence[Page]) -> None:
    await _until(pages, lambda page: page.is_open)


async def _connect(pages: Sequence[Page]) -> None:
    for begin in range(0, len(pages), AT_ONCE):
        await asyncio.gather(*(page.connect() for page in pages[begin : begin + AT_ONCE]))


async def _claim(ledger: Ledger, number: int) -> list[str]:
    calls = []
    for key in range(number):
        request = CallRequest(provider="sandbox", operation="create_order", key=f"stream-{key}")
        await ledger.calls.claim(request, "chain-1")
        calls.append(request.call_id)
    return calls


async def _park(ledger: Ledger, call_id: str) -> None:
    parking = Parking(reason="no_response", times=1)
    await ledger.calls.record_stage(
        call_id, Stage.PARKED, None, None, parking=parking, effect=Effect.NONE, notice=NOTICE
    )


async def _events(ledger: Ledger, pages: Sequence[Page], calls: Sequence[str]) -> list[float]:
    """Seconds from the commit of each event to its page."""
    committed = []
    for call_id in calls:
        await _park(ledger, call_id)
        committed.append(time.perf_counter())
    await _until(pages, lambda page: page.got_at, within=60)
    return [page.got_at[0] - at for page, at in zip(pages, committed, strict=True)]


def _server(folder: Path, port: int, streams: int) -> StackProcess:
    keys = folder / "api-keys.json"
    write_api_keys(keys, ())
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "ACKBRIDGE_AUTH_API_KEYS": str(keys),
        "ACKBRIDGE_STREAMS_SECRETS": "env:STREAMS",
        "ACKBRIDGE_STREAMS_ORIGINS": "https://shop.example",
        "ACKBRIDGE_STREAMS_MOST": str(streams),
        "ACKBRIDGE_STREAMS_LIFETIME": "1h",
        "ACKBRIDGE_GATEWAY_CONNECTIONS": str(streams + 100),
        "ACKBRIDGE_GATEWAY_CONNECTIONS_PER_SOURCE": str(streams + 100),
        "STREAMS": SECRET,
        "SANDBOX_API_KEY": "key",
        "SANDBOX_WEBHOOK_SECRET": "secret",
        "STRIPE_API_KEY": "key",
        "STRIPE_WEBHOOK_SECRET": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0",
        # Nothing is asked of an engine.
        "TEMPORAL_ADDRESS": f"{HOST}:9",
    }
    return StackProcess(
        "api",
        api_plan(port, ready="/healthz"),
        environ=environ,
        log=folder / "api.log",
        folder=folder,
        start_timeout=timedelta(seconds=60),
    )


async def _measure(streams: int, events: int, folder: Path) -> None:
    url = f"sqlite:///{folder}/ledger.db"
    migrate(url)
    ledger = Ledger.open(url, utc_now)
    calls = await _claim(ledger, streams)
    port = LoopbackPort()
    server = _server(folder, port.number, streams)
    await asyncio.to_thread(server.start)
    tokens = EventTokens([SECRET], timedelta(hours=1), utc_now)
    pages = _pages(f"http://{HOST}:{port.number}", calls, tokens)
    try:
        before = memory([server.pid])
        began = time.perf_counter()
        await _connect(pages)
        await _until_open(pages)
        opened = time.perf_counter() - began
        await asyncio.sleep(2)
        cpu = cpu_seconds([server.pid])
        await asyncio.sleep(QUIET_FOR)
        cpu = cpu_seconds([server.pid]) - cpu
        after = memory([server.pid])
        each = (after - before) * 1024 / streams
        print(f"{streams} streams, opened in {opened:.1f} s ({streams / opened:.0f}/s)")
        print(f"memory: {before:.0f} -> {after:.0f} MiB, {each:.1f} KiB a stream")
        print(f"CPU while nothing happens: {cpu / QUIET_FOR * 100:.1f} % of a core")
        some = slice(0, events)
        took = await _events(ledger, pages[some], calls[some])
        median, last = quantiles(took)[49], max(took)
        print(f"{events} events, commit to page: median {median:.2f} s, at most {last:.2f} s")
        server.send(signal.SIGTERM)
        status = await asyncio.to_thread(server.wait)
        began = time.perf_counter()
        await asyncio.to_thread(server.start)
        await _until_open(pages)
        back = time.perf_counter() - began
        print(f"restart (exit {status}): all pages were back {back:.1f} s after its start")
    finally:
        for page in pages:
            page.close()
        await asyncio.to_thread(server.stop, timedelta(seconds=10))
        await ledger.close()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1000, help="how many calls are parked")
    options = parser.parse_args()
    allow_many_files()
    print(f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        events = min(options.events, options.streams)
        asyncio.run(_measure(options.streams, events, Path(folder)))


if __name__ == "__main__":
    main()
