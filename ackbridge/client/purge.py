"""The ledger's clean-up from outside: its schedule, and one that is wanted now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError
from temporalio.service import RPCError

from ackbridge.contracts import names
from ackbridge.contracts.purge import KEEP_FOREVER, PurgeProgress, PurgeRequest, Retention
from ackbridge.contracts.wire import digest
from ackbridge.errors import (
    ConfigurationError,
    EngineUnavailableError,
    InvalidRequestError,
)
from ackbridge.temporal.schedules import RPC_TIMEOUT, keep_schedule, remove_schedule, told_only

SCHEDULED: Final = "schedule"
"""By whom a clean-up is wanted that nobody has asked for."""

CATCH_UP: Final = timedelta(hours=1)
"""One that was due while the engine was away is made up for so long; the next one does its work."""

_SUMMARY: Final = "what is over and old leaves the ledger"


async def check_retention(client: Client, retention: Retention) -> None:
    """See that calls are kept at least as long as the engine keeps them.

    Else a key could be used again while the engine still knows the call that it stood for.

    Raises:
        ConfigurationError: they are not.
        EngineUnavailableError: the engine does not tell us.
    """
    if retention.calls == KEEP_FOREVER:
        return
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        described = await client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        raise EngineUnavailableError(
            f"the retention of namespace {client.namespace} is not known ({error.status.name});"
            f" see to it that ACKBRIDGE_RETENTION_CALLS is at least as long"
        ) from None
    engine = described.config.workflow_execution_retention_ttl.ToTimedelta()
    if retention.calls < engine:
        raise ConfigurationError(
            f"ACKBRIDGE_RETENTION_CALLS: {_days(retention.calls)}, but the engine keeps calls of"
            f" namespace {client.namespace} for {_days(engine)}; calls in the ledger have to be"
            " kept at least as long"
        )


async def keep_purge_schedule(client: Client, retention: Retention, every: timedelta) -> None:
    """Create, update or remove the schedule of the clean-up; several workers may do so at once.

    Args:
        every: zero: there is none.
    """
    with told_only("the schedule of the ledger's clean-up is not kept"):
        if every:
            schedule, mark = build_schedule(retention, every)
            await keep_schedule(client, names.PURGE_ID, schedule, mark)
        else:
            await remove_schedule(client, names.PURGE_ID, "ACKBRIDGE_PURGE_EVERY is 0")


def build_schedule(retention: Retention, every: timedelta) -> tuple[Schedule, str]:
    """What the engine is asked to do and when, and what tells it from another."""
    request = PurgeRequest(retention=retention, by=SCHEDULED)
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            names.PURGE_LEDGER,
            request,
            id=names.PURGE_ID,
            task_queue=names.TASK_QUEUE,
            static_summary=_SUMMARY,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )
    return schedule, digest([request.model_dump(mode="json"), every.total_seconds()])


class PurgeHandle:
    """A clean-up that has been started."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self._handle.id

    async def result(self) -> PurgeProgress:
        """Wait for its end.

        Raises:
            InvalidRequestError: it was refused, or cancelled.
            EngineUnavailableError: the engine does not answer.
        """
        try:
            return PurgeProgress.model_validate(await self._handle.result())
        except WorkflowFailureError as error:
            raise InvalidRequestError(f"{self.id}: {_cause(error)}") from None
        except RPCError as error:
            raise _unavailable(error) from None


async def start_purge(client: Client, request: PurgeRequest) -> PurgeHandle:
    """Clean up now, or find the one by hand that is under way.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    try:
        handle = await client.start_workflow(
            names.PURGE_LEDGER,
            request,
            id=names.PURGE_ID,
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"{_SUMMARY}, wanted by {request.by}"[:200],
            rpc_timeout=RPC_TIMEOUT,
        )
    except RPCError as error:
        raise _unavailable(error) from None
    return PurgeHandle(handle)


def _cause(error: BaseException) -> str:
    while isinstance(cause := getattr(error, "cause", None), FailureError):
        error = cause
    return str(error)


def _unavailable(error: RPCError) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the engine did not answer ({error.status.name}): {error.message}"
    )


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):g} days"
