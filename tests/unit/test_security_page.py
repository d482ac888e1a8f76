"""`docs/security.md` is true: its tests exist, and the gateway has no other routes."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")

ROUTES = {"/healthz", "/readyz", "/encode", "/decode"}
"""Below `/codec` the last two; callbacks are no routes of the framework."""


def test_the_tests_of_the_page_exist() -> None:
    """A test that was renamed is renamed there, too."""
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (CHECKOUT / file).read_text()
    ]
    assert missing == []


def test_every_risk_has_a_test() -> None:
    """Ten rows, each with a test."""
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| API\d+ ", line)]
    assert [row.split()[1] for row in rows] == [f"API{number}" for number in range(1, 11)]
    assert all(NAMED.search(row) for row in rows)


def test_routes_of_the_gateway_are_known() -> None:
    """A new route needs its role, and its place in the page."""
    declared = re.compile(r"@(?:app|routes|router)\.(?:get|post|put|delete|patch)\(\s*\"([^\"]+)\"")
    sources = (CHECKOUT / "ackbridge" / "gateway").glob("*.py")
    assert {route for path in sources for route in declared.findall(path.read_text())} == ROUTES
