"""`kill -9` of the worker between every two steps of a call."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from ackbridge.catalog import load_catalog
from ackbridge.child import Child
from ackbridge.client import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import CallRequest, OutcomeStatus, names
from ackbridge.contracts.converter import DATA_CONVERTER
from ackbridge.embedded import EmbeddedEngine
from ackbridge.gateway import create_app
from ackbridge.ledger import Ledger, migrate
from ackbridge.sandbox import create_provider
from ackbridge.security import Secrets
from tests.integration.stage import CHECKOUT, INTEGRATIONS, SECRETS
from tests.serving import serve

POINTS = [
    f"{when}-{step}"
    for step in (names.PREPARE, names.SEND, names.RECORD, names.ACKNOWLEDGE)
    for when in ("before", "after")
]
PATIENCE = timedelta(minutes=3)


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """An engine without other workers, which would finish what the dying one began."""
    state = tmp_path_factory.mktemp("kill") / "engine.db"
    with EmbeddedEngine(state, headless=True) as running:
        yield running


async def test_worker_killed_between_every_two_steps(
    own_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Every call completes with one row in the ledger and one effect at the provider."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    await asyncio.to_thread(migrate, url)
    gateway_ledger = Ledger.open(url, utc_now)
    provider = create_provider(SECRETS["SANDBOX_API_KEY"], SECRETS["SANDBOX_WEBHOOK_SECRET"])
    with serve(provider) as provider_url:
        environ = {**SECRETS, "SANDBOX_BASE_URL": provider_url}
        lazy = await Client.connect(own_engine.address, lazy=True, data_converter=DATA_CONVERTER)
        app = create_app(
            load_catalog(INTEGRATIONS, environ),
            Secrets(environ, tmp_path),
            gateway_ledger,
            lazy,
            utc_now,
        )
        with serve(app) as gateway_url:
            environ |= {
                "ACKBRIDGE_LEDGER_URL": url,
                "ACKBRIDGE_PUBLIC_URL": gateway_url,
                "ACKBRIDGE_INTEGRATIONS": str(INTEGRATIONS),
                **own_engine.environment,
            }
            await _die_and_come_back(own_engine, environ, provider_url, tmp_path)
    await gateway_ledger.close()


async def _die_and_come_back(
    engine: EmbeddedEngine, environ: dict[str, str], provider_url: str, folder: Path
) -> None:
    marks = folder / "marks"
    marks.mkdir()
    child = Child(
        [sys.executable, "-m", "tests.integration.dying_worker", str(marks)],
        environ={**os.environ, **environ},
        log=folder / "worker.log",
        folder=CHECKOUT,
    )
    calls = AckbridgeClient(await Client.connect(engine.address, data_converter=DATA_CONVERTER))
    requests = [
        CallRequest(
            provider="sandbox",
            operation="create_order",
            key=f"{point}-{uuid.uuid4().hex[:8]}",
            payload={"amount": 5, "currency": "EUR"},
        )
        for point in POINTS
    ]
    reviving = asyncio.create_task(_revive(child))
    try:
        started = [await calls.start(request) for request in requests]
        outcomes = await asyncio.gather(*(call.outcome(PATIENCE, settled=True) for call in started))
    finally:
        reviving.cancel()
        child.stop(timedelta(seconds=1))
    assert {path.name for path in marks.iterdir()} == {request.key for request in requests}
    assert all(outcome.status is OutcomeStatus.COMPLETED for outcome in outcomes)
    await _reconcile(requests, environ["ACKBRIDGE_LEDGER_URL"], provider_url)


async def _reconcile(requests: list[CallRequest], url: str, provider_url: str) -> None:
    ledger = Ledger.open(url, utc_now)
    async with httpx.AsyncClient(base_url=provider_url) as client:
        events = (await client.get("/_events")).json()
    for request in requests:
        own = [event for event in events if event.get("call_id") == request.call_id]
        told = {e["acknowledged"] for e in own if e["kind"] == "acknowledgement"}
        assert len({event["work"] for event in own if "work" in event}) == 1, request.key
        assert told == {"success"}, request.key
        assert len(await ledger.responses(request.call_id)) == 1, request.key
    await ledger.close()


async def _revive(child: Child) -> None:
    """Start the worker again whenever it has died."""
    while True:
        if not child.is_running:
            child.start()
        await asyncio.sleep(0.1)
