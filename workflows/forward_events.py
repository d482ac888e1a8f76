"""The workflow `ForwardEvents`: what no call waits for goes to its subscriber, in order."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

# As in call/workflow.py: a module that is passed through there and loaded anew here is two.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.deliveries import (
        Delivery,
        EventStream,
        EventStreamState,
        ForwardedEvent,
        ForwardedEvents,
        HoldEventStep,
        VisitStep,
    )
    from ackbridge.contracts.wire import InvalidInputError
    from workflows.hosting import markdown
    from workflows.hosting.inputs import (
        handle_signal,
        invalid_request,
        read_start,
        require_workflow_id,
    )
    from workflows.hosting.steps import LEDGER_TIMEOUT, MARGIN

MAX_SEEN = 1000
"""Event keys that a run passes to the next one; the ledger drops repeats, too."""

FIRST_EVENT_WITHIN = timedelta(minutes=1)
"""For the signal with the first event, which arrives with the start."""

VISIT_TIMEOUT = timedelta(seconds=30)
VISIT_WITHIN = timedelta(days=1)
VISIT_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=2),
    backoff_coefficient=4.0,
    maximum_interval=timedelta(hours=1),
)


@workflow.defn(name=names.FORWARD_EVENTS)
class ForwardEvents:
    """Forwards the events of one object one after the other, and ends when there are no more."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid, self._problem = "", ""
        self._stream: EventStream | None = None
        self._waiting: deque[ForwardedEvent] = deque()
        self._seen: dict[str, None] = {}
        self._forwarded = 0
        try:
            stream, before = read_start(arguments, EventStream, EventStreamState)
            require_workflow_id(names.events_id(stream.provider, stream.subject), "subject")
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._stream = stream
        if before is not None:
            self._waiting.extend(before.waiting)
            self._seen = dict.fromkeys(before.seen)

    @workflow.run
    async def run(self, *_arguments: Any) -> int:
        """Forward events.

        Returns:
            How many this run has forwarded.

        Raises:
            ApplicationError: of type InvalidRequest.
        """
        stream = self._stream
        if stream is None:
            raise invalid_request(self._invalid)
        await self._await_first_event()
        while self._waiting:
            self._show(stream)
            await self._forward(self._waiting[0])
            self._waiting.popleft()
            self._forwarded += 1
            if self._waiting and workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(args=[stream, self._state()])
        self._show(stream)
        return self._forwarded

    @workflow.signal(name=names.FORWARD)
    def forward(self, *arguments: Any) -> None:
        """Take events in their order; one that is known, or cannot be read, is left out."""
        handle_signal(arguments, ForwardedEvents, self._take, self._reject)

    def _take(self, signal: ForwardedEvents) -> None:
        for given in signal.events:
            handle_signal((given,), ForwardedEvent, self._add, self._reject)

    def _add(self, event: ForwardedEvent) -> None:
        if event.event_key not in self._seen:
            self._seen[event.event_key] = None
            self._waiting.append(event)

    def _reject(self, problem: str) -> None:
        self._problem = problem

    async def _await_first_event(self) -> None:
        try:
            await workflow.wait_condition(
                lambda: bool(self._waiting or self._problem), timeout=FIRST_EVENT_WITHIN
            )
        except TimeoutError:
            return

    async def _forward(self, event: ForwardedEvent) -> None:
        if event.notice is not None:
            await self._deliver(event.notice)
        if event.visit is not None:
            await self._visit(event.visit)

    async def _deliver(self, notice: Delivery) -> None:
        """Deliver a notice; what cannot be delivered is a dead letter, and the next one follows."""
        try:
            await workflow.execute_child_workflow(
                names.DELIVER_NOTICE,
                notice,
                id=names.notice_id(notice.body.id),
                task_queue=names.TASK_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"{notice.body.type} to {notice.subscriber}",
            )
        except WorkflowAlreadyStartedError:
            self._problem = f"{notice.body.id} was delivered before"
        except ChildWorkflowError as error:
            if is_cancelled_exception(error) and workflow.cancellation_reason() is not None:
                raise
            self._problem = f"{notice.body.id} was not delivered; see the dead notices"

    async def _visit(self, step: VisitStep) -> None:
        try:
            await workflow.execute_activity(
                names.VISIT,
                step,
                task_queue=names.settle_queue(step.provider),
                start_to_close_timeout=VISIT_TIMEOUT + MARGIN,
                schedule_to_close_timeout=VISIT_WITHIN,
                retry_policy=VISIT_RETRIES,
                summary=f"visit the URL in {step.event}",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            cause = error.cause
            reason = cause.message if isinstance(cause, ApplicationError) else "no answer in time"
            self._problem = f"not visited: {reason}"
            await workflow.execute_activity(
                names.HOLD_EVENT,
                HoldEventStep(
                    provider=step.provider, event_key=step.event_key, reason=self._problem
                ),
                start_to_close_timeout=LEDGER_TIMEOUT,
                summary="hold the event for operators",
            )

    def _state(self) -> EventStreamState:
        return EventStreamState(waiting=tuple(self._waiting), seen=tuple(self._seen)[-MAX_SEEN:])

    def _show(self, stream: EventStream) -> None:
        counts = f"{self._forwarded} forwarded, {len(self._waiting)} waiting"
        workflow.set_current_details(
            markdown.document(
                f"**Events of {stream.provider}** about `{stream.subject}`: {counts}",
                markdown.bullets([self._problem] if self._problem else []),
            )
        )
