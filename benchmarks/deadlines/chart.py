"""The picture: response times, the learned deadline, the oracle's, and the fixed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .providers import HOUR, Provider
from .simulation import RULES, Day

HOURS = 4
SHOWN = 60
"""One call in so many is a dot."""


def draw(days: Sequence[tuple[Provider, Day]], picture: Path) -> None:
    """Draw one panel for each provider; the same days make the same file."""
    figure = Figure(figsize=(9, 2.1 * len(days)), layout="constrained")
    panels = figure.subplots(len(days), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (provider, day) in zip(panels, days, strict=True):
        _panel(panel, provider, day)
    panels[-1].set_xlabel("hours")
    panels[0].legend(loc="upper right", ncols=2, fontsize=7, framealpha=0.9)
    # Nothing in the file may change by itself: it is committed.
    with mpl.rc_context({"svg.hashsalt": "ackbridge", "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})


def _panel(panel: Any, provider: Provider, day: Day) -> None:
    shown = [call for call in day.calls[::SHOWN] if call.takes < float("inf")]
    panel.scatter(
        [call.at / HOUR for call in shown],
        [call.takes for call in shown],
        s=2,
        color="0.6",
        linewidths=0,
        label="response times",
    )
    fixed = RULES.initial.total_seconds()
    panel.axhline(fixed, color="tab:red", linewidth=1, label="fixed timeout")
    grid = [minute / 60 for minute in range(0, 60 * HOURS + 1, 5)]
    panel.plot(
        grid,
        [day.oracle(hour * HOUR) for hour in grid],
        color="tab:green",
        linestyle="--",
        linewidth=1.2,
        label="oracle",
    )
    at = [0.0, *(moment / HOUR for moment, _ in day.learned), float(HOURS)]
    deadlines = [fixed, *(one.deadline.total_seconds() for _, one in day.learned)]
    panel.step(
        at,
        [*deadlines, deadlines[-1]],
        where="post",
        color="tab:blue",
        linewidth=1.5,
        label="learned deadline",
    )
    panel.set_yscale("log")
    panel.set_ylim(0.1, 60)
    panel.set_ylabel("seconds")
    panel.set_title(provider.name, loc="left", fontsize=9)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
