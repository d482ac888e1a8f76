"""The model bites: whatever is broken in a protocol, it is found. Slow: `make model` runs it."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import CallMachine
from .mutants import MUTANTS, Mutant
from .test_model import PROFILE

HUNT = settings(PROFILE, max_examples=1500, derandomize=True, phases=(Phase.generate,))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.__name__))
def test_a_broken_protocol_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each broken protocol breaks an invariant before the examples run out."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CallMachine, settings=HUNT)
