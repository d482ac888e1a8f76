"""`make breaker`: how long healthy calls are kept back, as a table and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .chart import draw
from .scenarios import HOURS, shipped
from .simulation import CounterBreaker, NoBreaker, RealBreaker, Result, simulate

console = Console(highlight=False, width=120)


def main() -> None:
    """Simulate, print, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breaker", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs/breaker.svg"))
    parser.add_argument("--per-second", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=4711)
    options = parser.parse_args()
    breakers = (RealBreaker, CounterBreaker, NoBreaker)
    rows = [
        tuple(
            simulate(one, made(), per_second=options.per_second, seed=options.seed)
            for made in breakers
        )
        for one in shipped()
    ]
    _print(rows, options.per_second)
    draw(rows, options.picture)
    console.print(f"\nDrawn in {options.picture}")


def _print(rows: list[tuple[Result, ...]], per_second: float) -> None:
    title = f"{HOURS} hours, {per_second:g} calls a second; seconds of healthy calls kept back, ..."
    table = Table(title=title, title_justify="left", box=None)
    columns = ("", "outage", "bound", "kept", "a counter's", "in vain", "a counter's", "none's")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for ours, counter, none in rows:
        kept = (ours.scenario.outage, ours.bound, ours.kept_back, counter.kept_back)
        in_vain = (ours.in_vain, counter.in_vain, none.in_vain)
        numbers = [f"{number:,.0f}" for number in (*kept, *in_vain)]
        table.add_row(ours.scenario.name, *numbers)
    console.print(table)
    console.print("In vain: requests that were not answered within the ceiling.")


if __name__ == "__main__":
    main()
