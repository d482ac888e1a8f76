"""What the history of a host says about each of its calls, without our converter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.history.v1 import HistoryEvent

from ackbridge.contracts import names

from .history_parser import first_payload
from .records import Run, RunState


def read_host(run: Run, events: Sequence[HistoryEvent]) -> dict[str, Run]:
    """The part of each call in the run of its host, by call id.

    The history does not say which of its calls a result is of. All have what the host heard and
    recorded: event keys and references are those of one call only.
    """
    ends = {end["call_id"]: end for end in _ends(run, events)}
    return {call_id: part_of(run, call_id, ends.get(call_id)) for call_id in _calls(events)}


def part_of(run: Run, call_id: str, end: Mapping[str, Any] | None) -> Run:
    """The part of one call in the run of its host, by how it has left that."""
    part = replace(run, outcome=None, recorded=0, is_hosted=True)
    if end is None:
        is_closed = run.state in (RunState.COMPLETED, RunState.CANCELLED)
        # A host that has completed knows how each of its calls has left it.
        return replace(part, state=RunState.TERMINATED) if is_closed else part
    if end.get("moved_to") is not None:
        is_own = end["moved_to"] == call_id
        return replace(part, state=RunState.CONTINUED if is_own else RunState.FOLLOWED)
    if end.get("rejected") is not None:
        return replace(part, state=RunState.FAILED, failure=end["rejected"]["type"])
    outcome = end["outcome"]
    state = {"completed": RunState.COMPLETED, "cancelled": RunState.CANCELLED}.get(
        outcome["status"], RunState.FAILED
    )
    if run.state is RunState.OPEN and outcome.get("acknowledgement_owed"):
        state = RunState.OPEN
    return replace(part, state=state, outcome=outcome)


def _calls(events: Sequence[HistoryEvent]) -> list[str]:
    started = events[0].workflow_execution_started_event_attributes
    argument = first_payload(started.input.payloads)
    return [f"{one['provider']}.{one['operation']}.{one['key']}" for one in argument["requests"]]


def _ends(run: Run, events: Sequence[HistoryEvent]) -> Iterator[Mapping[str, Any]]:
    """How calls have left their host: those that were taken, and in the end all of them."""
    for event in events:
        if event.HasField("workflow_execution_update_completed_event_attributes"):
            updated = event.workflow_execution_update_completed_event_attributes
            result = first_payload(updated.outcome.success.payloads)
            if isinstance(result, dict) and "ends" in result:
                yield from result["ends"]
    if run.outcome is not None:
        yield from run.outcome["ends"]


def is_host(workflow_id: str) -> bool:
    """Whether the id is that of a host, and not of a call."""
    return workflow_id.startswith(names.BULK_PREFIX)
