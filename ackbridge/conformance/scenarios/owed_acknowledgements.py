"""The provider's acknowledgement API is down."""

from __future__ import annotations

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.sandbox.behaviour import Behaviour

from .responses import completed
from .scenario import Scenario, answer
from .timeouts import EVER

_HOUR = 3600
_HOURS = 2


async def _down_for_hours(scene: ScenarioRun) -> None:
    """The outcome is there at once; what is owed is paid when it can be."""
    down = Behaviour(acknowledgement_failures=_HOURS, acknowledgement_status=429, retry_after=_HOUR)
    await scene.start(down)
    status = await scene.observe(lambda status: status.acknowledgements_owed)
    standing = status.outcome.status if status.outcome else "none yet"
    scene.expect(OutcomeStatus.COMPLETED, standing, "outcome while it is owed", "acknowledge")
    await completed(scene)


async def _down_for_ever(scene: ScenarioRun) -> None:
    down = Behaviour(acknowledgement_failures=EVER, acknowledgement_status=429, retry_after=_HOUR)
    await scene.start(down)
    outcome = await scene.answered()
    scene.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "acknowledge")
    scene.expect(True, outcome.acknowledgement_owed, "an acknowledgement owed", "acknowledge")


def _acknowledges(case: Case) -> bool:
    return case.acknowledges("success")


def _may_take_hours(case: Case) -> bool:
    acknowledge = case.operation.acknowledge
    is_long = acknowledge is not None and acknowledge.within.total_seconds() > _HOUR * _HOURS
    return _acknowledges(case) and is_long


DEBTS = (
    Scenario(
        "acknowledgement-api-down",
        "no acknowledgement is taken for hours",
        _down_for_hours,
        applies=_may_take_hours,
        needs=answer,
    ),
    Scenario(
        "acknowledgement-api-gone",
        "no acknowledgement is ever taken",
        _down_for_ever,
        applies=_acknowledges,
        needs=answer,
    ),
)
"""The call completes all the same."""
