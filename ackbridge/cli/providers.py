"""providers: scorecards of the providers, as observed by all workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control import ControlHandle
from ackbridge.clock import utc_now
from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import ControlSnapshot, FlagState
from ackbridge.control.deadlines import format_span
from ackbridge.errors import AckbridgeError, ConfigurationError, UnknownNameError, unknown_name
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.settlement import UnknownTotal
from ackbridge.settings import environment, integrations_folder, load_settings
from ackbridge.stats.scorecard import Latency, Score, Scorecard
from ackbridge.terminal import output

from .connections import connect_quickly, opened_ledger
from .options import Json, parse_duration

REFRESH_INTERVAL = 2.0
"""Seconds between two refreshes of `--watch`; workers report about as often."""

KEPT_FOR = timedelta(days=1)
"""How long the ledger keeps statistics."""

_FLAG_STYLES = {FlagState.ON: "green", FlagState.OFF: "red"}
_BREAKER_STYLES = {BreakerState.CLOSED: "green", BreakerState.OPEN: "red"}
_UNKNOWN = "-"

Cell = str | Text


def providers(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One provider, with its operations.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option(help="The time span to look at: `5m`, `1h`; at most a day.")
    ] = "10m",
    json_output: Json = False,
) -> None:
    """Show uptime, response rates, latencies and errors of the providers.

    Errors of the provider are separate from our own.
    """
    window = parse_duration("since", since)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(name, window, watch=watch, json_output=json_output))


async def _show(name: str | None, window: timedelta, *, watch: bool, json_output: bool) -> None:
    async with _open_source() as source:
        names = await source.names(name)

        async def fetch() -> list[Scorecard]:
            return await source.scorecards(names, window)

        def render(cards: Sequence[Scorecard]) -> RenderableType:
            return source.render(cards, is_detailed=name is not None)

        if json_output:
            plain = [
                {**card.model_dump(mode="json"), "unknown": _plain_total(source, card.provider)}
                for card in await fetch()
            ]
            output.print_json(plain if name is None else plain[0])
        elif watch:
            await output.watch(fetch, render, interval=REFRESH_INTERVAL, transient=False)
        else:
            output.console.print(render(await fetch()))


@dataclass
class _Source:
    """The ledger with the statistics, and the providers' controls where they can be read.

    Attributes:
        environment: whose flags are shown.
        warning: why the controls are not known; empty when they are.
        snapshots: the last one of each control that was read.
        unknown: by provider, the calls whose effect is unknown now.
    """

    ledger: Ledger
    client: Client | None
    environment: str
    warning: str = ""
    snapshots: dict[str, ControlSnapshot] = field(default_factory=dict)
    unknown: dict[str, UnknownTotal] = field(default_factory=dict)

    async def names(self, name: str | None) -> list[str]:
        """The providers that have an integration file here or statistics in the ledger."""
        known = set(await self.ledger.stats.providers(utc_now() - KEPT_FOR))
        settings = load_settings()
        # A file may need variables that are not set here; its statistics are shown all the same.
        with contextlib.suppress(ConfigurationError):
            catalog = load_catalog(integrations_folder(settings.integrations), environment())
            known |= catalog.integrations.keys()
        if name is None:
            return sorted(known)
        if name not in known:
            raise UnknownNameError(unknown_name("provider", name, known))
        return [name]

    async def scorecards(self, names: Sequence[str], window: timedelta) -> list[Scorecard]:
        since = utc_now() - window
        totals = await self.ledger.settlement.unknown_totals()
        self.unknown = {total.provider: total for total in totals}
        cards = []
        for name in names:
            await self._read_control(name)
            cards.append(await self.ledger.stats.scorecard(name, since, self.snapshots.get(name)))
        return cards

    def render(self, cards: Sequence[Scorecard], *, is_detailed: bool) -> RenderableType:
        if is_detailed:
            (card,) = cards
            drawn = _detail(card, self.snapshots.get(card.provider), self.environment)
        else:
            drawn = _overview(cards, self.snapshots, self.environment)
        notes = [
            Text(_unknown_note(total))
            for total in self.unknown.values()
            if any(total.provider == card.provider for card in cards)
        ]
        return Group(drawn, *notes, *([self.warning] if self.warning else []))

    async def _read_control(self, name: str) -> None:
        if self.client is None:
            return
        try:
            snapshot = await ControlHandle(self.client, name).snapshot()
        except UnknownNameError:
            return
        except AckbridgeError as error:
            self.warning = _warning(error)
            return
        self.warning = ""
        if snapshot is not None:
            self.snapshots[name] = snapshot


@contextlib.asynccontextmanager
async def _open_source() -> AsyncIterator[_Source]:
    async with opened_ledger() as ledger:
        try:
            client, warning = await connect_quickly(), ""
        except AckbridgeError as error:
            client, warning = None, _warning(error)
        yield _Source(ledger, client, load_settings().environment, warning)


def _unknown_note(total: UnknownTotal) -> str:
    amount = "" if total.amount is None else f", sum {total.amount}"
    return (
        f"{total.provider}: {output.counted(total.calls, 'call')} with unknown effect,"
        f" the oldest for {output.age(utc_now() - total.since)}{amount}: ackbridge unknown"
    )


def _plain_total(source: _Source, provider: str) -> dict[str, Any] | None:
    total = source.unknown.get(provider)
    if total is None:
        return None
    amount = None if total.amount is None else str(total.amount)
    return {"calls": total.calls, "since": total.since.isoformat(), "amount": amount}


def _warning(error: AckbridgeError) -> str:
    return f"Flags, breakers and deadlines are not known: {str(error).splitlines()[0][:90]}"


def _overview(
    cards: Sequence[Scorecard], snapshots: Mapping[str, ControlSnapshot], environment: str
) -> RenderableType:
    """One row for each provider, at most 80 characters wide."""
    rows: list[list[Cell]] = []
    for card in cards:
        snapshot = snapshots.get(card.provider)
        flag = _flag(snapshot, environment) if snapshot else _UNKNOWN
        values = (draw(card.whole) for _, draw in _OVERVIEW)
        rows.append([card.provider, flag, _breaker(card.breaker), *values])
    columns = ["provider", "flag", "breaker", *(name for name, _ in _OVERVIEW)]
    return output.table(_title(output.counted(len(cards), "provider"), cards), columns, rows)


def _detail(card: Scorecard, snapshot: ControlSnapshot | None, environment: str) -> RenderableType:
    """One provider: a column for each operation, and one for all of them."""
    scores = [*card.operations, card.whole]
    rows: list[list[Cell]] = [[name, *(draw(score) for score in scores)] for name, draw in _DETAIL]
    columns = ["", *(score.operation for score in card.operations), "total"]
    drawn: list[RenderableType] = [output.table(_title(card.provider, [card]), columns, rows)]
    if snapshot is not None:
        drawn.append(Text.assemble(f"flag in {environment}: ", _flag(snapshot, environment)))
    if card.breaker is not None:
        since = f"{card.breaker.since:%Y-%m-%d %H:%M:%S} UTC"
        reason = f" since {since}: {card.breaker.reason}"
        drawn.append(Text.assemble("breaker: ", _breaker(card.breaker), reason))
    drawn += [
        Text(f"deadline of {score.operation}: {score.deadline_reason}")
        for score in card.operations
        if score.deadline_reason is not None
    ]
    return Group(*drawn)


def _title(text: str, cards: Sequence[Scorecard]) -> str:
    return f"{text}, since {cards[0].since:%H:%M:%S} UTC" if cards else text


def _flag(snapshot: ControlSnapshot, environment: str) -> Text:
    value = snapshot.override(environment) or snapshot.configured.flag(environment)
    return Text(str(value), style=_FLAG_STYLES.get(value.state, "yellow"))


def _breaker(breaker: BreakerStatus | None) -> Cell:
    if breaker is None:
        return _UNKNOWN
    text = f"{breaker.state}, held" if breaker.forced_by else str(breaker.state)
    return Text(text, style=_BREAKER_STYLES.get(breaker.state, "yellow"))


def _deadline(score: Score) -> Cell:
    return format_span(score.deadline) if score.deadline is not None else _UNKNOWN


def _share(share: float | None, *, good: float = 0.95) -> Cell:
    if share is None:
        return _UNKNOWN
    style = "" if share >= good else "yellow" if share >= 0.5 else "red"
    return Text(f"{share * 100:.3g} %", style=style)


def _uptime(score: Score) -> Cell:
    return _share(score.uptime, good=0.99)


def _response_rate(score: Score) -> Cell:
    return _share(score.answer_rate)


def _rate(rate: float) -> Cell:
    return Text(f"{rate:.1f}", style="yellow" if rate else "")


def _provider_errors(score: Score) -> Cell:
    return _rate(score.errors_per_minute)


def _our_errors(score: Score) -> Cell:
    return _rate(score.ours_per_minute)


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return _UNKNOWN
    return f"{latency.p50:.2g} / {latency.p95:.2g} / {latency.p99:.2g}"


def _number(name: str) -> Callable[[Score], Cell]:
    return lambda score: str(getattr(score, name))


_Columns = Sequence[tuple[str, Callable[[Score], Cell]]]

_DETAIL: _Columns = (
    ("up", _uptime),
    ("sends", _number("sends")),
    ("receipts", lambda score: _share(score.receipt_rate)),
    ("  p50 / p95 / p99, s", lambda score: _latency(score.receipt)),
    ("responses", _response_rate),
    ("  p50 / p95 / p99, s", lambda score: _latency(score.answer)),
    ("deadline", _deadline),
    ("provider errors / min", _provider_errors),
    ("our errors / min", _our_errors),
    ("deadlines passed", _number("silences")),
    ("late responses", _number("late")),
    ("duplicates", _number("duplicates")),
    ("failures reported", _number("failures")),
    ("refused", _number("refused")),
    ("throttled", _number("throttled")),
    ("parked now", _number("parked")),
    ("owed now", _number("owed")),
)

_OVERVIEW: _Columns = (
    ("up", _uptime),
    ("resp.", _response_rate),
    ("p99 s", lambda score: f"{score.answer.p99:.2g}" if score.answer else _UNKNOWN),
    ("err/min", _provider_errors),
    ("ours", _our_errors),
    ("parked", _number("parked")),
    ("owed", _number("owed")),
)
