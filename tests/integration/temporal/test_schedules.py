"""Schedules of batches on the real engine match the integration files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleOverlapPolicy,
)

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_catalog
from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchState
from ackbridge.temporal.schedules import (
    SCHEDULED,
    list_schedules,
    remove_schedule,
    sync_schedules,
)
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER
from tests.support.stage import INTEGRATIONS, SECRETS, Stage


def catalog(folder: Path, provider: str, reprocess: dict[str, Any] | None) -> Catalog:
    """The sandbox's integration under another name, with a schedule or without."""
    folder.mkdir(exist_ok=True)
    file = yaml.safe_load((INTEGRATIONS / "sandbox.yaml").read_text())
    file |= {"provider": provider} | ({"reprocess": reprocess} if reprocess else {})
    (folder / f"{provider}.yaml").write_text(yaml.safe_dump(file))
    return load_catalog(folder, SECRETS)


async def schedules(client: Client) -> list[str]:
    """The ids of all schedules, once the engine lists them."""
    return sorted([found.id async for found in await client.list_schedules()])


async def test_schedules_are_created_updated_and_removed(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By several workers at once; a paused schedule stays paused. Only the command removes one."""
    client = stage.client
    first = catalog(
        tmp_path / "a",
        "nightly",
        {"cron": "30 2 * * mon-fri", "timezone": "Europe/Berlin", "jitter": "5m", "at_most": 100},
    )
    await asyncio.gather(*(sync_schedules(client, first) for _ in range(3)))
    handle = client.get_schedule_handle("batch.nightly")
    described = (await handle.describe()).schedule
    (calendar,) = described.spec.calendars
    assert [(one.start, one.end) for one in calendar.day_of_week] == [(n, n) for n in range(1, 6)]
    assert described.spec.time_zone_name == "Europe/Berlin"
    assert described.policy.overlap is ScheduleOverlapPolicy.SKIP

    due = (await handle.describe()).info.next_action_times
    plan = first.integration("nightly").reprocess
    assert plan is not None
    now = (await handle.describe()).info.created_at
    expected = plan.next_start(now)
    assert expected is not None
    # The engine spreads them by the jitter.
    assert expected <= due[0] <= expected + plan.jitter

    await handle.pause(note="the auditors are here")
    second = catalog(tmp_path / "b", "nightly", {"every": "2h"})
    await asyncio.gather(*(sync_schedules(client, second) for _ in range(2)))
    described = (await handle.describe()).schedule
    assert (described.spec.calendars, len(described.spec.intervals)) == ([], 1)
    assert described.state.paused

    await _until_listed(client, "batch.nightly", is_there=True)
    await sync_schedules(client, catalog(tmp_path / "c", "other", None))
    await sync_schedules(client, catalog(tmp_path / "d", "nightly", None))
    assert (await handle.describe()).schedule.state.paused
    assert "it stays until `ackbridge schedules remove nightly`" in caplog.text
    (listed,) = await list_schedules(client)
    assert (listed.provider, listed.is_paused) == ("nightly", True)
    assert await remove_schedule(client, "nightly")
    await _until_listed(client, "batch.nightly", is_there=False)
    assert not await remove_schedule(client, "nightly")


async def test_scheduled_batch_runs(stage: Stage, tmp_path: Path) -> None:
    """The schedule starts an ordinary batch."""
    client = await Client.connect(
        stage.namespace.address, namespace=stage.namespace.name, data_converter=DATA_CONVERTER
    )
    scheduled = catalog(tmp_path / "a", "hourly", {"every": "1h", "older_than": "1h"})
    await sync_schedules(client, scheduled)
    handle = client.get_schedule_handle("batch.hourly")
    await handle.trigger()
    while not (ran := (await handle.describe()).info.recent_actions):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    action = ran[0].action
    assert isinstance(action, ScheduleActionExecutionStartWorkflow)
    batch_id = action.workflow_id
    assert batch_id.startswith(names.batch_id("hourly", SCHEDULED))
    done = await stage.calls.batch(batch_id).result()
    assert (done.state, done.by, done.total) == (BatchState.COMPLETED, "schedule", 0)
    await handle.delete()


async def _until_listed(client: Client, schedule_id: str, *, is_there: bool) -> None:
    while (schedule_id in await schedules(client)) is not is_there:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
