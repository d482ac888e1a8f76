"""What calls cost in a day: engine, database and processes, from the measured cost of one call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DAY = 86_400
VOLUMES = (1, 10, 1000)
"""Million calls a day."""
MILLION = 1_000_000
GB = 1e9


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted, and is not measured.

    Attributes:
        peak: calls a second in the busiest hour, as a multiple of the day's average.
        busy: the share of its core that a process may use at the peak.
        connections: to PostgreSQL, of each process.
        history_days, ledger_days: how long the engine keeps the histories of calls that have
            ended, and the ledger their rows.
        action_price: dollars per million billable actions.
        namespace_actions: per second, what a namespace of Temporal Cloud takes by default.
    """

    peak: float = 3.0
    busy: float = 0.6
    connections: int = 10
    history_days: float = 3.0
    ledger_days: float = 90.0
    action_price: float = 50.0
    namespace_actions: float = 500.0


@dataclass(frozen=True)
class Cost:
    """The measured cost of one call.

    Attributes:
        lane: which.
        events, actions, history_bytes: in the engine.
        rows: that stay in the ledger, by table.
        row_bytes: of them altogether, with their indexes.
        writes: rows inserted, updated and deleted.
        commits, wal_bytes: transactions of the database, and what they write to its log.
        cpu: milliseconds by role.
    """

    lane: str
    events: float
    actions: float
    history_bytes: float
    rows: Mapping[str, float]
    row_bytes: float
    writes: float
    commits: float
    wal_bytes: float
    cpu: Mapping[str, float]


def demand(cost: Cost, millions: float, given: Assumptions) -> dict[str, float]:
    """What this many million calls a day need, by quantity."""
    calls = millions * MILLION
    peak = calls / DAY * given.peak
    workers = _processes(peak, cost.cpu.get("worker", 0.0), given)
    gateways = _processes(peak, cost.cpu.get("gateway", 0.0), given)
    return {
        "calls per second, average": calls / DAY,
        "calls per second, peak": peak,
        "actions per day, millions": cost.actions * millions,
        "dollars per day": cost.actions * millions * given.action_price,
        "actions per second, peak": peak * cost.actions,
        "namespaces at the default rate": math.ceil(peak * cost.actions / given.namespace_actions),
        "history written per day, GB": cost.history_bytes * calls / GB,
        "history kept, GB": cost.history_bytes * calls * given.history_days / GB,
        "rows written per second, peak": peak * cost.writes,
        "commits per second, peak": peak * cost.commits,
        "log written per second, peak, MB": peak * cost.wal_bytes / 1e6,
        "rows per day, millions": sum(cost.rows.values()) * millions,
        "ledger per day, GB": cost.row_bytes * calls / GB,
        "ledger kept, GB": cost.row_bytes * calls * given.ledger_days / GB,
        "workers": workers,
        "gateways": gateways,
        "database connections": (workers + gateways) * given.connections,
        "cores of PostgreSQL, peak": peak * cost.cpu.get("postgresql", 0.0) / 1000 / given.busy,
        "cores of the embedded engine, peak": peak * cost.cpu.get("engine", 0.0) / 1000,
    }


def _processes(peak: float, milliseconds: float, given: Assumptions) -> int:
    """Processes of one core each that this much work keeps busy; one at least."""
    return max(1, math.ceil(peak * milliseconds / 1000 / given.busy))


def arithmetic(given: Assumptions) -> list[str]:
    """How each quantity is computed, one line each, in Markdown."""
    return [
        f"peak calls/s = calls per day / 86 400 * {given.peak:g}",
        f"dollars = actions * calls * {given.action_price:g} / 1 000 000",
        f"namespaces = peak calls/s * actions / {given.namespace_actions:g}, rounded up",
        f"history kept = bytes of a history * calls per day * {given.history_days:g} days",
        f"ledger kept = bytes of a call's rows * calls per day * {given.ledger_days:g} days",
        f"workers = peak calls/s * ms of CPU / 1000 / {given.busy:g}, rounded up; gateways alike",
        f"connections = (workers + gateways) * {given.connections}",
        f"cores of PostgreSQL = peak calls/s * ms of CPU / 1000 / {given.busy:g}",
    ]


def tables(costs: Sequence[Cost], given: Assumptions) -> str:
    """The measured costs and the demands of each lane, in Markdown."""
    parts = [_cost_table(costs), "\n".join(f"- `{line}`" for line in arithmetic(given))]
    parts += [_demand_table(cost, given) for cost in costs]
    return "\n\n".join(parts)


def _cost_table(costs: Sequence[Cost]) -> str:
    rows: dict[str, list[str]] = {
        "history events": [f"{cost.events:.3g}" for cost in costs],
        "billable actions": [f"{cost.actions:.3g}" for cost in costs],
        "history, bytes": [f"{cost.history_bytes:,.0f}" for cost in costs],
        "rows that stay": [_rows(cost) for cost in costs],
        "bytes of these rows, with indexes": [f"{cost.row_bytes:,.0f}" for cost in costs],
        "rows written": [f"{cost.writes:.3g}" for cost in costs],
        "commits": [f"{cost.commits:.3g}" for cost in costs],
        "database log, bytes": [f"{cost.wal_bytes:,.0f}" for cost in costs],
    }
    for role in dict.fromkeys(role for cost in costs for role in cost.cpu):
        rows[f"CPU ms, {role}"] = [f"{cost.cpu.get(role, 0):.3g}" for cost in costs]
    return _markdown(["one call", *(cost.lane for cost in costs)], rows)


def _rows(cost: Cost) -> str:
    named = ", ".join(f"{table} {rows:.2g}" for table, rows in cost.rows.items())
    return f"{sum(cost.rows.values()):.3g} ({named})"


def _demand_table(cost: Cost, given: Assumptions) -> str:
    demands = [demand(cost, millions, given) for millions in VOLUMES]
    rows = {name: [_number(one[name]) for one in demands] for name in demands[0]}
    return _markdown([f"{cost.lane}, a day", *(f"{one} million" for one in VOLUMES)], rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _markdown(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join((name, *cells)) + " |" for name, cells in rows.items()]
    return "\n".join(lines)
