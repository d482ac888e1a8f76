"""The engine's own statistics of a provider's task queues."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client

from ackbridge.contracts.wire import Wire
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors

AVERAGED_OVER: Final = timedelta(seconds=30)
"""Of the rates that the engine measures."""


class QueueStatus(Wire):
    """A task queue with activities.

    Attributes:
        waiting: tasks that no worker has taken yet, approximately.
        oldest: how long the oldest of them has waited.
        added, taken: tasks per second, over the last half minute.
        limit: the most that are taken per second, all workers together; None: unlimited.
        workers: how many poll it.
        empty_in: after which the last one will have been taken; None: unknown, or never.
    """

    queue: str
    waiting: int
    oldest: timedelta
    added: float
    taken: float
    limit: float | None = None
    workers: int = 0
    empty_in: timedelta | None = None


async def describe_queue(client: Client, queue: str) -> QueueStatus:
    """Ask the engine; needs no worker.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_stats=True,
        report_config=True,
    )
    with rpc_errors():
        found = await client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
    stats, limit = found.stats, _limit(found)
    oldest = stats.approximate_backlog_age.ToTimedelta()
    waiting = int(stats.approximate_backlog_count)
    return QueueStatus(
        queue=queue,
        waiting=waiting,
        oldest=oldest if waiting else timedelta(0),
        added=stats.tasks_add_rate,
        taken=stats.tasks_dispatch_rate,
        limit=limit,
        workers=len({poller.identity for poller in found.pollers}),
        empty_in=time_to_empty(waiting, oldest, limit, stats.tasks_dispatch_rate),
    )


def time_to_empty(
    waiting: int, oldest: timedelta, limit: float | None, taken: float
) -> timedelta | None:
    """How long the tasks that wait now will take.

    The measured rate decides once it is of a time in which tasks have waited all along; before that
    the limit does.
    """
    if not waiting:
        return timedelta(0)
    if limit == 0:
        return None
    rate = taken if limit is None or oldest > AVERAGED_OVER else limit
    rate = rate if limit is None else min(rate, limit)
    return timedelta(seconds=waiting / rate) if rate > 0 else None


def _limit(found: DescribeTaskQueueResponse) -> float | None:
    configured = found.config.queue_rate_limit
    if configured.HasField("rate_limit"):
        return configured.rate_limit.requests_per_second
    return None
