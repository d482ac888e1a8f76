"""notices: what subscribers were told, what could not be delivered, and sending it again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from ackbridge.client.notices import replay_notice
from ackbridge.clock import utc_now
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.notices import NoticeRow, NoticeState
from ackbridge.settings import environment, load_settings
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import Json, duration

Subscriber = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those for this subscriber.")
]
Limit = Annotated[int, typer.Option(min=1, help="How many at the most.")]
COLUMNS = ("event", "subscriber", "state", "attempts", "happened", "last trouble")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What subscribers were told about calls.", invoke_without_command=True)
    group.callback()(list_notices)
    group.command("replay")(exits_with_its_answer(replay_notices))
    app.add_typer(group, name="notices")


def list_notices(
    context: typer.Context,
    subscriber: Subscriber = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only those that are not tried any more.")
    ] = False,
    limit: Limit = 100,
    json_output: Json = False,
) -> None:
    """List the notices to subscribers, the oldest first, whether or not a worker can be asked."""
    if context.invoked_subcommand is None:
        state = NoticeState.DEAD if dead else None
        exits_with_its_answer(_list)(subscriber, state, limit, json_output)


def _list(subscriber: str | None, state: NoticeState | None, limit: int, json_output: bool) -> int:
    found = asyncio.run(_find(subscriber, state, None, limit))
    if json_output:
        output.as_json([_row(one) | {"body": one.body.model_dump(mode="json")} for one in found])
    else:
        cells = [tuple(str(value) for value in _row(one).values()) for one in found]
        title = f"{len(found)} {f'{state} ' if state else ''}notices"
        output.console.print(output.table(title, COLUMNS, cells))
    return Exit.COMPLETED


def replay_notices(
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="This one, even if it was delivered.")
    ] = None,
    subscriber: Annotated[
        str | None, typer.Option(metavar="NAME", help="Every dead one for this subscriber.")
    ] = None,
    within: Annotated[str, typer.Option(help="How long each is tried.")] = "3d",
    limit: Limit = 1000,
    json_output: Json = False,
) -> int:
    """Send notices again, under the same ids: subscribers tell repeated ones by those."""
    if (event_id is None) is (subscriber is None):
        raise InvalidInputError("replay: either an EVENT_ID or --subscriber")
    patience = duration("within", within)

    async def run() -> list[tuple[NoticeRow, bool]]:
        state = None if event_id else NoticeState.DEAD
        found = await _find(subscriber, state, event_id, limit)
        if event_id and not found:
            raise InvalidInputError(f"EVENT_ID: there is no notice {event_id}")
        engine = await connect(environment())
        return [(one, await replay_notice(engine, one, patience)) for one in found]

    replayed = asyncio.run(run())
    if json_output:
        output.as_json(
            [{"event_id": one.event_id, "started": started} for one, started in replayed]
        )
        return Exit.COMPLETED
    for one, started in replayed:
        print(f"{one.event_id}: {'on its way' if started else 'is being delivered already'}")
    if not replayed:
        print(f"nothing for {subscriber} is dead")
    return Exit.COMPLETED


async def _find(
    subscriber: str | None, state: NoticeState | None, event_id: str | None, limit: int
) -> list[NoticeRow]:
    ledger = Ledger.open(load_settings().ledger_url, utc_now)
    try:
        return await ledger.notices.find(
            subscriber=subscriber, state=state, event_id=event_id, limit=limit
        )
    finally:
        await ledger.close()


def _row(one: NoticeRow) -> dict[str, Any]:
    return {
        "event_id": one.event_id,
        "subscriber": one.subscriber,
        "state": str(one.state),
        "attempts": one.attempts,
        "happened_at": one.happened_at.isoformat(timespec="seconds"),
        "reason": one.reason or "",
    }
