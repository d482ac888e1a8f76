"""notices: deliveries to subscribers, and replaying them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.client.notices import replay_notice
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.notices import NoticeRow, NoticeState
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import exits_with_code

from .connections import record_if_possible, with_ledger, with_temporal
from .options import Json, Limit, parse_duration

COLUMNS = ("event", "subscriber", "state", "attempts", "happened", "last error")


def list_notices(
    context: typer.Context,
    subscriber: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only notices to this subscriber.")
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only notices that are no longer retried.")
    ] = False,
    limit: Limit = 100,
    json_output: Json = False,
) -> None:
    """List notices to subscribers, oldest first; needs no worker."""
    if context.invoked_subcommand is None:
        state = NoticeState.DEAD if dead else None
        exits_with_code(_print_notices)(subscriber, state, limit, json_output)


def replay_notices(
    event_id: Annotated[
        str | None,
        typer.Argument(metavar="EVENT_ID", help="This notice, even if it was delivered."),
    ] = None,
    subscriber: Annotated[
        str | None, typer.Option(metavar="NAME", help="Every dead notice to this subscriber.")
    ] = None,
    within: Annotated[str, typer.Option(help="How long to retry each notice.")] = "3d",
    limit: Limit = 1000,
    json_output: Json = False,
) -> None:
    """Deliver notices again, with the same ids, by which subscribers recognize duplicates."""
    if (event_id is None) is (subscriber is None):
        raise InvalidInputError("replay: give either an EVENT_ID or --subscriber")
    timeout = parse_duration("within", within)
    notices = _find(subscriber, None if event_id else NoticeState.DEAD, event_id, limit)
    if event_id and not notices:
        raise InvalidInputError(f"EVENT_ID: there is no notice {event_id}")

    async def start(client: Client) -> list[dict[str, Any]]:
        return [
            {"event_id": notice.event_id, "started": await replay_notice(client, notice, timeout)}
            for notice in notices
        ]

    for notice in notices:
        record_if_possible("replay_notice", notice.event_id, within=within)
    started = with_temporal(start)
    if json_output:
        output.print_json(started)
        return
    for one in started:
        print(f"{one['event_id']}: {'started' if one['started'] else 'already being delivered'}")
    if not started:
        print(f"no dead notices for {subscriber}")


def _print_notices(
    subscriber: str | None, state: NoticeState | None, limit: int, json_output: bool
) -> None:
    notices = _find(subscriber, state, None, limit)
    rows = [_row(notice) for notice in notices]
    if json_output:
        bodies = [notice.body.model_dump(mode="json") for notice in notices]
        output.print_json([row | {"body": body} for row, body in zip(rows, bodies, strict=True)])
        return
    title = output.counted(len(rows), f"{state} notice" if state else "notice")
    output.print_rows(rows, title, COLUMNS, as_json=False)


def _find(
    subscriber: str | None, state: NoticeState | None, event_id: str | None, limit: int
) -> list[NoticeRow]:
    return with_ledger(
        lambda ledger: ledger.notices.find(
            subscriber=subscriber, state=state, event_id=event_id, limit=limit
        )
    )


def _row(notice: NoticeRow) -> dict[str, Any]:
    return {
        "event_id": notice.event_id,
        "subscriber": notice.subscriber,
        "state": str(notice.state),
        "attempts": notice.attempts,
        "happened_at": notice.happened_at.isoformat(timespec="seconds"),
        "reason": notice.reason or "",
    }
