"""`make deadlines`: what learning is worth, as a table and as the picture in the documentation."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from .chart import draw
from .providers import HOUR, Provider, dropping, shipped
from .simulation import RULES, Day, false_alarms, simulate

console = Console(highlight=False)


def main() -> None:
    """Simulate, print, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadlines", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs/learned-deadlines.svg"))
    parser.add_argument("--seed", type=int, default=4711)
    options = parser.parse_args()
    providers = [*shipped(), dropping(0.3)]
    days = [(one, simulate(one, seed=options.seed)) for one in providers]
    _print(days)
    draw(days[:-1], options.picture)
    console.print(f"\nDrawn in {options.picture}")


def _print(days: list[tuple[Provider, Day]]) -> None:
    fixed = RULES.initial.total_seconds()
    table = Table(title="Four hours, one call a second", title_justify="left", box=None)
    for column in ("", "false alarms", "oracle's", "silence noticed, s", "oracle's", "changes"):
        table.add_column(column, justify="left" if not column else "right")
    for provider, day in days:
        waits = [call.deadline for call in day.between(HOUR)]
        table.add_row(
            provider.name,
            f"{false_alarms(day.calls):.2%}",
            f"{_false_alarms_of_oracle(day):.2%}",
            f"{median(waits):.1f} (mean {fmean(waits):.1f})",
            f"{fmean(day.oracle(call.at) for call in day.between(HOUR)):.1f}",
            str(len(day.learned)),
        )
    console.print(table)
    console.print(f"The fixed timeout notices silence after {fixed:g} s.")


def _false_alarms_of_oracle(day: Day) -> float:
    answered = [call for call in day.calls if call.takes < float("inf")]
    return sum(call.takes > day.oracle(call.at) for call in answered) / len(answered)


if __name__ == "__main__":
    main()
