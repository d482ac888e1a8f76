"""What an operator reads about a host in the Temporal UI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts.bulk import MAX_HOSTED, CallEnd, Rejection
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    OutcomeCode,
    OutcomeStatus,
    Stage,
    Timings,
    Waiting,
    WaitingFor,
)
from workflows.bulk.ui_details import MAX_LINE, MAX_LISTED, OpenCall, render
from workflows.call.state import CallState

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)


def open_call(key: str, performing: str | None = None, **known: Any) -> OpenCall:
    """A call in a stage, with what is known about it."""
    request = CallRequest(provider="acme", operation="order", key=key)
    host: Any = None
    state = CallState(host, request, CallState.at_start(request.call_id, NOW))
    for name, value in known.items():
        setattr(state, name, value)
    return state, performing


def end(key: str, status: OutcomeStatus, code: OutcomeCode | None = None) -> CallEnd:
    """How a call has ended in its host."""
    call_id = f"acme.order.{key}"
    outcome = CallOutcome(
        call_id=call_id, status=status, code=code, timings=Timings(started_at=NOW)
    )
    return CallEnd(index=0, call_id=call_id, outcome=outcome)


def test_what_each_call_waits_for() -> None:
    """With times, the step that is under way and the last error; and where the others are."""
    response = Waiting(what=WaitingFor.RESPONSE, since=NOW)
    retry = Waiting(
        what=WaitingFor.RETRY, since=NOW, next_attempt_at=NOW + timedelta(seconds=4), detail="503"
    )
    calls = [
        open_call(
            "a",
            stage=Stage.AWAITING_RESPONSE,
            deadline=NOW + timedelta(seconds=9),
            waiting=response,
        ),
        open_call("b", stage=Stage.SENDING, waiting=retry, last_error="503"),
        open_call("c", "acknowledge: success", stage=Stage.ACKNOWLEDGING, last_error="a | b"),
    ]
    ends = [
        end("d", OutcomeStatus.COMPLETED),
        end("e", OutcomeStatus.FAILED, OutcomeCode.REFUSED),
        CallEnd(index=5, call_id="acme.order.f", moved_to="acme.order.f"),
        CallEnd(index=6, call_id="acme.order.g", moved_to="bulk:1"),
        CallEnd(index=7, call_id="", rejected=Rejection(type="InvalidRequest", reason="key: no")),
    ]
    assert render(calls, ends, 8) == (
        "**3 of 8 calls open**: 1 acknowledging, 1 awaiting response, 1 sending\n\n"
        "- `acme.order.a`: awaiting response since 2026-05-01 03:00:00 UTC,"
        " until 2026-05-01 03:00:09 UTC\n"
        "- `acme.order.b`: sending since 2026-05-01 03:00:00 UTC, waiting for: retry,"
        " since 2026-05-01 03:00:00 UTC, next attempt at 2026-05-01 03:00:04 UTC: 503\n"
        "- `acme.order.c`: acknowledging since 2026-05-01 03:00:00 UTC;"
        " under way: acknowledge: success; last error: a \\| b\n\n"
        "Moved, to a workflow of its own id where none is named: 2\n"
        "- `acme.order.f`\n- `acme.order.g`: in `bulk:1`\n\n"
        "Not completed: 1\n- `acme.order.e`: failed, refused\n\n"
        "Rejected, nothing was sent: 1\n- `7`: key: no\n\n"
        "Completed: 1\n\n"
        'The query `status` names all calls; with `{"call_id": "…"}` it shows one. Signals take'
        " the `call_id` of their call, too."
    )


def test_the_size_is_bounded() -> None:
    """A full host names the oldest calls, and says how many there are besides."""
    calls = [open_call(str(number), last_error="x" * 500) for number in range(MAX_HOSTED)]
    text = render(calls, [], MAX_HOSTED)
    assert f"- and {MAX_HOSTED - MAX_LISTED} more" in text
    assert len(text) < (MAX_LISTED + 2) * (MAX_LINE + 20)
