"""A call as a story, for the current details in the Temporal UI (Markdown)."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallStatus, Stage

_HEADLINES = {
    Stage.PREPARING: "Preparing: checking the request, claiming the key",
    Stage.SENDING: "Sending the request",
    Stage.AWAITING_RESPONSE: "The provider has the request; awaiting its response",
    Stage.CAPTURING: "A response is here; writing it down",
    Stage.ACKNOWLEDGING: "Acknowledging to the provider",
    Stage.PARKED: "Parked: waiting for a late response, an operator, or a batch",
    Stage.COMPLETED: "Completed",
    Stage.FAILED: "Failed",
    Stage.CANCELLED: "Cancelled",
}


def tell(status: CallStatus) -> str:
    """Say where a call is, since when, until when and why, and what went wrong last."""
    lines = [f"**{_HEADLINES[status.stage]}** (since {_clock(status.since)})", ""]
    lines.append(f"- cycle {status.cycle}, sent {status.attempts} times")
    if status.reference:
        lines.append(f"- the provider calls it `{status.reference}`")
    if status.deadline:
        lines.append(f"- until {_clock(status.deadline)}: {status.deadline_reason}")
    if status.parked_times:
        lines.append(f"- parked {_times(status.parked_times)}")
    if status.reprocessed:
        by = status.reprocessed_by
        lines.append(f"- taken up again {_times(status.reprocessed)}, the last time by {by}")
    if status.standing:
        lines.append(f"- flags and breaker: {status.standing}")
    if status.acknowledgements_owed:
        lines.append(f"- acknowledgements owed to the provider: {status.acknowledgements_owed}")
    if status.duplicates:
        lines.append(f"- duplicates suppressed: {status.duplicates}")
    if status.last_error:
        lines.append(f"- last trouble: {status.last_error}")
    outcome = status.outcome
    if outcome is not None and outcome.forced:
        lines.append(f"- forced by {outcome.forced.by}: {outcome.forced.reason}")
    if outcome is not None and outcome.cancelled:
        lines.append(f"- cancelled by {outcome.cancelled.by}: {outcome.cancelled.reason}")
    if status.notice:
        lines += ["", f"> **{status.notice.title}** {status.notice.message}"]
        if status.notice.expected_at:
            lines.append(f"> Expected by {_clock(status.notice.expected_at)}.")
        if status.notice.alternative:
            lines.append(f"> {status.notice.alternative}")
        if status.notice.expected_at:
            lines.append(f"> Expected by {_clock(status.notice.expected_at)}.")
    return "\n".join(lines)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
