"""Purge the ledger: by schedule, or at once."""

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
from ackbridge.ledger.bodies import PREFIX as BODIES
from ackbridge.objects.s3 import S3Bucket
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors
from ackbridge.temporal.external_storage import PREFIX as PAYLOADS
from ackbridge.temporal.schedules import delete_schedule, log_failures, sync_schedule

SCHEDULED: Final = "schedule"
"""The `by` of a purge that the schedule starts."""

CATCH_UP: Final = timedelta(hours=1)
"""How late a purge may start that was due while the engine was down; the next does its work."""

_SUMMARY: Final = "delete expired rows from the ledger"


async def check_retention(client: Client, retention: Retention) -> None:
    """Check that the ledger keeps calls at least as long as the engine does.

    Otherwise a key could be used again while the engine still has the call it belongs to.

    Raises:
        ConfigurationError: it does not.
        EngineUnavailableError: the engine's retention is not known.
    """
    if retention.calls == KEEP_FOREVER:
        return
    engine = await _engine_retention(client)
    if retention.calls < engine:
        raise ConfigurationError(
            f"ACKBRIDGE_RETENTION_CALLS is {_days(retention.calls)}, but the engine keeps calls of"
            f" namespace {client.namespace} for {_days(engine)}; the ledger must keep calls at"
            " least as long"
        )


async def check_object_retention(client: Client, bucket: S3Bucket, retention: Retention) -> None:
    """Check that large payloads and bodies are kept at least as long as their calls.

    Bodies are deleted with their call; payloads only by a rule of the bucket.

    Raises:
        ConfigurationError: a rule of the bucket deletes them earlier.
        UnavailableError: the rules, or the engine's retention, could not be read.
    """
    is_forever = retention.calls == KEEP_FOREVER
    kept = await _engine_retention(client) if is_forever else retention.calls
    for what, prefix in (("payloads", PAYLOADS), ("bodies", BODIES)):
        expires = await bucket.shortest_expiration(prefix)
        if expires is None:
            continue
        if expires <= kept or (is_forever and prefix == BODIES):
            needed = "for ever" if is_forever and prefix == BODIES else f"for {_days(kept)}"
            raise ConfigurationError(
                f"ACKBRIDGE_LARGE_PAYLOADS: bucket {bucket.name} deletes {what} ({prefix}) after"
                f" {_days(expires)}, but ended calls are kept {needed}; open calls count, too"
            )


async def _engine_retention(client: Client) -> timedelta:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        described = await client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        raise EngineUnavailableError(
            f"the retention of namespace {client.namespace} could not be read"
            f" ({error.status.name}); ACKBRIDGE_RETENTION_CALLS must be at least as long"
        ) from None
    return described.config.workflow_execution_retention_ttl.ToTimedelta()


async def sync_purge_schedule(client: Client, retention: Retention, every: timedelta) -> None:
    """Create, update or delete the purge schedule; several workers may do so at once.

    Args:
        every: the interval; zero: no schedule.
    """
    with log_failures("the purge schedule could not be updated"):
        if every:
            await sync_schedule(client, names.PURGE_ID, *_build_schedule(retention, every))
        else:
            await delete_schedule(client, names.PURGE_ID, "ACKBRIDGE_PURGE_EVERY is 0")


def _build_schedule(retention: Retention, every: timedelta) -> tuple[Schedule, str]:
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
    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    async def result(self) -> PurgeProgress:
        """Wait for the end.

        Raises:
            InvalidRequestError: it was refused, or cancelled.
            EngineUnavailableError: the engine does not answer.
        """
        try:
            with rpc_errors():
                return PurgeProgress.model_validate(await self._handle.result())
        except WorkflowFailureError as error:
            raise InvalidRequestError(f"{self.id}: {_cause(error)}") from None


async def start_purge(client: Client, request: PurgeRequest) -> PurgeHandle:
    """Start a purge, or find the running one that was started here.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    with rpc_errors():
        handle = await client.start_workflow(
            names.PURGE_LEDGER,
            request,
            id=names.PURGE_ID,
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"{_SUMMARY}, for {request.by}"[:200],
            rpc_timeout=RPC_TIMEOUT,
        )
    return PurgeHandle(handle)


def _cause(error: BaseException) -> str:
    while isinstance(cause := getattr(error, "cause", None), FailureError):
        error = cause
    return str(error)


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):g} days"
