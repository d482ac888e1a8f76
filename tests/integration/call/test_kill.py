"""`kill -9` of the worker between every two steps of a call."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus
from ackbridge.contracts.deliveries import NoticeEvent, event_id
from ackbridge.gateway.app import create_app
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.notices import NoticeState
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.processes import ManagedProcess
from ackbridge.sandbox.provider import create_provider
from ackbridge.security.secrets import Secrets
from ackbridge.workarounds.data_converter import DATA_CONVERTER
from tests.support.serving import serve
from tests.support.stage import CHECKOUT, INTEGRATIONS, SECRETS, edited_integrations
from tests.support.subscribers import configure, subscribing

WHEN = ("before", "after")
POINTS = [
    f"{when}-{step}"
    for step in (names.PREPARE, names.SEND, names.RECORD, names.ACKNOWLEDGE)
    for when in WHEN
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
    """Every call completes with one row in the ledger and one effect at the provider.

    A death that one call brings may let another one pass its own point: what was recorded by then
    is not recorded again. Such points are played again.
    """
    missed = POINTS
    async with surroundings(own_engine, tmp_path, INTEGRATIONS) as environ:
        for attempt in range(3):
            requests = [order(f"{point}-{uuid.uuid4().hex[:8]}") for point in missed]
            folder = tmp_path / f"attempt-{attempt}"
            folder.mkdir()
            outcomes, marks = await die_and_come_back(own_engine, environ, folder, requests)
            assert all(outcome.status is OutcomeStatus.COMPLETED for outcome in outcomes)
            await _reconcile(requests, environ["ACKBRIDGE_LEDGER_URL"], environ["SANDBOX_BASE_URL"])
            missed = [p for p, one in zip(missed, requests, strict=True) if one.key not in marks]
            if not missed:
                break
    assert missed == []


async def test_worker_killed_while_a_subscriber_is_told(
    own_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Every notice arrives under one id that tells its place, however often it was begun anew."""
    points = [f"{when}-{step}" for step in (names.RECORD, names.DELIVER) for when in WHEN]
    requests = [
        order(f"{point}-{uuid.uuid4().hex[:8]}").model_copy(update={"reply_to": "shop"})
        for point in points
    ]
    integrations = edited_integrations(tmp_path, lambda _: None)
    with subscribing() as shop:
        configure(integrations, "shop", shop.url, timeout="1s")
        async with surroundings(own_engine, tmp_path, integrations) as environ:
            _, marks = await die_and_come_back(
                own_engine, environ, tmp_path, requests, are_told=True
            )
    # A delivery is tried until it is answered; a record may have outlived another call's death.
    died = {mark.partition(":")[0] for mark in marks}
    assert {one.key for one in requests if names.DELIVER in one.key} <= died
    for request in requests:
        letters = [one for one in shop.letters if one.body["data"]["key"] == request.key]
        assert {one.id for one in letters} == {f"{request.call_id}:1.completed"}
        bodies = [one.body for one in letters]
        assert bodies == bodies[:1] * len(bodies)
    ledger = Ledger.open(environ["ACKBRIDGE_LEDGER_URL"], utc_now)
    states = {one.state for one in await ledger.notices.find()}
    await ledger.close()
    assert states == {NoticeState.DELIVERED}
    assert shop.forged == 0


def order(key: str) -> CallRequest:
    """An order with this key."""
    payload = {"amount": 5, "currency": "EUR"}
    return CallRequest(provider="sandbox", operation="create_order", key=key, payload=payload)


@asynccontextmanager
async def surroundings(
    engine: EmbeddedEngine, folder: Path, integrations: Path
) -> AsyncIterator[dict[str, str]]:
    """Everything but the worker; its environment."""
    url = f"sqlite:///{folder}/ledger.db"
    await asyncio.to_thread(migrate, url)
    gateway_ledger = Ledger.open(url, utc_now)
    provider = create_provider(SECRETS["SANDBOX_API_KEY"], SECRETS["SANDBOX_WEBHOOK_SECRET"])
    with serve(provider) as provider_url:
        environ = {**SECRETS, "SANDBOX_BASE_URL": provider_url}
        lazy = await Client.connect(engine.address, lazy=True, data_converter=DATA_CONVERTER)
        catalog = load_catalog(integrations, environ)
        app = create_app(catalog, Secrets(environ, folder), gateway_ledger, lazy, utc_now)
        with serve(app) as gateway_url:
            yield environ | {
                "ACKBRIDGE_LEDGER_URL": url,
                "ACKBRIDGE_PUBLIC_URL": gateway_url,
                "ACKBRIDGE_INTEGRATIONS": str(integrations),
                **engine.environment,
            }
    await gateway_ledger.close()


async def die_and_come_back(
    engine: EmbeddedEngine,
    environ: dict[str, str],
    folder: Path,
    requests: list[CallRequest],
    *,
    are_told: bool = False,
) -> tuple[list[CallOutcome], set[str]]:
    """Make the calls with a worker that dies and is started again.

    Args:
        are_told: whether a notice of each has to be delivered before the worker may end.

    Returns:
        The outcomes, and where the worker has died.
    """
    marks = folder / "marks"
    marks.mkdir()
    child = ManagedProcess(
        [sys.executable, "-m", "tests.support.dying_worker", str(marks)],
        environ={**os.environ, **environ},
        log=folder / "worker.log",
        folder=CHECKOUT,
    )
    client = await Client.connect(engine.address, data_converter=DATA_CONVERTER)
    calls = AckbridgeClient(client)
    reviving = asyncio.create_task(_revive(child))
    try:
        started = [await calls.start(request) for request in requests]
        outcomes = await asyncio.gather(*(call.outcome(PATIENCE, settled=True) for call in started))
        for request in requests if are_told else ():
            event = event_id(request.call_id, 1, NoticeEvent.COMPLETED)
            await client.get_workflow_handle(names.notice_id(event)).result()
    finally:
        reviving.cancel()
        child.stop(timedelta(seconds=1))
    return outcomes, {path.name for path in marks.iterdir()}


async def _reconcile(requests: list[CallRequest], url: str, provider_url: str) -> None:
    ledger = Ledger.open(url, utc_now)
    async with httpx.AsyncClient(base_url=provider_url) as client:
        events = (await client.get("/_events")).json()
    for request in requests:
        own = [event for event in events if event.get("call_id") == request.call_id]
        told = {e["acknowledged"] for e in own if e["kind"] == "acknowledgement"}
        assert len({event["work"] for event in own if "work" in event}) == 1, request.key
        assert told == {"success"}, request.key
        assert len(await ledger.calls.responses(request.call_id)) == 1, request.key
    await ledger.close()


async def _revive(child: ManagedProcess) -> None:
    """Start the worker again whenever it has died."""
    while True:
        if not child.is_running:
            child.start()
        await asyncio.sleep(0.1)
