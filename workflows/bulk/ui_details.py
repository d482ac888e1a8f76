"""The current details of a host in the Temporal UI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from temporalio import workflow

from workflows.call.state import CallState
from workflows.call.ui_details import waiting_text
from workflows.hosting.markdown import bullets, counted, document, one_line, timestamp

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.bulk import CallEnd
    from ackbridge.contracts.calls import OutcomeStatus, WaitingFor

MAX_LISTED: Final = 20
"""Calls of one kind that are named, at most."""

MAX_LINE: Final = 300
"""Characters that are said about one call."""

_HOW_TO = (
    'The query `status` names all calls; with `{"call_id": "…"}` it shows one. Signals take the'
    " `call_id` of their call, too."
)


OpenCall = tuple[CallState, str | None]
"""A call, and the step that is performed for it through a queue of its provider."""


def render(open_calls: Sequence[OpenCall], ends: Sequence[CallEnd], number: int) -> str:
    """Show the open calls and what they wait for, and how the others ended.

    Args:
        open_calls: the oldest in their stage first.
        number: of all requests.
    """
    stages = Counter(str(state.stage) for state, _ in open_calls)
    where = f": {_numbers(stages)}" if stages else ""
    ended = [end.outcome for end in ends if end.outcome is not None]
    bad = [one for one in ended if one.status is not OutcomeStatus.COMPLETED]
    return document(
        f"**{len(open_calls)} of {counted(number, 'call')} open**{where}",
        bullets(_bounded([_line(one) for one in open_calls[:MAX_LISTED]], len(open_calls))),
        _block(
            "Moved, to a workflow of its own id where none is named",
            [_moved(end) for end in ends if end.moved_to],
        ),
        _block("Not completed", [f"`{one.call_id}`: {one.status}, {one.code}" for one in bad]),
        _block("Rejected, nothing was sent", [_rejected(end) for end in ends if end.rejected]),
        f"Completed: {len(ended) - len(bad)}",
        _HOW_TO,
    )


def _line(call: OpenCall) -> str:
    """One call: its stage, since when, until when, and what it waits for."""
    state, performing = call
    text = f"{_words(state.stage)} since {timestamp(state.since)}"
    waiting = state.waiting
    if state.deadline is not None and waiting and waiting.what is WaitingFor.RESPONSE:
        text += f", until {timestamp(state.deadline)}"
    elif waiting is not None:
        text += f", {waiting_text(waiting)}"
    if performing is not None:
        text += f"; under way: {performing}"
    if state.last_error is not None and not (waiting and waiting.detail == state.last_error):
        text += f"; last error: {state.last_error}"
    return f"`{state.request.call_id}`: {one_line(text, MAX_LINE)}"


def _moved(end: CallEnd) -> str:
    is_own = end.moved_to == end.call_id
    return f"`{end.call_id}`" if is_own else f"`{end.call_id}`: in `{end.moved_to}`"


def _rejected(end: CallEnd) -> str:
    reason = one_line(end.rejected.reason if end.rejected else "")
    return f"`{end.call_id or end.index}`: {reason}"


def _block(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"{title}: {len(lines)}\n" + bullets(_bounded(lines[:MAX_LISTED], len(lines)))


def _bounded(lines: Sequence[str], number: int) -> list[str]:
    left = number - len(lines)
    return [*lines, f"and {left} more"] if left else list(lines)


def _numbers(stages: Counter[str]) -> str:
    return ", ".join(f"{number} {_words(stage)}" for stage, number in sorted(stages.items()))


def _words(name: str) -> str:
    return name.replace("_", " ")
