"""schedules: which batches start by themselves, and the removal of those that nobody wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from ackbridge.errors import UnknownNameError
from ackbridge.temporal.schedules import BatchSchedule, list_schedules, remove_schedule
from ackbridge.terminal import output

from .connections import record_if_possible, with_temporal
from .options import Json


def list_batch_schedules(json_output: Json = False) -> None:
    """List the schedules of batches.

    Workers create and update them from their integration files. They never remove one: it may
    belong to a newer worker.
    """
    schedules = with_temporal(list_schedules)
    if json_output:
        output.print_json([schedule.as_json() for schedule in schedules])
        return
    columns = ("provider", "next batch (UTC)", "state")
    output.console.print(output.table("schedules of batches", columns, list(_rows(schedules))))


def remove(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Whose schedule.")],
    json_output: Json = False,
) -> None:
    """Remove the schedule of a provider whose integration file has no `reprocess` any more.

    A worker whose file still has it creates it again when it starts.
    """
    record_if_possible("remove_schedule", provider)
    if not with_temporal(lambda client: remove_schedule(client, provider)):
        raise UnknownNameError(f"{provider}: has no schedule")
    if json_output:
        output.print_json({"provider": provider, "removed": True})
    else:
        output.say(f"schedule of {provider}: removed")


def _rows(schedules: list[BatchSchedule]) -> Iterator[tuple[str, ...]]:
    for schedule in schedules:
        next_at = schedule.next_at
        when = f"{next_at:%Y-%m-%d %H:%M:%S}" if next_at else "never"
        yield schedule.provider, when, "paused" if schedule.is_paused else "active"
