"""What control costs: `python -m benchmarks.control`. It grows with workers, not with calls.

The figures are computed from the intervals in the code. One of them is measured on a real
engine, in `tests/integration/provider_control/test_breaker.py`: fifty calls leave no event in the
history
of a calm control, but for those of one watch that ends and is renewed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import timedelta

from ackbridge.control.snapshots import REFRESH_EVERY as SNAPSHOT_EVERY
from ackbridge.stats.counters import RESOLUTIONS
from ackbridge.stats.reporter import REPORT_EVERY
from activities.observe import (
    CHECK_INTERVAL,
    HEARTBEAT_INTERVAL,
    LEARN_INTERVAL,
    OBSERVE_FOR,
)

MINUTE = timedelta(minutes=1)

EVENTS_PER_ACTIVITY = 3
EVENTS_PER_TASK = 3
EVENTS_PER_PUBLISHING = 1
EVENTS_PER_COPY = EVENTS_PER_ACTIVITY + EVENTS_PER_TASK
EVENTS_PER_WATCH = EVENTS_PER_ACTIVITY + EVENTS_PER_TASK
"""A watch that comes to nothing, once an hour: the activity, and the task that renews it."""

EVENTS_PER_DECISION = 2 * EVENTS_PER_WATCH + EVENTS_PER_COPY + 3 * EVENTS_PER_PUBLISHING
"""A watch, a throttling, what is published of both."""


@dataclass(frozen=True)
class Cost:
    """Per minute, with calls flowing to every provider all the time: the most there can be.

    Attributes:
        snapshots: requests to the engine by workers that look at a control.
        heartbeats: requests to the engine by watches; engine actions, where those are billed.
        events: of histories, while nothing is decided.
        reports: transactions of workers that write what they have observed.
        rows: that those transactions insert or replace.
        looks: reads of the ledger by watches and by learning.
        probes: health requests to providers.
    """

    snapshots: float
    heartbeats: float
    events: float
    reports: float
    rows: float
    looks: float
    probes: float


def cost(workers: int, providers: int, operations: int, health: timedelta) -> Cost:
    """What so many worker processes and providers cost, with so many operations of each in use."""
    return Cost(
        snapshots=workers * providers * (MINUTE / SNAPSHOT_EVERY),
        heartbeats=providers * (MINUTE / HEARTBEAT_INTERVAL),
        events=providers * EVENTS_PER_WATCH * (MINUTE / OBSERVE_FOR),
        reports=workers * (MINUTE / REPORT_EVERY),
        rows=workers * (MINUTE / REPORT_EVERY) * providers * operations * len(RESOLUTIONS),
        looks=providers * (2 * MINUTE / CHECK_INTERVAL + MINUTE / LEARN_INTERVAL),
        probes=providers * (MINUTE / health),
    )


def main() -> None:
    """Print the table for 1, 10 and 100 workers."""
    parser = argparse.ArgumentParser(prog="benchmarks.control", description=__doc__)
    parser.add_argument("--providers", type=int, default=10)
    parser.add_argument("--operations", type=int, default=3, help="of each provider, in use")
    options = parser.parse_args()
    head = ("workers", "snapshots", "heartbeats", "events", "reports", "rows", "looks", "probes")
    print(f"per minute, {options.providers} providers with {options.operations} operations each")
    print("".join(f"{name:>12}" for name in head))
    for workers in (1, 10, 100):
        one = cost(workers, options.providers, options.operations, timedelta(seconds=30))
        figures = (getattr(one, name) for name in head[1:])
        print(f"{workers:>12}" + "".join(f"{figure:>12.0f}" for figure in figures))
    print(f"a decision costs about {EVENTS_PER_DECISION} events and 4 actions, whatever it is")


if __name__ == "__main__":
    main()
