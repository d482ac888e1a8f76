"""providers: how the providers do, by what all workers have observed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control import ControlHandle
from ackbridge.clock import utc_now
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.errors import AckbridgeError, ConfigurationError, UnknownNameError, unknown_name
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import environment, integrations_folder, load_settings
from ackbridge.stats.scorecard import Scorecard
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from . import scorecard_view
from .calls import Json, duration

LOOK_EVERY = 2.0
"""Seconds between two looks of `--watch`; workers report about as often."""

A_DAY = timedelta(days=1)
"""So long observations are kept."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(exits_with_its_answer(providers))


def providers(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One provider, with its operations.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option(help="How far to look back: `5m`, `1h`, a day at the most.")
    ] = "10m",
    json_output: Json = False,
) -> int:
    """Show how the providers do: their trouble told apart from ours."""
    span = duration("since", since)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(name, span, watch=watch, json_output=json_output))
    return Exit.COMPLETED


async def _show(name: str | None, span: timedelta, *, watch: bool, json_output: bool) -> None:
    async with _desk() as desk:
        names = await desk.names(name)
        seen = await desk.look(names, span)
        if json_output:
            plain = [one.model_dump(mode="json") for one in seen]
            output.as_json(plain if name is None else plain[0])
        elif not watch:
            output.console.print(_drawn(desk, name, seen))
        else:
            with Live(_drawn(desk, name, seen), console=output.console, screen=False) as live:
                while True:
                    await asyncio.sleep(LOOK_EVERY)
                    live.update(_drawn(desk, name, await desk.look(names, span)))


def _drawn(desk: _Desk, name: str | None, seen: Sequence[Scorecard]) -> RenderableType:
    if name is None:
        drawn = scorecard_view.overview(seen, desk.snapshots, desk.environment)
    else:
        drawn = scorecard_view.detail(seen[0], desk.snapshots.get(name), desk.environment)
    return Group(drawn, desk.trouble) if desk.trouble else drawn


@dataclass
class _Desk:
    """What the command looks at.

    Attributes:
        environment: whose flags are shown.
        trouble: why nothing is known of the controls, if so.
        snapshots: what the controls have published last, where that is known.
    """

    ledger: Ledger
    engine: Client | None
    environment: str
    trouble: str = ""
    snapshots: dict[str, ControlSnapshot] = field(default_factory=dict)

    async def names(self, name: str | None) -> list[str]:
        """The providers to show: those with a file here, and those that were observed."""
        known = set(await self.ledger.stats.providers(utc_now() - A_DAY))
        settings = load_settings()
        try:
            catalog = load_catalog(integrations_folder(settings.integrations), environment())
        except ConfigurationError:
            # A file lacks its environment here; whoever serves it has reported.
            pass
        else:
            known |= catalog.integrations.keys()
        if name is None:
            return sorted(known)
        if name not in known:
            raise UnknownNameError(unknown_name("provider", name, known))
        return [name]

    async def look(self, names: Sequence[str], span: timedelta) -> list[Scorecard]:
        """The scorecards."""
        since = utc_now() - span
        seen = []
        for name in names:
            await self._look_at_control(name)
            seen.append(await self.ledger.stats.scorecard(name, since, self.snapshots.get(name)))
        return seen

    async def _look_at_control(self, name: str) -> None:
        if self.engine is None:
            return
        try:
            snapshot = await ControlHandle(self.engine, name).snapshot()
        except UnknownNameError:
            return
        except AckbridgeError as error:
            self.trouble = _unknown(error)
            return
        self.trouble = ""
        if snapshot is not None:
            self.snapshots[name] = snapshot


def _unknown(error: AckbridgeError) -> str:
    return f"Flags, breakers and deadlines are not known now: {str(error).splitlines()[0][:90]}"


@contextlib.asynccontextmanager
async def _desk() -> AsyncIterator[_Desk]:
    settings = load_settings()
    ledger = Ledger.open(settings.ledger_url, utc_now)
    try:
        try:
            engine, trouble = await connect(environment()), ""
        except AckbridgeError as error:
            engine, trouble = None, _unknown(error)
        yield _Desk(ledger, engine, settings.environment, trouble)
    finally:
        await ledger.close()
