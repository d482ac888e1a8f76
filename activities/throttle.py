"""throttle: set how fast a provider's send queue is dispatched, by the engine, fleet-wide."""

from __future__ import annotations

from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit
from temporalio.api.workflowservice.v1 import UpdateTaskQueueConfigRequest
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.breaker import SendRate
from ackbridge.contracts.control import ThrottleStep
from ackbridge.contracts.limits import MAX_ERROR_LENGTH
from ackbridge.contracts.steps import StepFailure
from activities.support.retry import failure

_NEVER = {
    RPCStatusCode.UNIMPLEMENTED: "this engine cannot set the rate of a queue",
    RPCStatusCode.PERMISSION_DENIED: "we may not set the rate of a queue",
    RPCStatusCode.INVALID_ARGUMENT: "the engine takes no such rate",
}


class Throttle:
    """The settle queue is another one: acknowledgements, questions and probes go on."""

    @activity.defn(name=names.THROTTLE)
    async def throttle(self, step: ThrottleStep) -> SendRate:
        """Set the rate, and say what it is now; the engine keeps it, restarts included.

        Raises:
            ApplicationError: Unavailable; final where this engine will not do it.
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
            raise _explained(error) from None
        return step.rate


def _update(per_second: float | None, reason: str) -> UpdateTaskQueueConfigRequest.RateLimitUpdate:
    limit = None if per_second is None else RateLimit(requests_per_second=per_second)
    return UpdateTaskQueueConfigRequest.RateLimitUpdate(
        rate_limit=limit, reason=reason[:MAX_ERROR_LENGTH]
    )


def _explained(error: RPCError) -> ApplicationError:
    why = _NEVER.get(error.status)
    reason = f"{why or 'the engine does not answer'} ({error.status.name})"
    return failure(StepFailure.UNAVAILABLE, reason, final=why is not None)
