"""The workflow `ReprocessParked`: hosts one batch.

It reprocesses parked calls page by page and continues as new when its history is long, so that
only its selection limits its size.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows.hosting.audit import AuditTrail
from workflows.hosting.inputs import handle_signal, invalid_request, read_start, require_no_timeouts
from workflows.hosting.markdown import counted
from workflows.hosting.temporal_host import should_continue_as_new

from .batch import BatchRun
from .ui_details import render

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.batches import (
        BatchCommand,
        BatchContinuation,
        BatchProgress,
        BatchRequest,
        BatchState,
        ReprocessPageResult,
        Survey,
    )
    from ackbridge.contracts.limits import MAX_SUMMARY_LENGTH
    from ackbridge.contracts.wire import InvalidInputError

SURVEY_TIMEOUT = timedelta(minutes=1)
PAGE_TIMEOUT = timedelta(minutes=30)
"""For one attempt; a page takes at most ten minutes."""
HEARTBEAT_TIMEOUT = timedelta(seconds=10)
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
"""Unlimited: the state of a batch is in the ledger."""


@workflow.defn(name=names.REPROCESS_PARKED)
class ReprocessParked:
    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        self._batch: BatchRun | None = None
        self._audit = AuditTrail()
        try:
            request, state = read_start(arguments, BatchRequest, BatchContinuation)
            require_no_timeouts("selected calls would never be released")
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        info = workflow.info()
        self._batch = BatchRun(
            request,
            info.workflow_id,
            info.first_execution_run_id,
            workflow.now,
            lambda progress: workflow.set_current_details(render(progress)),
            state,
        )

    @workflow.run
    async def run(self, *arguments: Any) -> BatchProgress:
        """Run the batch.

        Raises:
            ApplicationError: of type InvalidRequest.
        """
        batch = self._require_batch()
        self._audit.record_start(names.REPROCESS, arguments)
        running = asyncio.create_task(self._run(batch))
        is_cancelled = False
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            # Selected calls are released first.
            is_cancelled = True
            batch.stop(BatchCommand(by="Temporal", reason="the workflow was cancelled"))
            await running
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._audit.finish()
        if is_cancelled:
            raise asyncio.CancelledError
        if not batch.state.progress.state.is_final:
            # Last, so that the state has whatever arrived before this moment.
            workflow.continue_as_new(args=[batch.request, batch.state])
        return batch.state.progress

    async def _run(self, batch: BatchRun) -> None:
        """Run to the end, or until the workflow should continue as new."""
        await self._start(batch)
        is_done = False
        while not is_done and batch.state.stopped is None:
            if should_continue_as_new():
                return
            if batch.state.paused is not None:
                batch.enter_pause()
                await workflow.wait_condition(
                    lambda: (
                        batch.state.paused is None
                        or batch.state.stopped is not None
                        or should_continue_as_new()
                    )
                )
            else:
                is_done = await self._next_page(batch)
        if batch.state.stopped is not None and batch.is_surveyed:
            batch.page_done(await self._reprocess_page(batch, is_last=True), is_last=True)
        batch.end()

    async def _start(self, batch: BatchRun) -> None:
        left = batch.wait_before_start()
        if left is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: batch.state.stopped is not None,
                    timeout=left,
                    timeout_summary="not before",
                )
        if batch.state.stopped is None and not batch.is_surveyed:
            survey = await workflow.execute_activity(
                names.SURVEY_PARKED,
                batch.survey_step(),
                result_type=Survey,
                start_to_close_timeout=SURVEY_TIMEOUT,
                retry_policy=RETRIES,
                summary="count parked calls",
            )
            batch.surveyed(survey)

    async def _next_page(self, batch: BatchRun) -> bool:
        """Reprocess one page; whether it was the last."""
        try:
            page = await self._reprocess_page(batch)
        except ActivityError as error:
            if not (is_cancelled_exception(error) and batch.is_interrupted):
                raise
            # Interrupted while it waited for a worker or for its next attempt.
            return False
        batch.page_done(page)
        return page.is_done

    async def _reprocess_page(
        self, batch: BatchRun, *, is_last: bool = False
    ) -> ReprocessPageResult:
        step = batch.page_step(is_last=is_last)
        page: workflow.ActivityHandle[ReprocessPageResult] = workflow.start_activity(
            names.REPROCESS_PAGE,
            step,
            result_type=ReprocessPageResult,
            start_to_close_timeout=PAGE_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
            # A cancelled page returns its progress.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=_summary(batch.state.progress, is_last=is_last),
        )
        if not is_last:
            await workflow.wait_condition(lambda: page.done() or batch.is_interrupted)
            if not page.done():
                page.cancel()
        return await page

    @workflow.signal(name=names.PAUSE)
    def pause(self, *arguments: Any) -> None:
        """Reprocess no more calls until the batch is resumed: `BatchCommand`."""
        self._signal(names.PAUSE, arguments, BatchRun.pause)

    @workflow.signal(name=names.RESUME)
    def resume(self, *arguments: Any) -> None:
        """Continue after a pause: `BatchCommand`."""
        self._signal(names.RESUME, arguments, BatchRun.resume)

    @workflow.signal(name=names.STOP)
    def stop(self, *arguments: Any) -> None:
        """End the batch early: `BatchCommand`. Calls in progress end by themselves."""
        self._signal(names.STOP, arguments, BatchRun.stop)

    @workflow.query(name=names.PROGRESS)
    def progress(self) -> BatchProgress:
        return self._require_batch().state.progress

    def _require_batch(self) -> BatchRun:
        if self._batch is None:
            raise invalid_request(self._invalid)
        return self._batch

    def _signal(
        self,
        action: str,
        arguments: tuple[Any, ...],
        handle: Callable[[BatchRun, BatchCommand], None],
    ) -> None:
        """Handle an operator's request, and record it in the audit log."""
        batch = self._batch
        if batch is None:
            return

        def handle_and_record(command: BatchCommand) -> None:
            handle(batch, command)
            self._audit.record(action, arguments)

        handle_signal(arguments, BatchCommand, handle_and_record, batch.reject)


def _summary(progress: BatchProgress, *, is_last: bool) -> str:
    if is_last:
        return "release calls that were not resumed yet"
    if progress.state is BatchState.WAITING:
        return f"wait: {progress.why}"[:MAX_SUMMARY_LENGTH]
    return f"{counted(progress.counts.done, 'call')} done: resume more"
