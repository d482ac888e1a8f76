"""Traces that have broken the protocol, or could: they do not any more."""

from __future__ import annotations

import pytest

from .scenarios import SCENARIOS, Script, run_scenario
from .world import Setting


@pytest.mark.parametrize(
    ("scenario", "setting"), SCENARIOS, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_trace_breaks_nothing(scenario: Script, setting: Setting) -> None:
    """Every invariant holds at every turn of the scenario."""
    run_scenario(scenario, setting)
