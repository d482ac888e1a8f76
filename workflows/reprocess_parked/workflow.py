"""The workflow `ReprocessParked`: hosts one batch and wires its handlers to it.

It takes parked calls up again page by page, and continues as new when its history is long: its
size is bounded by nothing but its selection.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from workflows.hosting.temporal_host import should_continue_as_new

from .batch import Batch
from .ui_details import tell_batch

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
    from ackbridge.contracts.wire import InvalidInputError, parse_argument

SURVEY_TIMEOUT = timedelta(minutes=1)
PAGE_TIMEOUT = timedelta(minutes=30)
"""Of one attempt; a page is over long before that."""
SILENT_FOR = timedelta(seconds=10)
"""After which a page's worker is thought to be dead."""
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
"""For as long as it takes: what a batch has done stands in the ledger."""


@workflow.defn(name=names.REPROCESS_PARKED)
class ReprocessParked:
    """One batch. Arguments arrive raw and are validated inside, as those of calls."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        self._batch: Batch | None = None
        try:
            request, memory = _read_start(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        info = workflow.info()
        self._batch = Batch(
            request,
            info.workflow_id,
            info.first_execution_run_id,
            workflow.now,
            lambda progress: workflow.set_current_details(tell_batch(progress)),
            memory,
        )

    @workflow.run
    async def run(self, *_arguments: Any) -> BatchProgress:
        """Conduct the batch.

        Returns:
            What has become of its calls.

        Raises:
            ApplicationError: of type InvalidRequest; it was started with something else.
        """
        batch = self._batch
        if batch is None:
            raise ApplicationError(
                self._invalid or "", type=names.INVALID_REQUEST, non_retryable=True
            )
        conduct = asyncio.create_task(self._conduct(batch))
        is_cancelled = False
        try:
            await asyncio.shield(conduct)
        except asyncio.CancelledError:
            # What was marked is given back first.
            is_cancelled = True
            batch.stop(BatchCommand(by="Temporal", reason="the workflow was cancelled"))
            await conduct
        await workflow.wait_condition(workflow.all_handlers_finished)
        if is_cancelled:
            raise asyncio.CancelledError
        if not batch.progress.state.is_final:
            # Asked last: whatever arrives before this moment is in the memory.
            workflow.continue_as_new(args=[batch.request, batch.memory()])
        return batch.progress

    async def _conduct(self, batch: Batch) -> None:
        """Work until the end, or until this run's history is long."""
        await self._begin(batch)
        is_done = False
        while not is_done and batch.stopped is None:
            if should_continue_as_new():
                return
            if batch.paused is not None:
                batch.rests()
                await workflow.wait_condition(
                    lambda: (
                        batch.paused is None
                        or batch.stopped is not None
                        or should_continue_as_new()
                    )
                )
            else:
                is_done = await self._turn_page(batch)
        if batch.stopped is not None and batch.is_surveyed:
            batch.take(await self._page(batch, is_last=True))
        batch.end()

    async def _begin(self, batch: Batch) -> None:
        """Wait for its time, and see what there is to do."""
        left = batch.waits_for_its_time()
        if left is not None:
            await _wait(lambda: batch.stopped is not None, left, "its time has not come")
        if batch.stopped is None and not batch.is_surveyed:
            survey = await workflow.execute_activity(
                names.SURVEY_PARKED,
                batch.survey_step(),
                result_type=Survey,
                start_to_close_timeout=SURVEY_TIMEOUT,
                retry_policy=RETRIES,
                summary="see what is parked",
            )
            batch.surveyed(survey)

    async def _turn_page(self, batch: Batch) -> bool:
        """Take calls up for a while; whether that was all of them."""
        try:
            page = await self._page(batch)
        except ActivityError as error:
            if not (is_cancelled_exception(error) and batch.is_interrupted()):
                raise
            # It was waiting for a worker, or for its next attempt.
            return False
        batch.take(page)
        return page.is_done

    async def _page(self, batch: Batch, *, is_last: bool = False) -> ReprocessPageResult:
        step = batch.page_step(is_last=is_last)
        page: workflow.ActivityHandle[ReprocessPageResult] = workflow.start_activity(
            names.REPROCESS_PAGE,
            step,
            result_type=ReprocessPageResult,
            start_to_close_timeout=PAGE_TIMEOUT,
            heartbeat_timeout=SILENT_FOR,
            retry_policy=RETRIES,
            # It answers with how far it has come.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=_summary(batch.progress, is_last=is_last),
        )
        if not is_last:
            await workflow.wait_condition(lambda: page.done() or batch.is_interrupted())
            if not page.done():
                page.cancel()
        return await page

    @workflow.signal(name=names.PAUSE)
    def pause(self, *arguments: Any) -> None:
        """Take up no more calls until somebody resumes it: `BatchCommand`."""
        self._take(arguments, Batch.pause)

    @workflow.signal(name=names.RESUME)
    def resume(self, *arguments: Any) -> None:
        """Go on after a pause: `BatchCommand`."""
        self._take(arguments, Batch.resume)

    @workflow.signal(name=names.STOP)
    def stop(self, *arguments: Any) -> None:
        """End before its time: `BatchCommand`. Calls under way end by themselves."""
        self._take(arguments, Batch.stop)

    @workflow.query(name=names.PROGRESS)
    def progress(self) -> BatchProgress:
        """How far it is."""
        if self._batch is None:
            raise ApplicationError(self._invalid or "", type=names.INVALID_REQUEST)
        return self._batch.progress

    def _take(self, arguments: tuple[Any, ...], act: Callable[[Batch, BatchCommand], None]) -> None:
        """Do what a signal says, or keep what is wrong with it."""
        if self._batch is None:
            return
        try:
            act(self._batch, parse_argument(BatchCommand, arguments))
        except InvalidInputError as error:
            self._batch.reject(str(error))


async def _wait(condition: Callable[[], bool], left: timedelta, summary: str) -> None:
    try:
        await workflow.wait_condition(condition, timeout=left, timeout_summary=summary)
    except builtins.TimeoutError:
        return


def _summary(progress: BatchProgress, *, is_last: bool) -> str:
    if is_last:
        return "give back the calls that were not told yet"
    if progress.state is BatchState.WAITING:
        return f"wait: {progress.why}"[:200]
    return f"{progress.counts.done} calls done: take up more"


def _read_start(arguments: tuple[Any, ...]) -> tuple[BatchRequest, BatchContinuation | None]:
    """Validate what the batch was started with, the start options included."""
    info = workflow.info()
    is_continued = info.continued_run_id is not None and len(arguments) == 2
    memory = BatchContinuation.model_validate(arguments[1]) if is_continued else None
    request = parse_argument(BatchRequest, arguments[:1] if is_continued else arguments)
    if info.execution_timeout or info.run_timeout:
        raise InvalidInputError(
            "workflow timeouts: a batch has none, marked calls would be left behind"
        )
    return request, memory
