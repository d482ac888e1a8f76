"""Traces that have broken the protocol, or could: they do not any more."""

from __future__ import annotations

import pytest

from .invariants import Broken, Invariants
from .scenes import KNOWN, SCENES, Play, play
from .stage import facts_of
from .world import Facts


@pytest.mark.parametrize(("scene", "facts"), SCENES, ids=lambda one: getattr(one, "__name__", ""))
def test_a_trace_breaks_nothing(scene: Play, facts: Facts) -> None:
    """Every invariant holds at every turn of the scene."""
    play(scene, facts)


@pytest.mark.xfail(strict=True, raises=Broken, reason="a known finding; see Invariants.is_known")
@pytest.mark.parametrize("scene", KNOWN, ids=lambda scene: str(scene.__name__))
def test_a_known_finding(scene: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends owes what a lost task may have sent."""
    monkeypatch.setattr(Invariants, "is_known", False)
    play(scene, facts_of())
