"""limit: how fast a provider is sent requests, why, and how an operator limits it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from ackbridge.client.control import ControlHandle
from ackbridge.client.limits import LimitView, read_limits
from ackbridge.clock import utc_now
from ackbridge.contracts.breaker import SetLimit
from ackbridge.contracts.quotas import QuotaStatus
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import EngineUnavailableError
from ackbridge.ledger.ledger import Ledger
from ackbridge.terminal import output

from .connections import connect_quickly, opened_ledger
from .control import Provider, Reason, change_control, required_reason
from .options import By, Json

REFRESH_INTERVAL = 2.0
"""Seconds; the rates are adapted as often."""


def limit(
    provider: Provider,
    by: By,
    rate: Annotated[
        str | None,
        typer.Argument(
            metavar="[N/s|default]", help="Sends per second; 0/s stops sending. None: show them."
        ),
    ] = None,
    reason: Reason = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    json_output: Json = False,
) -> int | None:
    """Show how fast a provider is sent requests now, or limit it, over all workers.

    A provider that answers 429 is slowed down by itself, and what it turns out to accept is shown.
    A limit of yours takes effect within seconds, holds until `default` returns to the integration
    file, and starts over what was learned. Acknowledgements are not limited.
    """
    if rate is None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_show(provider, watch=watch, json_output=json_output))
        return None
    fields = {"per_second": _parse_rate(rate), "by": by, "reason": required_reason(reason)}
    request = parse_argument(SetLimit, (fields,))
    return change_control(provider, lambda control: control.set_limit(request), json_output)


def _parse_rate(rate: str) -> float | None:
    if rate == "default":
        return None
    try:
        return float(rate.removesuffix("/s"))
    except ValueError:
        raise InvalidInputError(f"{rate}: must be N/s, such as 25/s or 0.5/s, or default") from None


async def _show(provider: str, *, watch: bool, json_output: bool) -> None:
    control = ControlHandle(await connect_quickly(), provider)
    async with opened_ledger() as ledger:

        async def fetch() -> LimitView:
            return await _read(control, ledger, provider)

        if json_output:
            output.print_json(await fetch())
        elif watch:
            await output.watch(fetch, _render, interval=REFRESH_INTERVAL, transient=False)
        else:
            output.console.print(_render(await fetch()))


async def _read(control: ControlHandle, ledger: Ledger, provider: str) -> LimitView:
    snapshot = await control.snapshot()
    if snapshot is None:
        raise EngineUnavailableError(f"{provider}: its control has just started; try again")
    return await read_limits(snapshot, ledger, utc_now)


def _render(view: LimitView) -> RenderableType:
    now = utc_now()
    rows = [
        (
            one.tenant or "all sends",
            "unlimited" if one.now is None else f"{one.now:.3g}/s",
            str(one.accepted) if one.accepted or one.throttled else "-",
            str(one.throttled) if one.accepted or one.throttled else "-",
            f"{one.in_flight} (+{one.waiting})" if one.in_flight or one.waiting else "-",
            "; ".join(_reasons(one.status, now)),
        )
        for one in view.quotas
    ]
    columns = ("tenant", "now", "accepted", "429", "at once (+ waiting)", "why")
    title = f"sends of {view.provider}; requests of the last minute"
    return Group(Text(_allowed(view)), output.table(title, columns, rows))


def _allowed(view: LimitView) -> str:
    """What the file, an operator and the breaker allow."""
    allowed = f"allowed: {view.rate or 'not set yet'}"
    if view.limit is None:
        return allowed
    return (
        f"{allowed}, limited to {view.limit.per_second:g}/s by {view.limit.by}: {view.limit.reason}"
    )


def _reasons(status: QuotaStatus | None, now: datetime) -> Iterator[str]:
    if status is None:
        return
    if status.is_paused(now) and status.paused_until is not None:
        yield f"paused until {status.paused_until:%H:%M:%S} UTC"
    if status.stated is not None:
        yield f"its headers leave {status.stated:.3g}/s"
    if status.per_second is not None and status.throttled_at is not None:
        yield f"rejected requests last at {status.throttled_at:%H:%M:%S} UTC"
    if status.reason:
        yield status.reason
