"""The invariants of the protocol hold whatever happens, in whatever order."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import CallMachine

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("ACKBRIDGE_MODEL_EXAMPLES")
"""More, and other ones each time: see `make model`."""

PROFILE = settings(
    max_examples=int(EXAMPLES or 250),
    stateful_step_count=40,
    derandomize=EXAMPLES is None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),  # a world is larger than what hypothesis expects
)


def test_whatever_happens_every_invariant_holds() -> None:
    """Random messages, faults, requests, pauses and restarts never break an invariant."""
    run_state_machine_as_test(CallMachine, settings=PROFILE)
