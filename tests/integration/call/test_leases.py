"""A provider that takes three requests at once, and two worker processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from temporalio.api.enums.v1 import EventType

from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallRequest, Stage, Waiting, WaitingFor
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support import stage as staging
from tests.support.postgres import postgresql
from tests.support.serving import serve

pytestmark = [pytest.mark.slow, pytest.mark.extended]

TOTAL = 3
CALLS = 12
HELD_FOR = 0.6
"""Seconds of a request."""
PERIOD = timedelta(seconds=12)
"""Of a lease: the request's timeout and ten seconds."""

FILE = f"""
provider: narrow
base_url: ${{NARROW_URL}}
breaker: null
limits: {{concurrent_total: {TOTAL}, concurrent: 20}}
operations:
  quote:
    request: {{path: /quotes, body: payload}}
    receipt: {{timeout: 2s}}
    response: {{mode: sync, success: id}}
  pay:
    request: {{path: /payments, body: payload, idempotency: null, repeat: unless_reached}}
    receipt: {{timeout: 2s}}
    response: {{mode: sync, success: id}}
"""


@dataclass
class Provider:
    """Works on each request for a while, whether or not somebody waits for it.

    Attributes:
        working: the keys of the requests that it works on.
        most: the most requests that it had at once.
    """

    working: list[str] = field(default_factory=list)
    most: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/{path}")
        async def work(request: Request) -> dict[str, str]:
            key = (await request.json())["key"]
            self.requests[key] += 1
            self.working.append(key)
            self.most = max(self.most, len(self.working))
            await asyncio.sleep(HELD_FOR)
            self.working.remove(key)
            return {"id": "1"}

        return app


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty ledger."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
    else:
        with postgresql() as server:
            yield server.new_database()


async def test_no_more_requests_at_once_than_the_file_says(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path, ledger_url: str
) -> None:
    """All workers together; those that wait spend no attempt, no history and no slot. What a killed
    worker held is free after one lease period, and what must not be repeated is not."""
    provider = Provider()
    folder = tmp_path / "integrations"
    folder.mkdir()
    (folder / "narrow.yaml").write_text(FILE)
    with serve(provider.app()) as url, contextlib.ExitStack() as running:
        environ = {"NARROW_URL": url}
        async with staging.set_up(
            *(quick_takeover_engine, tmp_path, folder),
            environ=environ,
            has_worker=False,
            ledger_url=ledger_url,
        ) as stage:
            workers = [
                staging.worker_process(stage, folder, tmp_path / f"{name}.log")
                for name in ("one", "two")
            ]
            for one in workers:
                running.callback(one.stop, timedelta(seconds=1))
                one.start()
            for one in workers:
                await staging.until_ready(one)
            requests = [
                CallRequest(
                    provider="narrow",
                    operation="pay" if number % 4 else "quote",
                    key=f"k-{number}",
                    payload={"key": f"k-{number}"},
                )
                for number in range(2 * CALLS)
            ]
            for request in requests:
                await stage.calls.start(request)
            waiting = await _held_back(stage, requests[-1])
            assert waiting.what is WaitingFor.RATE_LIMIT
            assert (await stage.ledger.leases.counts("narrow"))[""][0] <= TOTAL

            while not paying(requests).intersection(provider.working):  # noqa: ASYNC110 -- it changes in another thread
                await asyncio.sleep(0.01)
            for one in workers:
                one.kill(signal.SIGKILL)
            in_flight = set(provider.working)
            again = staging.worker_process(stage, folder, tmp_path / "again.log")
            running.callback(again.stop, timedelta(seconds=1))
            again.start()
            await asyncio.sleep(PERIOD.total_seconds())
            before = utc_now() - PERIOD
            leases = await stage.ledger.leases.requests("narrow", 100)
            assert all(one.since > before for one in leases if not one.is_waiting)
            ended = await asyncio.gather(*(_ended(stage, request) for request in requests))

    assert provider.most == TOTAL
    lost = {
        request.key
        for request, (is_completed, _) in zip(requests, ended, strict=True)
        if not is_completed
    }
    resent = {key for key, times in provider.requests.items() if times > 1}
    assert in_flight & paying(requests) <= lost <= paying(requests)
    assert not resent & paying(requests)
    # Besides those that were in flight, some may have ended without having been reported.
    assert len(lost | resent) <= 2 * TOTAL
    # One that had been handed a request, and had not sent it, has spent an attempt as well.
    spent_again = [attempts - 1 for _, attempts in ended if attempts > 1]
    assert sum(spent_again) <= 2 * TOTAL


def paying(requests: list[CallRequest]) -> set[str]:
    """The keys of those that must not be repeated."""
    return {request.key for request in requests if request.operation == "pay"}


async def _held_back(stage: staging.Stage, request: CallRequest) -> Waiting:
    """What the call waits for, once it has been held back."""
    call = stage.calls.call(request.call_id)
    async with asyncio.timeout(30):
        while True:
            waiting = (await call.status()).waiting
            if waiting is not None and "in flight" in (waiting.detail or ""):
                return waiting
            await asyncio.sleep(0.05)


async def _ended(stage: staging.Stage, request: CallRequest) -> tuple[bool, int]:
    """Whether the call is completed, not parked, and its attempts to send."""
    call = stage.calls.call(request.call_id)
    while (status := await call.status()).stage not in (Stage.PARKED, Stage.COMPLETED):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.2)
    started = [
        event
        async for event in stage.handle(request).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    ]
    return status.stage == Stage.COMPLETED, len(started)
