"""The figures as a picture. It runs in an environment that has matplotlib, and imports nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

PANELS = (
    ("throughput", "calls a second, many in flight"),
    ("p50", "p50 at low load, ms"),
    ("cpu", "CPU seconds per 1000 calls"),
)
OURS, OTHERS = "#1f6feb", "#9aa4b2"
LANES_OF_OURS = ("ours", "bulk", "bulk-starts", "ours-slow-receipt", "ours-encrypted")


def main(figures: Path, plot: Path) -> None:
    """Draw the medians of a run as bars, and every round as a point.

    Args:
        figures: the JSON of `python -m benchmarks`.
        plot: the SVG file to write.
    """
    written = json.loads(figures.read_text())
    medians = {lane: one for lane, one in written["medians"].items() if "throughput" in one}
    lanes = sorted(medians, key=lambda lane: medians[lane]["throughput"], reverse=True)
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ackbridge", "font.size": 9})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 0.6 + 0.36 * len(lanes)), sharey=True)
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        values = [medians[lane][name] for lane in lanes]
        colours = [OURS if lane in LANES_OF_OURS else OTHERS for lane in lanes]
        bars = axis.barh(lanes, values, color=colours, height=0.65)
        axis.bar_label(bars, fmt="%.3g", padding=4)
        for number, lane in enumerate(lanes):
            points = rounds_of(written["rounds"][lane], name)
            axis.plot(points, [number] * len(points), "|", color="black", markersize=7)
        axis.set_title(title, loc="left", fontsize=9)
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.tight_layout()
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, format="svg", metadata={"Date": None})


def rounds_of(one: Mapping[str, Any], name: str) -> list[float]:
    """One value a round."""
    if name == "cpu":
        return [sum(used) for used in zip(*one["cpu"].values(), strict=True)]
    return list(one[name])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
