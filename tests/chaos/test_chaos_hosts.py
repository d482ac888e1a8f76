"""How the histories of hosts are read: records written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .finding_kinds import Kind
from .history_reader import join_chains
from .host_parser import part_of
from .loss_checks import recorded_in_host
from .records import LedgerRecord, Run, RunState
from .samples import CALL, FAILED, GOOD, OUTCOME, RUN, found

HOST = Run("host", "host", RunState.COMPLETED, is_hosted=True)


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ({"outcome": OUTCOME}, RunState.COMPLETED),
        ({"outcome": FAILED}, RunState.FAILED),
        ({"moved_to": CALL}, RunState.CONTINUED),
        ({"moved_to": "bulk:other"}, RunState.FOLLOWED),
        ({"rejected": {"type": "KeyReused", "reason": "another payload"}}, RunState.FAILED),
        (None, RunState.TERMINATED),
    ],
    ids=["completed", "failed", "moved out", "followed", "refused", "forgotten"],
)
def test_how_a_call_leaves_its_host(end: dict[str, object] | None, state: RunState) -> None:
    """A host that has completed says so of each of its calls."""
    assert part_of(HOST, CALL, end).state is state


def test_a_call_that_moves_out_is_one_chain() -> None:
    """Its host, and the workflow that goes on with it; nobody else's workflow."""
    moved = replace(HOST, state=RunState.CONTINUED)
    own = replace(RUN, id="own", chain="own", moved_from="host", recorded=0)
    own = replace(own, state=RunState.CONTINUED, outcome=None)
    later = replace(RUN, id="later", chain="own")
    chains = {run.chain for run in join_chains([moved, own, later])}
    assert chains == {"host"}
    case = replace(GOOD, runs=tuple(join_chains([moved, own, later])))
    assert found(case) == []

    beside = replace(RUN, id="own", chain="own")
    states = [run.state for run in join_chains([moved, beside])]
    assert states == [RunState.FOLLOWED, RunState.COMPLETED]


def test_a_call_is_lost_that_everybody_has_followed() -> None:
    """Nobody has conducted it."""
    followed = replace(HOST, state=RunState.FOLLOWED)
    case = replace(GOOD, runs=(followed,), ledger=LedgerRecord())
    assert Kind.LOST in found(case)


def test_a_host_records_one_response_for_each_call() -> None:
    """Those of calls that have moved out count with it."""
    own = replace(RUN, id="own", moved_from="host")
    case = replace(GOOD, runs=(replace(HOST, state=RunState.CONTINUED), own))
    assert list(recorded_in_host(HOST, [case])) == []
    ((kind, _),) = recorded_in_host(replace(HOST, recorded=1), [case])
    assert kind is Kind.APPLIED_TWICE
