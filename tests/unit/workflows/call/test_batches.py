"""What a parked call does with batches: how often, which, and what its user reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import OutcomeStatus, Stage
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.plan import OnFailure, Plan
from ackbridge.contracts.signals import Reprocess
from ackbridge.contracts.steps import Concluded, Sent, StepFailure
from tests.support.simulated_host import START, SimulatedHost, plan, response
from workflows.hosting.host import StepError

NEVER = StepError(StepFailure.NO_RECEIPT, "no answer in time", attempts=3, reached=True)
ANSWERED = Sent(sent_at=START, receipt_at=START, messages=(response(),))


def parking(**changes: Any) -> Plan:
    """The plan of an operation that parks."""
    return plan(on_failure=OnFailure.PARK, **changes)


def batch(host: SimulatedHost, seconds: float, name: str) -> None:
    """A batch takes the call up."""
    operator = Reprocess(by="ops", batch=name)
    host.at(seconds, lambda call: call.reprocess(operator))


async def test_a_call_that_fails_again_and_again_ends_at_its_limit() -> None:
    """It is parked again until it was taken up so often, and then ends with a notice."""
    host = SimulatedHost(parking(reprocess_attempts=2), send=[NEVER])
    for number in range(1, 4):
        batch(host, 1000 * number, f"b-{number}")
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.notice is not None
    parkings = [step.parking for step in host.steps(names.CONCLUDE) if step.parking]
    assert [(one.reason, one.times) for one in parkings] == [("no_receipt", 1), ("no_receipt", 2)]
    assert (host.shown[-1].parked_times, host.shown[-1].reprocessed) == (2, 2)
    assert host.shown[-1].reprocessed_by == "b-2"


async def test_a_batch_takes_a_call_once() -> None:
    """Its second request is refused, with the reason; that of another batch is not."""
    host = SimulatedHost(parking(reprocess_attempts=9), send=[NEVER])
    for seconds, name in ((1000, "b-1"), (2000, "b-1"), (3000, "b-2")):
        batch(host, seconds, name)
    await host.protocol.run()
    assert len(host.sent_cycles) == 3
    assert any("b-1 has reprocessed the call before" in str(s.last_error) for s in host.shown)


async def test_a_call_that_is_kept_back_is_free_for_the_next_batch() -> None:
    """Nothing was sent, so it counts as parked again and not as taken up."""
    closed, is_open = AdmissionState(not_now="acme is switched off"), AdmissionState()
    host = SimulatedHost(
        parking(reprocess_attempts=1), send=[NEVER, ANSWERED], reconsider=[closed, is_open]
    )
    batch(host, 1000, "b-1")
    batch(host, 2000, "b-2")
    assert (await host.protocol.run()).status is OutcomeStatus.COMPLETED
    times = [step.parking.times for step in host.steps(names.CONCLUDE) if step.parking]
    assert times == [1, 2]


async def test_the_notice_of_a_parked_call_says_when_the_next_batch_is() -> None:
    """From the plan at once, and from the ledger where the plan's times have passed."""
    passed, planned = START - timedelta(hours=1), START + timedelta(hours=1)
    later = START + timedelta(hours=5)
    host = SimulatedHost(
        parking(next_batches=(passed, planned), reprocess_attempts=1),
        send=[NEVER, ANSWERED],
        conclude=[Concluded(next_batch=later)],
    )
    batch(host, 1000, "b-1")
    await host.protocol.run()
    expected = [s.notice.expected_at for s in host.shown if s.stage is Stage.PARKED and s.notice]
    assert (expected[0], expected[-1]) == (planned, later)


@pytest.mark.parametrize("was_parked", [False, True])
async def test_whether_a_completed_call_was_parked(was_parked: bool) -> None:
    """It is stored with the response: for calls that never were, it costs nothing."""
    sends = [NEVER, ANSWERED] if was_parked else [ANSWERED]
    host = SimulatedHost(parking(reprocess_attempts=9), send=sends)
    batch(host, 1000, "b-1")
    assert (await host.protocol.run()).status is OutcomeStatus.COMPLETED
    (record,) = host.steps(names.RECORD)
    assert record.was_parked is was_parked
