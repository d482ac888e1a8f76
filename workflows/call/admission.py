"""Whether a call may be sent: what its plan says, and what flags and breaker say by now."""

from __future__ import annotations

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import StepError

from .round_result import NoResponse
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.plan import Plan
    from ackbridge.contracts.steps import ReconsiderStep


def kept_back(plan: Plan) -> NoResponse:
    """The end of a call that must not be sent: a flag, or the breaker."""
    standing = plan.standing
    parked_reason = (standing and standing.parked_reason) or "switched_off"
    return NoResponse(plan.not_now or "", parked_reason, notice="refused", is_kept_back=True)


async def may_be_sent(state: CallState) -> bool:
    """Ask flags and breaker again, for a parked call; one that is kept back stays as it is."""
    if not state.plan.asks_again:
        return True
    try:
        standing = await state.host.perform(
            state.request.provider,
            steps.RECONSIDER,
            ReconsiderStep(request=state.request),
            interrupted=state.orders.cancels_work,
        )
    except StepError as failure:
        not_now: str | None = failure.reason
    else:
        state.progress.standing = str(standing)
        not_now = standing.not_now
    if not_now is not None:
        state.progress.last_error = f"not reprocessed: {not_now}"
        state.show()
    return not_now is None
