"""`kill -9` of the worker between every two steps of a call."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus
from ackbridge.contracts.deliveries import NoticeEvent, event_id
from ackbridge.ledger.notices import NoticeState
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support import dying_worker
from tests.support.processes import ForkedProcess
from tests.support.stage import (
    INTEGRATIONS,
    Stage,
    edited_integrations,
    set_up,
    worker_environment,
)
from tests.support.subscribers import configure, subscribing

pytestmark = pytest.mark.slow

WHEN = ("before", "after")
POINTS = [
    f"{when}-{step}"
    for step in (names.PREPARE, names.SEND, names.RECORD, names.ACKNOWLEDGE)
    for when in WHEN
]
PATIENCE = timedelta(minutes=3)


async def test_worker_killed_between_every_two_steps(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Every call completes with one row in the ledger and one effect at the provider.

    A death that one call brings may let another one pass its own point: what was recorded by then
    is not recorded again. Such points are played again.
    """
    missed = POINTS
    async with set_up(quick_takeover_engine, tmp_path, has_worker=False) as stage:
        for attempt in range(3):
            requests = [order(f"{point}-{uuid.uuid4().hex[:8]}") for point in missed]
            folder = tmp_path / f"attempt-{attempt}"
            folder.mkdir()
            outcomes, marks = await die_and_come_back(stage, INTEGRATIONS, folder, requests)
            assert all(outcome.status is OutcomeStatus.COMPLETED for outcome in outcomes)
            await _reconcile(stage, requests)
            missed = [p for p, one in zip(missed, requests, strict=True) if one.key not in marks]
            if not missed:
                break
    assert missed == []


@pytest.mark.extended
async def test_worker_killed_while_a_subscriber_is_told(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path
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
        async with set_up(quick_takeover_engine, tmp_path, integrations, has_worker=False) as stage:
            _, marks = await die_and_come_back(
                stage, integrations, tmp_path, requests, are_told=True
            )
            states = {one.state for one in await stage.ledger.notices.find()}
    # A delivery is tried until it is answered; a record may have outlived another call's death.
    died = {mark.partition(":")[0] for mark in marks}
    assert {one.key for one in requests if names.DELIVER in one.key} <= died
    for request in requests:
        notices = [one for one in shop.received if one.body["data"]["key"] == request.key]
        assert {one.id for one in notices} == {f"{request.call_id}:1.completed"}
        bodies = [one.body for one in notices]
        assert bodies == bodies[:1] * len(bodies)
    assert states == {NoticeState.DELIVERED}
    assert shop.forged == 0


def order(key: str) -> CallRequest:
    """An order with this key."""
    payload = {"amount": 5, "currency": "EUR"}
    return CallRequest(provider="sandbox", operation="create_order", key=key, payload=payload)


async def die_and_come_back(
    stage: Stage,
    integrations: Path,
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
    child = ForkedProcess(
        dying_worker.main,
        [str(marks)],
        environ=worker_environment(stage, integrations),
        log=folder / "worker.log",
        folder=folder,
    )
    reviving = asyncio.create_task(_revive(child))
    try:
        started = [await stage.calls.start(request) for request in requests]
        outcomes = await asyncio.gather(*(call.outcome(PATIENCE, settled=True) for call in started))
        for request in requests if are_told else ():
            event = event_id(request.call_id, 1, NoticeEvent.COMPLETED)
            await stage.client.get_workflow_handle(names.notice_id(event)).result()
    finally:
        reviving.cancel()
        child.stop(timedelta(seconds=1))
    return outcomes, {path.name for path in marks.iterdir()}


async def _reconcile(stage: Stage, requests: list[CallRequest]) -> None:
    events = (await stage.http.get(f"{stage.provider_url}/_events")).json()
    for request in requests:
        own = [event for event in events if event.get("call_id") == request.call_id]
        told = {e["acknowledged"] for e in own if e["kind"] == "acknowledgement"}
        assert len({event["work"] for event in own if "work" in event}) == 1, request.key
        assert told == {"success"}, request.key
        assert len(await stage.ledger.calls.responses(request.call_id)) == 1, request.key


async def _revive(child: ForkedProcess) -> None:
    """Start the worker again whenever it has died."""
    while True:
        if not child.is_running:
            child.start()
        await asyncio.sleep(0.1)
