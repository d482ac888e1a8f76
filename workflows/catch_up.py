"""The workflow `CatchUp`: read a provider's own list of events, page by page."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

# As in call/workflow.py: a module that is passed through there and loaded anew here is two.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.catch_up import (
        CatchUpProgress,
        CatchUpRequest,
        ListedEvents,
        ListEventsStep,
    )
    from ackbridge.contracts.wire import InvalidInputError
    from workflows.hosting import markdown
    from workflows.hosting.audit import AuditTrail
    from workflows.hosting.inputs import invalid_request, read_start, require_workflow_id

PAGE_TIMEOUT = timedelta(minutes=5)
"""Of one attempt: the request, and the delivery of the page's events."""

PAGE_WITHIN = timedelta(days=1)
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=5), maximum_interval=timedelta(minutes=5))


@workflow.defn(name=names.CATCH_UP)
class CatchUp:
    """Delivers listed events like callbacks; those that are known are duplicates."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid = ""
        self._request: CatchUpRequest | None = None
        self._progress = CatchUpProgress()
        try:
            request, before = read_start(arguments, CatchUpRequest, CatchUpProgress)
            require_workflow_id(names.catch_up_id(request.provider), "provider")
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._request, self._progress = request, before or self._progress

    @workflow.run
    async def run(self, *arguments: Any) -> CatchUpProgress:
        """Read all pages.

        Raises:
            ApplicationError: of type InvalidRequest: the request is not valid, or the provider has
                no list or refuses it.
        """
        request = self._request
        if request is None:
            raise invalid_request(self._invalid)
        audit = AuditTrail()
        audit.record_start(names.CATCH_UP, arguments)
        await audit.finish()
        until = request.until or workflow.now()
        while True:
            self._show(request)
            listed = await self._read_page(request, until)
            self._add(listed)
            if self._progress.page is None or self._progress.pages >= listed.max_pages:
                self._show(request)
                return self._progress
            if workflow.info().is_continue_as_new_suggested():
                bounded = request.model_copy(update={"until": until})
                workflow.continue_as_new(args=[bounded, self._progress])

    async def _read_page(self, request: CatchUpRequest, until: datetime) -> ListedEvents:
        step = ListEventsStep(
            provider=request.provider, since=request.since, until=until, page=self._progress.page
        )
        try:
            listed: ListedEvents = await workflow.execute_activity(
                names.LIST_EVENTS,
                step,
                result_type=ListedEvents,
                task_queue=names.settle_queue(request.provider),
                start_to_close_timeout=PAGE_TIMEOUT,
                schedule_to_close_timeout=PAGE_WITHIN,
                retry_policy=RETRIES,
                summary=f"page {self._progress.pages + 1}",
            )
        except ActivityError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.non_retryable:
                raise invalid_request(cause.message) from None
            raise
        return listed

    def _add(self, listed: ListedEvents) -> None:
        events = dict(self._progress.events)
        for result, number in listed.events.items():
            events[result] = events.get(result, 0) + number
        self._progress = CatchUpProgress(
            page=listed.next_page,
            pages=self._progress.pages + 1,
            events=events,
            last_problem=listed.last_problem or self._progress.last_problem,
        )

    def _show(self, request: CatchUpRequest) -> None:
        progress = self._progress
        problem = [f"last problem: {progress.last_problem}"] if progress.last_problem else []
        workflow.set_current_details(
            markdown.document(
                f"**Events of {request.provider}** since {markdown.timestamp(request.since)},"
                f" for {request.by}: {markdown.counted(progress.pages, 'page')}",
                markdown.bullets(
                    [
                        *(f"{number} {result}" for result, number in progress.events.items()),
                        *problem,
                    ]
                ),
            )
        )
