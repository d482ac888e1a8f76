"""What a call waits for, as the engine sees it.

The workflow of a call does not know whether a worker has taken up its activity.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError

from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.calls import CallStatus, Waiting, WaitingFor
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.limits import MAX_ERROR_LENGTH
from ackbridge.contracts.quotas import WHOLE_QUOTA
from ackbridge.contracts.steps import StepFailure
from ackbridge.errors import AckbridgeError
from ackbridge.temporal.connect import RPC_TIMEOUT

from .control import ControlHandle

POLLER_SEEN_WITHIN: Final = timedelta(seconds=75)
"""A worker polls again after a minute at the latest; the engine lists pollers for five."""

_QUEUED = frozenset({WaitingFor.WORKER, WaitingFor.RATE_LIMIT, WaitingFor.BREAKER})

_SETTLE_ACTIVITIES = frozenset({names.ACKNOWLEDGE, names.ASK_STATUS, names.POLL})


async def with_waiting(
    client: Client, status: CallStatus, described: WorkflowExecutionDescription
) -> CallStatus:
    """Add what the engine knows about a call's pending activity to its status.

    The workflow can only guess why an activity has not started, or whether it has.

    Args:
        described: the call's own workflow, or the one that hosts it.
    """
    is_own = described.id == status.call_id
    mine = "" if is_own else names.hosted_activity_prefix(status.call_id)
    pending = [
        activity
        for activity in described.raw_description.pending_activities
        if activity.activity_id.startswith(mine)
    ]
    known, seen = status.waiting, await _waiting(client, status.call_id, described, pending)
    if known is not None and known.what not in _QUEUED:
        if seen is None:
            return status
        # The workflow says what for; the engine says why that takes so long.
        detail = seen.detail
        if seen.what is not WaitingFor.RETRY:
            detail = f"{seen.what.replace('_', ' ')}: {seen.detail}"
        update = {
            "next_attempt_at": known.next_attempt_at or seen.next_attempt_at,
            "detail": known.detail or detail,
        }
        seen = known.model_copy(update=update)
    elif known is not None and seen is None and not pending:
        # It is between two tasks, or has local activities only.
        return status
    return status.model_copy(update={"waiting": seen})


async def _waiting(
    client: Client,
    call_id: str,
    described: WorkflowExecutionDescription,
    activities: Sequence[PendingActivityInfo],
) -> Waiting | None:
    pending = next(
        (
            activity
            for activity in activities
            if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        ),
        None,
    )
    if pending is None:
        return None
    next_attempt_at = _time(pending.next_attempt_schedule_time)
    if pending.attempt > 1 and next_attempt_at and next_attempt_at > datetime.now(UTC):
        is_held_back = pending.last_failure.application_failure_info.type == StepFailure.HELD_BACK
        return Waiting(
            what=WaitingFor.RATE_LIMIT if is_held_back else WaitingFor.RETRY,
            since=_time(pending.last_attempt_complete_time) or described.start_time,
            next_attempt_at=next_attempt_at,
            detail=pending.last_failure.message[:MAX_ERROR_LENGTH] or None,
        )
    what, detail = await _dispatch(client, call_id, pending)
    since = _time(pending.scheduled_time) or described.start_time
    return Waiting(what=what, since=since, detail=detail)


async def _dispatch(
    client: Client, call_id: str, pending: PendingActivityInfo
) -> tuple[WaitingFor, str]:
    """Why no worker has taken up a task that is in its queue."""
    provider, _, _ = names.split_call_id(call_id)
    queue = pending.activity_options.task_queue.name or _queue(provider, pending)
    snapshot = None
    if queue == names.send_queue(provider):
        with contextlib.suppress(AckbridgeError):
            snapshot = await ControlHandle(client, provider).snapshot()
    if snapshot is not None and snapshot.breaker.state is not BreakerState.CLOSED:
        breaker = snapshot.breaker
        since = f"{breaker.since:%Y-%m-%d %H:%M:%S} UTC"
        return WaitingFor.BREAKER, f"{breaker.state} since {since}: {breaker.reason}"
    if not await is_polled(client, queue):
        return WaitingFor.WORKER, f"no worker polls the queue {queue}"
    if snapshot is not None and (limit := _limit(snapshot)):
        return WaitingFor.RATE_LIMIT, limit
    return WaitingFor.WORKER, f"the workers of the queue {queue} are busy"


def _queue(provider: str, pending: PendingActivityInfo) -> str:
    kind = pending.activity_type.name
    if kind == names.SEND:
        return names.send_queue(provider)
    return names.settle_queue(provider) if kind in _SETTLE_ACTIVITIES else names.TASK_QUEUE


def _limit(snapshot: ControlSnapshot) -> str | None:
    """The rate limit of a provider's sends; None: there is none."""
    limit = snapshot.limit
    if limit is not None:
        return f"{limit.per_second:g}/s, set by {limit.by}: {limit.reason}"
    if (quota := snapshot.quotas.get(WHOLE_QUOTA)) is not None:
        return f"sends are limited to about {quota}: {quota.reason}"
    if snapshot.rate is None or snapshot.rate.per_second is None:
        return None
    return f"sends are limited to {snapshot.rate}"


async def is_polled(client: Client, queue: str) -> bool:
    """Whether a worker has polled a queue lately; true where that cannot be found out."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    try:
        reply = await client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
    except RPCError:
        # Without the permission to describe queues, nothing is claimed about workers.
        return True
    oldest = datetime.now(UTC) - POLLER_SEEN_WITHIN
    seen = (_time(poller.last_access_time) for poller in reply.pollers)
    return any(at is not None and at > oldest for at in seen)


def _time(stamp: Timestamp) -> datetime | None:
    return stamp.ToDatetime(UTC) if stamp.seconds else None
