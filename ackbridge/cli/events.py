"""catch-up: read a provider's own list of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from temporalio.client import Client

from ackbridge.client.catch_up import catch_up as run_catch_up
from ackbridge.client.control import ControlHandle
from ackbridge.clock import utc_now
from ackbridge.contracts.catch_up import CatchUpProgress, CatchUpRequest
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.terminal import output

from .connections import with_temporal
from .options import By, Json, parse_duration


def catch_up(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER")],
    since: Annotated[
        str, typer.Option(help="From when: how long ago, such as 2h, or an ISO 8601 time.")
    ],
    by: By,
    json_output: Json = False,
) -> None:
    """Deliver events that the provider lists and that no callback has delivered.

    Gateways do this by themselves after they were away. The provider's file needs `callbacks.list`.
    """
    fields = {"provider": provider, "since": _moment(since).isoformat(), "by": by}
    request = parse_argument(CatchUpRequest, (fields,))

    async def run(client: Client) -> CatchUpProgress:
        # Its queue has no workers if there is no such provider.
        await ControlHandle(client, provider).snapshot()
        return await run_catch_up(client, request)

    progress = with_temporal(run)
    if json_output:
        output.print_json(progress.model_dump(mode="json", exclude={"page"}))
        return
    pages = output.counted(progress.pages, "page")
    listed = ", ".join(f"{number} {result}" for result, number in sorted(progress.events.items()))
    print(f"{pages}: {listed or 'no events'}")
    if progress.last_problem:
        print(f"last unreadable event: {progress.last_problem}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return utc_now() - parse_duration("since", text)
        except InvalidInputError:
            message = "--since: neither a duration such as 2h nor a time such as 2026-03-01T12:00Z"
            raise InvalidInputError(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
