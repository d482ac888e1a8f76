"""The model bites: whatever is broken in a protocol, it is found."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import CallMachine
from .mutants import EASY, MUTANTS, Mutant
from .scenarios import run_all
from .test_model import PROFILE

HUNT = settings(PROFILE, max_examples=300, derandomize=True, phases=(Phase.generate,))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.__name__))
def test_a_broken_protocol_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each broken protocol breaks an invariant in one of the scenarios."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run_all()


@pytest.mark.parametrize("mutant", EASY, ids=lambda mutant: str(mutant.__name__))
def test_chance_finds_it_too(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broken on a frequented path is found by a few random examples."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CallMachine, settings=HUNT)
