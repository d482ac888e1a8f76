"""The activity `throttle`: limit the dispatch rate of a provider's send queue, for all workers."""

from __future__ import annotations

from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit
from temporalio.api.workflowservice.v1 import UpdateTaskQueueConfigRequest
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.breaker import SendRate
from ackbridge.contracts.control import ThrottleStep
from ackbridge.contracts.limits import MAX_ERROR_LENGTH
from ackbridge.contracts.steps import StepFailure
from activities.support.retry import activity_failure

_FINAL_ERRORS = {
    RPCStatusCode.UNIMPLEMENTED: "this engine cannot set the rate of a task queue",
    RPCStatusCode.PERMISSION_DENIED: "not permitted to set the rate of a task queue",
    RPCStatusCode.INVALID_ARGUMENT: "the engine does not accept this rate",
}


class Throttle:
    """Acknowledgements, status requests and probes use the settle queue and are not throttled."""

    @activity.defn(name=names.THROTTLE)
    async def throttle(self, step: ThrottleStep) -> SendRate:
        """Set the rate, which the engine keeps until it is set again, and return it.

        Raises:
            ApplicationError: Unavailable; final where the engine refuses.
        """
        client = activity.client()
        request = UpdateTaskQueueConfigRequest(
            namespace=client.namespace,
            identity="ackbridge",
            task_queue=names.send_queue(step.provider),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            update_queue_rate_limit=_update(step.rate.per_second, step.reason),
            update_fairness_key_rate_limit_default=_update(step.rate.per_tenant, step.reason),
        )
        try:
            await client.workflow_service.update_task_queue_config(request)
        except RPCError as error:
            problem = _FINAL_ERRORS.get(error.status)
            reason = f"{problem or 'the engine does not answer'} ({error.status.name})"
            raise activity_failure(
                StepFailure.UNAVAILABLE, reason, final=problem is not None
            ) from None
        return step.rate


def _update(per_second: float | None, reason: str) -> UpdateTaskQueueConfigRequest.RateLimitUpdate:
    limit = None if per_second is None else RateLimit(requests_per_second=per_second)
    return UpdateTaskQueueConfigRequest.RateLimitUpdate(
        rate_limit=limit, reason=reason[:MAX_ERROR_LENGTH]
    )
