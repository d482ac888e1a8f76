"""The picture: memory, throughput of new calls, and a restart, over the number of waiting calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def draw(levels: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """Draw three panels; the same levels make the same file."""
    waiting = [level["waiting"] for level in levels]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    memory, rate, restart = figure.subplots(1, 3)
    _lines(memory, waiting, levels, {"engine": "engine", "worker": "worker"})
    memory.set_title("memory, MiB", loc="left", fontsize=9)
    shares = [level["per_second"] / level["empty_per_second"] for level in levels]
    rate.plot(waiting, shares, marker="o", color="tab:blue")
    rate.axhline(0.9, color="tab:red", linewidth=1, label="target")
    rate.set_ylim(0, 1.3)
    rate.set_title("new calls/s, of an empty stack's", loc="left", fontsize=9)
    _lines(
        restart,
        waiting,
        levels,
        {"restart": "ready", "first_call": "a new call", "asked": "waiting calls asked"},
    )
    restart.set_title("seconds after a kill of the worker", loc="left", fontsize=9)
    for panel in (memory, rate, restart):
        panel.set_xscale("log")
        panel.set_xlabel("waiting calls")
        panel.legend(fontsize=7)
        panel.tick_params(labelsize=7)
    for panel in (memory, restart):
        panel.set_ylim(bottom=0)
    # Nothing in the file may change by itself: it is committed.
    with mpl.rc_context({"svg.hashsalt": "ackbridge", "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})


def _lines(
    panel: Any,
    waiting: Sequence[int],
    levels: Sequence[Mapping[str, Any]],
    series: Mapping[str, str],
) -> None:
    for name, label in series.items():
        panel.plot(waiting, [level[name] for level in levels], marker="o", label=label)
