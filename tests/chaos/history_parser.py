"""What one history says, read event by event, without our converter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent

from ackbridge.contracts import names

from .records import Run, RunState, TaskFailure

BENIGN = (
    # Something new had come while the task was being completed: it is done again, as it should be.
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_STICKY_TASK_QUEUE,
)


LONGEST_RESULTS = 3000
"""Characters of the results of a host's steps that are shown."""


def read_run(run_id: str, events: Sequence[HistoryEvent]) -> Run:
    """What one history says."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    return Run(
        id=run_id,
        chain=reader.chain,
        state=reader.state,
        failure=reader.failure,
        outcome=reader.outcome,
        heard=frozenset(reader.heard),
        receipts=frozenset(reader.receipts),
        recorded=reader.recorded,
        task_failures=tuple(reader.task_failures),
        story=tuple(reader.story),
        moved_from=reader.moved_from,
    )


class _Reader:
    """Walks through a history."""

    def __init__(self) -> None:
        self.chain = ""
        self.state = RunState.OPEN
        self.failure: str | None = None
        self.outcome: dict[str, Any] | None = None
        self.heard: set[str] = set()
        self.receipts: set[str] = set()
        self.recorded = 0
        self.task_failures: list[TaskFailure] = []
        self.story: list[str] = []
        self.moved_from: str | None = None
        self._scheduled: dict[int, str] = {}

    def read(self, event: HistoryEvent) -> None:
        """Take the next event."""
        name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower()
        told = getattr(self, f"_{name}", None)
        what = told(event) if told else name.replace("_", " ")
        if what:
            at = event.event_time.ToDatetime().isoformat(timespec="milliseconds")[11:]
            self.story.append(f"{event.event_id:>3} {at} {what}")

    def _workflow_execution_started(self, event: HistoryEvent) -> str:
        started = event.workflow_execution_started_event_attributes
        self.chain = started.first_execution_run_id
        # The second argument is what the host knew of the call.
        if len(started.input.payloads) > 1 and started.HasField("parent_workflow_execution"):
            self.moved_from = started.parent_workflow_execution.run_id
        return "started" + (" by a run before it" if started.continued_execution_run_id else "")

    def _workflow_execution_completed(self, event: HistoryEvent) -> str:
        self.state = RunState.COMPLETED
        payloads = event.workflow_execution_completed_event_attributes.result.payloads
        self.outcome = first_payload(payloads)
        return "completed"

    def _workflow_execution_failed(self, event: HistoryEvent) -> str:
        self.state = RunState.FAILED
        failure = event.workflow_execution_failed_event_attributes.failure
        info = failure.application_failure_info
        self.failure = info.type or "no application failure"
        self.outcome = first_payload(info.details.payloads)
        return f"failed as {self.failure}: {failure.message}"

    def _workflow_execution_canceled(self, event: HistoryEvent) -> str:
        self.state = RunState.CANCELLED
        payloads = event.workflow_execution_canceled_event_attributes.details.payloads
        self.outcome = first_payload(payloads)
        return "cancelled"

    def _workflow_execution_continued_as_new(self, event: HistoryEvent) -> str:
        self.state = RunState.CONTINUED
        return "continued as new"

    def _workflow_execution_terminated(self, event: HistoryEvent) -> str:
        self.state = RunState.TERMINATED
        return "terminated"

    def _workflow_execution_timed_out(self, event: HistoryEvent) -> str:
        self.state = RunState.TIMED_OUT
        return "timed out"

    def _workflow_execution_signaled(self, event: HistoryEvent) -> str:
        signal = event.workflow_execution_signaled_event_attributes
        argument = first_payload(signal.input.payloads)
        if signal.signal_name == names.PROVIDER_MESSAGES and isinstance(argument, dict):
            return "; ".join(self._message(one) for one in argument["messages"])
        if signal.signal_name == names.PROVIDER_MESSAGE and isinstance(argument, dict):
            return self._message(argument)
        return f"signal {signal.signal_name}: {json.dumps(argument)[:200]}"

    def _message(self, message: dict[str, Any]) -> str:
        self.heard.add(message["event_key"])
        whose = f" for {message['call_id']}" if message.get("call_id") else ""
        return f"signal {names.PROVIDER_MESSAGE}: {message['kind']} {message['event_key']}{whose}"

    def _marker_recorded(self, event: HistoryEvent) -> str:
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != "core_local_activity":
            return f"marker {marker.marker_name}"
        name = first_payload(marker.details["data"].payloads)["activity_type"]
        if marker.HasField("failure"):
            return f"{name}, in the workflow task, failed: {_explain(marker.failure)}"
        payloads = marker.details["result"].payloads if "result" in marker.details else ()
        return self._done(f"{name}, in the workflow task", name, payloads)

    def _activity_task_scheduled(self, event: HistoryEvent) -> str:
        scheduled = event.activity_task_scheduled_event_attributes
        name = scheduled.activity_type.name
        self._scheduled[event.event_id] = name
        step = first_payload(scheduled.input.payloads) or {}
        kept = {key: step[key] for key in ("cycle", "kind", "reference", "stage") if key in step}
        return f"{name} scheduled on {scheduled.task_queue.name}: {json.dumps(kept)}"

    def _activity_task_started(self, event: HistoryEvent) -> str:
        started = event.activity_task_started_event_attributes
        name = self._scheduled[started.scheduled_event_id]
        before = f", after {_explain(started.last_failure)}" if started.attempt > 1 else ""
        return f"{name} started, attempt {started.attempt}{before}"

    def _activity_task_completed(self, event: HistoryEvent) -> str:
        completed = event.activity_task_completed_event_attributes
        name = self._scheduled[completed.scheduled_event_id]
        return self._done(name, name, completed.result.payloads)

    def _activity_task_failed(self, event: HistoryEvent) -> str:
        failed = event.activity_task_failed_event_attributes
        return f"{self._scheduled[failed.scheduled_event_id]} failed: {_explain(failed.failure)}"

    def _activity_task_timed_out(self, event: HistoryEvent) -> str:
        failed = event.activity_task_timed_out_event_attributes
        name = self._scheduled[failed.scheduled_event_id]
        return f"{name} timed out: {_explain(failed.failure)}"

    def _timer_started(self, event: HistoryEvent) -> str:
        timer = event.timer_started_event_attributes
        return f"timer {timer.timer_id}: {timer.start_to_fire_timeout.ToTimedelta()}"

    def _workflow_task_scheduled(self, event: HistoryEvent) -> None:
        attempts = event.workflow_task_scheduled_event_attributes.attempt
        if self.task_failures and attempts > 1:
            last = self.task_failures.pop()
            self.task_failures.append(
                TaskFailure(last.cause, last.message, max(last.attempts, attempts))
            )

    def _workflow_task_started(self, event: HistoryEvent) -> None:
        """Says nothing."""

    def _workflow_task_completed(self, event: HistoryEvent) -> None:
        """Says nothing."""

    def _workflow_task_failed(self, event: HistoryEvent) -> str:
        failed = event.workflow_task_failed_event_attributes
        cause = WorkflowTaskFailedCause.Name(failed.cause).removeprefix(
            "WORKFLOW_TASK_FAILED_CAUSE_"
        )
        if failed.cause not in BENIGN:
            self.task_failures.append(TaskFailure(cause, failed.failure.message))
        return f"workflow task failed: {cause}: {failed.failure.message}"

    def _done(self, told: str, name: str, payloads: Sequence[Payload]) -> str:
        result = first_payload(payloads)
        if isinstance(result, dict) and name == names.PERFORM_STEPS:
            values = [one.get("value") for one in result["results"]]
            for value in values:
                self._take(value)
            return f"{told}: {json.dumps(values)[:LONGEST_RESULTS]}"
        self._take(result)
        return f"{told}: {json.dumps(result)[:300]}"

    def _take(self, result: Any) -> None:
        """Take what the result of a step says; those of a host do not say of which step."""
        if not isinstance(result, dict):
            return
        self.recorded += bool(result.get("accepted"))
        if "receipt_at" in result and result.get("reference"):
            self.receipts.add(result["reference"])
        for message in [*(result.get("messages") or ()), *filter(None, [result.get("message")])]:
            self.heard.add(message["event_key"])
        # `prepare` may have sent the request.
        self._take(result.get("sent"))


def _explain(failure: Any) -> str:
    cause = failure
    while cause.HasField("cause"):
        cause = cause.cause
    kind = cause.application_failure_info.type
    return f"{kind}: {cause.message}" if kind else str(cause.message)


def first_payload(payloads: Sequence[Payload]) -> Any:
    """The first of them, as JSON; None when there is none."""
    if not payloads or payloads[0].metadata.get("encoding") == b"binary/null":
        return None
    return json.loads(payloads[0].data)
