"""Traces that have broken the protocol, or could: they do not any more."""

from __future__ import annotations

import pytest

from .scenes import SCENES, Play, play
from .world import Facts


@pytest.mark.parametrize(("scene", "facts"), SCENES, ids=lambda one: getattr(one, "__name__", ""))
def test_a_trace_breaks_nothing(scene: Play, facts: Facts) -> None:
    """Every invariant holds at every turn of the scene."""
    play(scene, facts)
