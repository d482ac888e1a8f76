"""An HTML page of a demo run: what happened in each scenario, and when, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from .report import provider_moments, scenario_lines, steps_of
from .scenarios import ScenarioResult

_WIDTH, _LANE, _MARGIN = 720, 34, 90
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em}
h2{font-size:1.05em;margin:2.2em 0 .3em}small,dt{color:#666}dl{display:grid;
grid-template-columns:7em 1fr;margin:.5em 0}dd{margin:0}svg{max-width:100%;font-size:12px}
.no{color:#b00}"""
_COLORS = {"provider": "#b8651b", "Ackbridge": "#2a62b8"}


def write_page(path: Path, results: Sequence[ScenarioResult]) -> None:
    """Write the page; it needs no other file and no network."""
    sections = "".join(_section(number, one) for number, one in enumerate(results, 1))
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>Ackbridge: a demo run</title>"
        f"<style>{_STYLE}</style><h1>A demo run</h1><p>Each picture is one call: above what the"
        f" provider did, below what Ackbridge did, over time. A point shows its text.</p>{sections}"
    )


def _section(number: int, result: ScenarioResult) -> str:
    facts = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in scenario_lines(result)
    )
    problems = "".join(f"<p class=no>{escape(problem)}</p>" for problem in result.problems)
    heading = f"{number}. {escape(result.scenario.title)} <small>{escape(result.call_id)}</small>"
    return f"<h2>{heading}</h2>{_timeline(result)}<dl>{facts}</dl>{problems}"


def _timeline(result: ScenarioResult) -> str:
    lanes = {
        "provider": provider_moments(result.records),
        "Ackbridge": steps_of(result.demo_call, result.records),
    }
    moments = [at for lane in lanes.values() for at, _ in lane]
    if not moments:
        return ""
    first, last = min(moments), max(moments)
    drawn = [
        _lane(name, lane, _LANE * (row + 1), first, last)
        for row, (name, lane) in enumerate(lanes.items())
    ]
    height, seconds = _LANE * 3, (last - first).total_seconds()
    end = f'<text x="{_WIDTH - 40}" y="{height - 6}">{seconds:.1f} s</text>'
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(drawn)}{end}</svg>'


def _lane(
    name: str, moments: Sequence[tuple[datetime, str]], y: int, first: datetime, last: datetime
) -> str:
    span = max((last - first).total_seconds(), 0.001)
    room = _WIDTH - _MARGIN - 20
    points = "".join(
        f'<circle cx="{_MARGIN + room * (at - first).total_seconds() / span:.0f}" cy="{y}" r="5"'
        f' fill="{_COLORS[name]}"><title>+{(at - first).total_seconds():.2f} s:'
        f" {escape(text)}</title></circle>"
        for at, text in moments
    )
    line = f'<line x1="{_MARGIN}" x2="{_WIDTH - 20}" y1="{y}" y2="{y}" stroke="#ccc"/>'
    return f'<text x="0" y="{y + 4}">{name}</text>{line}{points}'
