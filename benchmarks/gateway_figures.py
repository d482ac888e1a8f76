"""The figures of the gateway's benchmark: medians and ratios, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

BARE, FASTAPI, FLOOR = "bare endpoint", "FastAPI endpoint", "engine floor"

console = Console(highlight=False)


@dataclass
class Lane:
    """What was measured of one way of taking callbacks, one entry a round.

    Attributes:
        per_second: callbacks answered with 2xx, or signals taken by the engine.
        p50, p99: milliseconds of an answer, with all connections busy.
        cpu: by process, microseconds per callback.
        signals: signals in the histories for each distinct message.
    """

    per_second: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    signals: list[float] = field(default_factory=list)


def medians(lanes: Mapping[str, Lane]) -> dict[str, dict[str, float]]:
    """By lane: the medians of its rounds, and the ratios to the bare endpoint and the floor."""
    found = {}
    for name, lane in lanes.items():
        per_second = median(lane.per_second)
        found[name] = {
            "per_second": per_second,
            "p50": median(lane.p50),
            "p99": median(lane.p99),
            "of_bare": _ratio(lane, lanes[BARE]),
            "of_fastapi": _ratio(lane, lanes[FASTAPI]),
            "of_floor": _ratio(lane, lanes[FLOOR]),
            **{f"cpu_{part}": median(used) for part, used in lane.cpu.items()},
            **({"signals": median(lane.signals)} if lane.signals else {}),
        }
    return found


def _ratio(lane: Lane, other: Lane) -> float:
    """Of what was measured in the same round, so that a noisy round is noisy for both."""
    return median(a / b for a, b in zip(lane.per_second, other.per_second, strict=True))


def show(lanes: Mapping[str, Lane]) -> None:
    """Print the medians."""
    columns = {
        "per_second": "a second",
        "p50": "p50 ms",
        "p99": "p99 ms",
        "of_bare": "of bare",
        "of_fastapi": "of FastAPI",
        "of_floor": "of floor",
        "signals": "signals/message",
        "cpu_bare": "µs bare",
        "cpu_gateway": "µs gateway",
        "cpu_engine": "µs engine",
        "cpu_load": "µs load",
    }
    table = Table(title="\nCallbacks, medians of the rounds", title_justify="left", box=None)
    for column in ("", *columns.values()):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in medians(lanes).items():
        cells = (f"{values[key]:.3g}" if key in values else "" for key in columns)
        table.add_row(name, *cells)
    console.print(table)
