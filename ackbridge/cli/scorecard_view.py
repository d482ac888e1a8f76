"""Scorecards for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import ControlSnapshot, FlagState
from ackbridge.control.deadlines import format_span
from ackbridge.stats.scorecard import Latency, Score, Scorecard
from ackbridge.terminal import output

Cell = str | Text

_FLAGS = {FlagState.ON: "green", FlagState.OFF: "red"}
_BREAKERS = {BreakerState.CLOSED: "green", BreakerState.OPEN: "red"}
_UNKNOWN = "-"


def overview(
    cards: Sequence[Scorecard], snapshots: Mapping[str, ControlSnapshot], environment: str
) -> RenderableType:
    """One line for each provider; `environment` says whose flags."""
    rows: list[list[Cell]] = []
    for one in cards:
        snapshot = snapshots.get(one.provider)
        flag = _flag(snapshot, environment) if snapshot else _UNKNOWN
        rows.append(
            [one.provider, flag, _breaker(one.breaker), *(draw(one.whole) for _, draw in _SHORT)]
        )
    columns = ["provider", "flag", "breaker", *(name for name, _ in _SHORT)]
    return output.table(_title(f"{len(cards)} providers", cards), columns, rows)


def detail(card: Scorecard, snapshot: ControlSnapshot | None, environment: str) -> RenderableType:
    """One provider: a column for each operation, and one for all of them."""
    columns = [*card.operations, card.whole]
    rows: list[list[Cell]] = [[name, *(draw(one) for one in columns)] for name, draw in _LINES]
    names = ["", *(one.operation for one in card.operations), "all of it"]
    drawn: list[RenderableType] = [output.table(_title(card.provider, [card]), names, rows)]
    if snapshot is not None:
        drawn.append(Text.assemble(f"flag in {environment}: ", _flag(snapshot, environment)))
    if card.breaker is not None:
        since = f"{card.breaker.since:%Y-%m-%d %H:%M:%S} UTC"
        why = f" since {since}: {card.breaker.reason}"
        drawn.append(Text.assemble("breaker: ", _breaker(card.breaker), why))
    drawn += [
        Text(f"deadline of {one.operation}: {one.deadline_reason}")
        for one in card.operations
        if one.deadline_reason is not None
    ]
    return Group(*drawn)


def _title(what: str, cards: Sequence[Scorecard]) -> str:
    if not cards:
        return what
    return f"{what}, since {cards[0].since:%H:%M:%S} UTC"


def _flag(snapshot: ControlSnapshot, environment: str) -> Text:
    value = snapshot.override(environment) or snapshot.configured.flag(environment)
    return Text(str(value), style=_FLAGS.get(value.state, "yellow"))


def _breaker(breaker: BreakerStatus | None) -> Cell:
    if breaker is None:
        return _UNKNOWN
    said = f"{breaker.state}, held" if breaker.forced_by else str(breaker.state)
    return Text(said, style=_BREAKERS.get(breaker.state, "yellow"))


def _deadline(score: Score) -> Cell:
    return format_span(score.deadline) if score.deadline is not None else _UNKNOWN


def _uptime(score: Score) -> Cell:
    return _share(score.uptime, good=0.99)


def _receipts(score: Score) -> Cell:
    return _share(score.receipt_rate, good=0.95)


def _answers(score: Score) -> Cell:
    return _share(score.answer_rate, good=0.95)


def _share(share: float | None, *, good: float) -> Cell:
    if share is None:
        return _UNKNOWN
    style = "" if share >= good else "yellow" if share >= 0.5 else "red"
    return Text(f"{share * 100:.3g} %", style=style)


def _theirs(score: Score) -> Cell:
    return _rate(score.errors_per_minute)


def _ours(score: Score) -> Cell:
    return _rate(score.ours_per_minute)


def _rate(rate: float) -> Cell:
    return Text(f"{rate:.1f}", style="yellow" if rate else "")


def _receipt_times(score: Score) -> Cell:
    return _latency(score.receipt)


def _answer_times(score: Score) -> Cell:
    return _latency(score.answer)


def _latency(times: Latency | None) -> str:
    if times is None:
        return _UNKNOWN
    return f"{times.p50:.2g} / {times.p95:.2g} / {times.p99:.2g}"


def _number(name: str) -> Callable[[Score], Cell]:
    return lambda score: str(getattr(score, name))


def _worst_answer_time(score: Score) -> str:
    return f"{score.answer.p99:.2g}" if score.answer else _UNKNOWN


_Lines = Sequence[tuple[str, Callable[[Score], Cell]]]

_LINES: _Lines = (
    ("up", _uptime),
    ("sends", _number("sends")),
    ("receipts", _receipts),
    ("  p50 / p95 / p99, s", _receipt_times),
    ("answers", _answers),
    ("  p50 / p95 / p99, s", _answer_times),
    ("deadline", _deadline),
    ("their errors / min", _theirs),
    ("our trouble / min", _ours),
    ("deadlines passed", _number("silences")),
    ("late answers", _number("late")),
    ("duplicates", _number("duplicates")),
    ("failures reported", _number("failures")),
    ("refused", _number("refused")),
    ("throttled", _number("throttled")),
    ("parked now", _number("parked")),
    ("owed now", _number("owed")),
)

_SHORT: _Lines = (
    ("up", _uptime),
    ("answers", _answers),
    ("p99 s", _worst_answer_time),
    ("err/min", _theirs),
    ("ours", _ours),
    ("parked", _number("parked")),
    ("owed", _number("owed")),
)
"""What fits into a line of 80 characters."""
