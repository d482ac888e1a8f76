"""The picture: healthy calls kept back, and requests sent in vain, for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .simulation import Result

HEIGHT = 0.27
"""Of one bar; scenarios are 1 apart."""

NAMES = ("Ackbridge", "a plain counter breaker", "no breaker")
COLOURS = ("tab:blue", "tab:orange", "0.6")


def draw(rows: Sequence[tuple[Result, ...]], picture: Path) -> None:
    """Draw one group of bars for each scenario; the same results make the same file."""
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.2), layout="constrained")
    kept, in_vain = figure.subplots(1, 2, sharey=True)
    _bars(kept, [[one.kept_back for one in row] for row in rows])
    for number, (ours, *_) in enumerate(rows):
        kept.plot(
            [ours.bound] * 2,
            [number - 0.45, number + 0.45],
            color="tab:red",
            label="twice the outage and one open period" if number == 0 else None,
        )
    _bars(in_vain, [[one.in_vain for one in row] for row in rows])
    kept.set_yticks(range(len(rows)), [row[0].scenario.name for row in rows], fontsize=8)
    kept.invert_yaxis()
    kept.set_title("healthy calls kept back, seconds", fontsize=9)
    in_vain.set_title("requests sent in vain", fontsize=9)
    figure.legend(
        *kept.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    # Nothing in the file may change by itself: it is committed.
    with mpl.rc_context({"svg.hashsalt": "ackbridge", "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})


def _bars(panel: Any, rows: list[list[float]]) -> None:
    for number, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        at = [row + (number - 1) * HEIGHT for row in range(len(rows))]
        panel.barh(at, [row[number] for row in rows], HEIGHT, color=colour, label=name)
    panel.set_xscale("symlog", linthresh=10)
    panel.tick_params(axis="x", labelsize=7)
