"""The arithmetic of the cost model."""

from __future__ import annotations

import pytest

from benchmarks.cost_model import Assumptions, Cost, demand, tables

GIVEN = Assumptions(peak=4, busy=0.5, connections=10, history_days=2, ledger_days=10)
COST = Cost(
    "single",
    events=13,
    actions=5,
    history_bytes=2000,
    rows={"calls": 1, "responses": 1},
    row_bytes=1500,
    writes=5,
    commits=4,
    wal_bytes=3000,
    cpu={"engine": 10, "worker": 20, "gateway": 2, "postgresql": 3},
)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("calls per second, average", 100),
        ("calls per second, peak", 400),
        ("dollars per day", 43.2 * 50),
        ("actions per second, peak", 2000),
        ("namespaces at the default rate", 4),
        ("history kept, GB", 34.56),
        ("commits per second, peak", 1600),
        ("rows per day, millions", 17.28),
        ("ledger kept, GB", 129.6),
        ("workers", 16),
        ("gateways", 2),
        ("database connections", 180),
        ("cores of PostgreSQL, peak", 2.4),
    ],
)
def test_demand_of_a_hundred_calls_a_second(quantity: str, expected: float) -> None:
    """8.64 million calls a day are 100 a second; each quantity follows from the cost of one."""
    assert demand(COST, 8.64, GIVEN)[quantity] == pytest.approx(expected)


def test_there_is_one_process_of_each_kind_at_least() -> None:
    """A few calls a day need a worker and a gateway, too."""
    few = demand(COST, 0.001, GIVEN)
    assert (few["workers"], few["gateways"]) == (1, 1)


def test_tables_name_each_lane_and_show_the_arithmetic() -> None:
    """The output is Markdown, as the documentation has it."""
    text = tables([COST], GIVEN)
    assert "| one call | single |" in text
    assert "| single, a day | 1 million | 10 million | 1000 million |" in text
    assert "- `workers = peak calls/s * ms of CPU / 1000 / 0.5, rounded up; gateways alike`" in text
