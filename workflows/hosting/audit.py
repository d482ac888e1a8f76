"""Record operators' requests in the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.audit import (
        AUDIT_CHANGE,
        Audited,
        AuditOrigin,
        AuditRequest,
        describe_arguments,
        digest_of,
    )
    from ackbridge.contracts.limits import MAX_ACTOR_LENGTH, MAX_REASON_LENGTH, MAX_SUMMARY_LENGTH

TIMEOUT: Final = timedelta(seconds=30)
RETRIES: Final = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)
)
"""Unlimited: no request is lost because the ledger is down."""


class AuditTrail:
    """Records requests beside the workflow's own work; await `finish` before the run ends.

    Runs that began before there was an audit log have none.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._recording: set[asyncio.Task[None]] = set()

    def record(
        self,
        action: str,
        arguments: tuple[Any, ...],
        origin: AuditOrigin = AuditOrigin.SIGNAL,
        subject: str | None = None,
    ) -> None:
        """Begin to record a valid request, as it arrived, whether or not it comes too late.

        The resumption of one call by a batch is not recorded: the batch is.

        Args:
            subject: what it was about; None: this workflow.
        """
        fields = arguments[0] if arguments and isinstance(arguments[0], Mapping) else {}
        if action == names.REPROCESS and fields.get("batch") is not None:
            return
        if not workflow.patched(AUDIT_CHANGE):
            return
        info = workflow.info()
        self._requests += 1
        request = AuditRequest(
            id=f"{info.run_id}.{self._requests}",
            at=workflow.now(),
            origin=origin,
            action=action,
            subject=subject or info.workflow_id,
            by=str(fields.get("by", ""))[:MAX_ACTOR_LENGTH],
            reason=str(fields.get("reason", ""))[:MAX_REASON_LENGTH],
            details=describe_arguments(fields),
            arguments_digest=digest_of(arguments),
        )
        task = asyncio.create_task(_record(request))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    def record_start(self, action: str, arguments: tuple[Any, ...]) -> None:
        """Begin to record the start of a workflow; once for all its runs."""
        if workflow.info().continued_run_id is None:
            self.record(action, arguments, AuditOrigin.WORKFLOW)

    async def finish(self) -> None:
        """Wait until everything is recorded, also if the workflow is cancelled meanwhile."""
        while self._recording:
            try:
                await workflow.wait_condition(lambda: not self._recording)
            except asyncio.CancelledError:
                continue


async def _record(request: AuditRequest) -> None:
    await workflow.execute_activity(
        names.AUDIT,
        request,
        result_type=Audited,
        task_queue=names.TASK_QUEUE,
        start_to_close_timeout=TIMEOUT,
        retry_policy=RETRIES,
        summary=f"audit: {request.action} by {request.by}"[:MAX_SUMMARY_LENGTH],
    )
