"""Schedules, kept by the engine; those of batches, one per provider whose file asks for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.cron import Cron
from ackbridge.catalog.model import ReprocessSchedule
from ackbridge.contracts import names
from ackbridge.contracts.wire import digest

from .rpc import RPC_TIMEOUT

log = logging.getLogger("ackbridge.temporal.schedules")

PREFIX: Final = "batch."
"""Of the ids of our schedules; what else begins with it is not touched."""

SCHEDULED: Final = "scheduled"
"""The name of their batches; the engine adds the time."""

CATCH_UP: Final = timedelta(days=1)
"""A batch that was due while the engine was away is made up for so long."""

_MEMO: Final = "AckbridgeSchedule"
"""Under which a schedule's workflows say which version of it they are from."""


async def sync_schedules(client: Client, catalog: Catalog) -> None:
    """Create, update and remove schedules, so that they are those of the integration files.

    Several workers may do so at once. A schedule that somebody has paused stays paused.
    """
    wanted = {
        f"{PREFIX}{provider}": (provider, integration.reprocess)
        for provider, integration in sorted(catalog.integrations.items())
        if integration.reprocess is not None
    }
    with log_failures("schedules of batches are not kept"):
        for schedule_id, (provider, plan) in wanted.items():
            schedule = build_schedule(provider, plan)
            await sync_schedule(client, schedule_id, schedule, _mark(provider, plan))
        async for found in await client.list_schedules():
            if found.id.startswith(PREFIX) and found.id not in wanted:
                await delete_schedule(client, found.id, "no integration file asks for it any more")


@contextmanager
def log_failures(trouble: str) -> Iterator[None]:
    """Log what does not work inside: calls do not depend on schedules."""
    try:
        yield
    except (RPCError, RuntimeError) as error:
        log.warning("%s: %s", trouble, error)


async def sync_schedule(client: Client, schedule_id: str, schedule: Schedule, mark: str) -> None:
    """Create a schedule of a workflow, or bring it up to date; it stays paused if it is.

    Args:
        mark: the same for the same schedule.

    Raises:
        RPCError: the engine does not answer, or refuses.
    """
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)  # noqa: S101 -- ours are no others
    action.memo = {_MEMO: mark}
    try:
        await client.create_schedule(
            schedule_id, schedule, memo={_MEMO: mark}, rpc_timeout=RPC_TIMEOUT
        )
    except ScheduleAlreadyRunningError:
        await _update(client, schedule_id, schedule, mark)
    else:
        log.info("schedule %s: created", schedule_id)


async def _update(client: Client, schedule_id: str, schedule: Schedule, mark: str) -> None:
    async def renewed(given: ScheduleUpdateInput) -> ScheduleUpdate | None:
        if await _mark_of(client, given.description) == mark:
            return None
        log.info("schedule %s: updated", schedule_id)
        # Whether it is paused is for people to say.
        schedule.state = given.description.schedule.state
        return ScheduleUpdate(schedule)

    await client.get_schedule_handle(schedule_id).update(renewed, rpc_timeout=RPC_TIMEOUT)


async def delete_schedule(client: Client, schedule_id: str, why: str) -> None:
    """Remove a schedule, if it is there.

    Raises:
        RPCError: the engine does not answer, or refuses.
    """
    try:
        await client.get_schedule_handle(schedule_id).delete(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    else:
        log.info("schedule %s: removed, %s", schedule_id, why)


def build_schedule(provider: str, plan: ReprocessSchedule) -> Schedule:
    """What the engine is asked to do, and when."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.REPROCESS_PARKED,
            plan.batch_request(provider),
            id=names.batch_id(provider, SCHEDULED),
            task_queue=names.TASK_QUEUE,
            static_summary=f"parked calls of {provider}, by schedule",
        ),
        spec=_spec(plan),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )


def _spec(plan: ReprocessSchedule) -> ScheduleSpec:
    return ScheduleSpec(
        calendars=[_calendar(plan.cron)] if plan.cron else [],
        intervals=[ScheduleIntervalSpec(every=plan.every)] if plan.every else [],
        jitter=plan.jitter or None,
        time_zone_name=plan.timezone.key if plan.cron else None,
    )


def _calendar(cron: Cron) -> ScheduleCalendarSpec:
    return ScheduleCalendarSpec(
        minute=_ranges(cron.minutes),
        hour=_ranges(cron.hours),
        day_of_month=_ranges(cron.days),
        month=_ranges(cron.months),
        day_of_week=_ranges(cron.weekdays),
        comment=cron.text,
    )


def _ranges(numbers: tuple[int, ...]) -> list[ScheduleRange]:
    return [ScheduleRange(number) for number in numbers]


def _mark(provider: str, plan: ReprocessSchedule) -> str:
    """Tells whether a schedule is from the same text of the file."""
    return digest([provider, plan.model_dump(mode="json")])


async def _mark_of(client: Client, description: ScheduleDescription) -> str | None:
    action = description.schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow) or action.memo is None:
        return None
    value = action.memo.get(_MEMO)
    if isinstance(value, str) or value is None:
        return value
    (decoded,) = await client.data_converter.decode([value], [str])
    return str(decoded)
