"""The activity `throttle`: limit the dispatch rate of a provider's send queue, for all workers."""

from __future__ import annotations

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.breaker import SendRate
from ackbridge.contracts.control import ThrottleStep
from ackbridge.contracts.steps import StepFailure
from activities.support.dependencies import Dependencies
from activities.support.retry import activity_failure, classified_errors
from activities.support.send_rate import QueueRate, set_rate

_FINAL_ERRORS = {
    RPCStatusCode.UNIMPLEMENTED: "this engine cannot set the rate of a task queue",
    RPCStatusCode.PERMISSION_DENIED: "not permitted to set the rate of a task queue",
    RPCStatusCode.INVALID_ARGUMENT: "the engine does not accept this rate",
}


class Throttle:
    """Acknowledgements, status requests and probes use the settle queue and are not throttled."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.THROTTLE)
    async def throttle(self, step: ThrottleStep) -> SendRate:
        """Set the rate, which the engine keeps until it is set again, and return it.

        Where the provider turned out to accept less, less is set.

        Raises:
            ApplicationError: Unavailable; final where the engine refuses.
        """
        with classified_errors():
            quotas = await self._deps.ledger.stats.quotas(step.provider)
        rate = QueueRate.of(step.rate, quotas, self._deps.clock())
        try:
            await set_rate(activity.client(), step.provider, rate, step.reason)
        except RPCError as error:
            problem = _FINAL_ERRORS.get(error.status)
            reason = f"{problem or 'the engine does not answer'} ({error.status.name})"
            raise activity_failure(
                StepFailure.UNAVAILABLE, reason, final=problem is not None
            ) from None
        return step.rate
