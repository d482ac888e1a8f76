"""breaker and limit: when and how fast is sent to a provider; changed live, for everybody."""

from __future__ import annotations

from typing import Annotated

import typer

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.breaker import BreakerState, ForceBreaker, SetLimit
from ackbridge.contracts.control import ControlChange, ControlSnapshot
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import EngineUnavailableError
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import By, Json, with_client
from .flag import tell

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="Whose.")]
Reason = Annotated[str | None, typer.Option(help="Why; everybody will read it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(breaker))
    app.command()(exits_with_its_answer(limit))


def breaker(
    provider: Provider,
    by: By,
    state: Annotated[
        str | None,
        typer.Argument(
            metavar="[open|closed|half_open|auto]",
            help="Where it is held; `auto` leaves it to what is observed.",
        ),
    ] = None,
    reason: Reason = None,
    json_output: Json = False,
) -> int:
    """Show the breaker of a provider and how fast is sent, or hold the breaker somewhere.

    Open, nothing is sent and new calls are parked or refused, as their operation says; half open,
    single calls pass. It is held until it is let go with `auto`.
    """
    if state is None:
        return _show(provider, json_output)
    known = (*BreakerState, "auto")
    if state not in known:
        raise InvalidInputError(f"{state}: must be one of {', '.join(known)}")
    held = None if state == "auto" else state
    order = parse_argument(ForceBreaker, ({"state": held, "by": by, "reason": _said(reason)},))

    async def act(calls: AckbridgeClient) -> ControlChange | None:
        return await calls.control(provider).force_breaker(order)

    return tell(provider, with_client(act), json_output)


def limit(
    provider: Provider,
    rate: Annotated[
        str, typer.Argument(metavar="N/s|default", help="Sends per second; 0/s stops them.")
    ],
    by: By,
    reason: Reason = None,
    json_output: Json = False,
) -> int:
    """Bound the sends to a provider, all workers together; acknowledgements are not held up.

    It takes effect within seconds, and stays until `default` goes back to the integration file.
    """
    order = parse_argument(
        SetLimit, ({"per_second": _parse(rate), "by": by, "reason": _said(reason)},)
    )

    async def act(calls: AckbridgeClient) -> ControlChange | None:
        return await calls.control(provider).set_limit(order)

    return tell(provider, with_client(act), json_output)


def _parse(rate: str) -> float | None:
    if rate == "default":
        return None
    try:
        return float(rate.removesuffix("/s"))
    except ValueError:
        raise InvalidInputError(f"{rate}: must be N/s, such as 25/s or 0.5/s, or default") from None


def _said(reason: str | None) -> str:
    if reason is None:
        raise InvalidInputError("--reason: say why; everybody will read it")
    return reason


def _show(provider: str, json_output: bool) -> int:
    async def look(calls: AckbridgeClient) -> ControlSnapshot | None:
        return await calls.control(provider).snapshot()

    snapshot = with_client(look)
    if snapshot is None:
        raise EngineUnavailableError(f"{provider}: its control has just been started")
    if json_output:
        output.as_json(snapshot)
        return Exit.COMPLETED
    now, bound = snapshot.breaker, snapshot.limit
    held = f", held by {now.forced_by}" if now.forced_by else ""
    word = f" (bounded to {bound.per_second:g}/s by {bound.by}: {bound.reason})" if bound else ""
    output.console.print(
        f"breaker of {provider}: {now.state}{held} since {now.since:%Y-%m-%d %H:%M:%S} UTC:"
        f" {now.reason}\nsends: {snapshot.rate or 'not set yet'}{word}",
        markup=False,
    )
    return Exit.COMPLETED
