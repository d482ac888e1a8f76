"""Temporal schedules of batches, one per provider whose integration file has `reprocess`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

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

from .connect import RPC_TIMEOUT, is_namespace_missing, rpc_errors

log = logging.getLogger("ackbridge.temporal.schedules")

PREFIX: Final = "batch."
"""Of the ids of these schedules."""

SCHEDULED: Final = "scheduled"
"""The name of their batches; the engine appends the time."""

CATCH_UP: Final = timedelta(days=1)
"""How late a batch may start that was due while the engine was down."""

_MEMO: Final = "AckbridgeSchedule"
"""The memo with the fingerprint of the schedule that started a workflow."""


async def sync_schedules(client: Client, catalog: Catalog) -> None:
    """Create and update the schedules that integration files ask for.

    Several workers may do so at once. A paused schedule stays paused. None is deleted: one that no
    file here asks for may belong to a newer worker.
    """
    wanted = {
        f"{PREFIX}{provider}": (provider, integration.reprocess)
        for provider, integration in sorted(catalog.integrations.items())
        if integration.reprocess is not None
    }
    with log_failures("the schedules of batches could not be updated"):
        for schedule_id, (provider, plan) in wanted.items():
            schedule = _build_schedule(provider, plan)
            await sync_schedule(client, schedule_id, schedule, _fingerprint(provider, plan))
        async for found in await client.list_schedules():
            if found.id.startswith(PREFIX) and found.id not in wanted:
                log.warning(
                    "schedule %s: no integration file of this worker has it; it stays until"
                    " `ackbridge schedules remove %s`",
                    *(found.id, found.id.removeprefix(PREFIX)),
                )


@dataclass(frozen=True)
class BatchSchedule:
    """The schedule of a provider's batches, as the engine has it.

    Attributes:
        next_at: when the next batch is due; None: never.
    """

    provider: str
    next_at: datetime | None
    is_paused: bool

    def as_json(self) -> dict[str, Any]:
        next_at = self.next_at.isoformat() if self.next_at else None
        return {"provider": self.provider, "next_at": next_at, "is_paused": self.is_paused}


async def list_schedules(client: Client) -> list[BatchSchedule]:
    """The schedules of batches, by provider.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    found = []
    with rpc_errors():
        async for one in await client.list_schedules():
            if not one.id.startswith(PREFIX):
                continue
            due = one.info.next_action_times if one.info else ()
            state = one.schedule.state if one.schedule else None
            provider = one.id.removeprefix(PREFIX)
            next_at = due[0] if due else None
            found.append(BatchSchedule(provider, next_at, state is not None and state.paused))
    return sorted(found, key=lambda schedule: schedule.provider)


async def remove_schedule(client: Client, provider: str) -> bool:
    """Remove the schedule of a provider's batches; false if there is none.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    with rpc_errors():
        return await delete_schedule(client, f"{PREFIX}{provider}", "by command")


@contextmanager
def log_failures(what: str) -> Iterator[None]:
    """Log errors of the engine instead of raising them: calls do not depend on schedules."""
    try:
        yield
    except (RPCError, RuntimeError) as error:
        log.warning("%s: %s", what, error)


async def sync_schedule(
    client: Client, schedule_id: str, schedule: Schedule, fingerprint: str
) -> None:
    """Create a schedule that starts a workflow, or update it; a paused one stays paused.

    The fingerprint changes with its definition. Raises `RPCError` if the engine refuses.
    """
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)  # noqa: S101 -- for mypy: ours start workflows
    action.memo = {_MEMO: fingerprint}
    try:
        await client.create_schedule(
            schedule_id, schedule, memo={_MEMO: fingerprint}, rpc_timeout=RPC_TIMEOUT
        )
    except ScheduleAlreadyRunningError:
        await _update(client, schedule_id, schedule, fingerprint)
    else:
        log.info("schedule %s: created", schedule_id)


async def _update(client: Client, schedule_id: str, schedule: Schedule, fingerprint: str) -> None:
    async def update(current: ScheduleUpdateInput) -> ScheduleUpdate | None:
        if await _fingerprint_of(client, current.description) == fingerprint:
            return None
        log.info("schedule %s: updated", schedule_id)
        # The state has `paused`, which belongs to operators.
        schedule.state = current.description.schedule.state
        return ScheduleUpdate(schedule)

    await client.get_schedule_handle(schedule_id).update(update, rpc_timeout=RPC_TIMEOUT)


async def delete_schedule(client: Client, schedule_id: str, reason: str) -> bool:
    """Delete a schedule; false if it does not exist. Raises `RPCError` if the engine refuses."""
    try:
        await client.get_schedule_handle(schedule_id).delete(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND or is_namespace_missing(error):
            raise
        return False
    log.info("schedule %s: deleted, %s", schedule_id, reason)
    return True


def _build_schedule(provider: str, plan: ReprocessSchedule) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.REPROCESS_PARKED,
            plan.batch_request(provider),
            id=names.batch_id(provider, SCHEDULED),
            task_queue=names.TASK_QUEUE,
            static_summary=f"parked calls of {provider}, by schedule",
        ),
        spec=ScheduleSpec(
            calendars=[_calendar(plan.cron)] if plan.cron else [],
            intervals=[ScheduleIntervalSpec(every=plan.every)] if plan.every else [],
            jitter=plan.jitter or None,
            time_zone_name=plan.timezone.key if plan.cron else None,
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )


def _calendar(cron: Cron) -> ScheduleCalendarSpec:
    def ranges(numbers: tuple[int, ...]) -> list[ScheduleRange]:
        return [ScheduleRange(number) for number in numbers]

    return ScheduleCalendarSpec(
        minute=ranges(cron.minutes),
        hour=ranges(cron.hours),
        day_of_month=ranges(cron.days),
        month=ranges(cron.months),
        day_of_week=ranges(cron.weekdays),
        comment=cron.text,
    )


def _fingerprint(provider: str, plan: ReprocessSchedule) -> str:
    return digest([provider, plan.model_dump(mode="json")])


async def _fingerprint_of(client: Client, description: ScheduleDescription) -> str | None:
    action = description.schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow) or action.memo is None:
        return None
    value = action.memo.get(_MEMO)
    if isinstance(value, str) or value is None:
        return value
    (decoded,) = await client.data_converter.decode([value], [str])
    return str(decoded)
