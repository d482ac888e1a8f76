"""An integration with limits: its sends go through the provider's own queue."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

import worker
from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import LimitSpec
from ackbridge.contracts.calls import CallRequest
from ackbridge.control.admission import RideLimiter
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.temporal.connect import connect
from tests.support.replays import replay
from tests.support.stage import INTEGRATIONS, SECRETS, Stage, set_up

LIMITS = "limits: {requests_per_second: 50, concurrent: 5}\n"


def limited(folder: Path) -> Path:
    """A folder with the sandbox's integration, under another name and with limits."""
    folder.mkdir()
    text = (INTEGRATIONS / "sandbox.yaml").read_text()
    changed = text.replace("provider: sandbox\n", f"provider: limited\n{LIMITS}")
    assert changed != text
    (folder / "limited.yaml").write_text(changed)
    return folder


async def scheduled(stage: Stage, request: CallRequest) -> list[tuple[str, str]]:
    """The activities of a call that went through a queue, and which."""
    return [
        (
            event.activity_task_scheduled_event_attributes.activity_type.name,
            event.activity_task_scheduled_event_attributes.task_queue.name,
        )
        async for event in stage.handle(request).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]


async def test_limits_send_through_the_providers_queues(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Sends wait in the queue that has the limit; it restricts no success acknowledgement."""
    integrations = limited(tmp_path / "integrations")
    async with set_up(engine, tmp_path, integrations) as stage:
        # A callback that overtakes its receipt saves some events.
        payload = {"amount": 5, "currency": "EUR", "behaviour": {"delay_ms": 1500}}
        request = CallRequest(
            provider="limited", operation="create_order", key="k", payload=payload
        )
        outcome = await (await stage.calls.start(request)).outcome(timedelta(seconds=30))
        assert outcome.status == "completed"
        assert await scheduled(stage, request) == [("send", "ackbridge.limited")]
        history = await stage.handle(request).fetch_history()
        assert len(history.events) == 19


async def test_beyond_its_share_of_a_worker_a_provider_has_its_queues(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Without a slot within workflow tasks a call takes the way that calls with limits take."""
    async with set_up(engine, tmp_path) as stage:
        stage.deps.rides.share = 0
        request = stage.request()
        outcome = await (await stage.calls.start(request)).outcome(
            timedelta(seconds=30), settled=True
        )
        assert outcome.status == "completed"
        assert not outcome.acknowledgement_owed
        assert await scheduled(stage, request) == [
            ("send", "ackbridge.sandbox"),
            ("acknowledge", "ackbridge.sandbox.settle"),
        ]
        await replay(await stage.handle(request).fetch_history())


@pytest.mark.parametrize(
    ("providers", "slots", "rides"), [(1, 100, 200), (2, 100, 100), (10, 40, 20), (50, 20, 10)]
)
def test_share_of_a_provider(providers: int, slots: int, rides: int) -> None:
    """It shrinks with the number of providers, down to a floor; connections are never short."""
    sandbox = load_catalog(INTEGRATIONS, SECRETS).integration("sandbox")
    own_limit = sandbox.model_copy(update={"limits": LimitSpec(concurrent=3)})
    assert worker.slots_of_provider(providers) == slots
    assert RideLimiter(providers).share == rides
    # Requests that ride: of single calls, and of hosted ones.
    riding = 2 * rides
    assert worker.connections_of_provider(sandbox, providers) == riding + 2 * slots + 1
    assert worker.connections_of_provider(own_limit, providers) == riding + 3 + slots + 1


async def test_worker_of_one_provider(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """`--provider` serves that provider's queues and no other."""
    catalog = load_catalog(limited(tmp_path / "integrations"), SECRETS)
    deps: Any = None

    client = await connect(engine.environment)
    workers = worker.build_workers(client, catalog, deps, "limited")
    assert [one.task_queue for one in workers] == [
        "ackbridge.limited",
        "ackbridge.limited.settle",
        "ackbridge.limited.control",
    ]
