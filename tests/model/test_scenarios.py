"""Traces that have broken the protocol, or could: they do not any more."""

from __future__ import annotations

import pytest

from .invariants import InvariantError, Invariants
from .scenario import setting_of
from .scenarios import KNOWN, SCENARIOS, Script, run_scenario
from .world import Setting


@pytest.mark.parametrize(
    ("scenario", "setting"), SCENARIOS, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_trace_breaks_nothing(scenario: Script, setting: Setting) -> None:
    """Every invariant holds at every turn of the scenario."""
    run_scenario(scenario, setting)


@pytest.mark.xfail(
    strict=True, raises=InvariantError, reason="a known finding; see Invariants.is_known"
)
@pytest.mark.parametrize("scenario", KNOWN, ids=lambda scenario: str(scenario.__name__))
def test_a_known_finding(scenario: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends acknowledges what a lost task may have sent."""
    monkeypatch.setattr(Invariants, "is_known", False)
    run_scenario(scenario, setting_of())
