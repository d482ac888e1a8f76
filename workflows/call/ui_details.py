"""The current details of a call in the Temporal UI."""

from __future__ import annotations

from temporalio import workflow

from workflows.hosting.markdown import bullets, document, quote_notice, times, timestamp

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallStatus, Effect, Stage, Waiting

_HEADLINES = {
    Stage.PREPARING: "Preparing: checking the request, claiming the key",
    Stage.SENDING: "Sending the request",
    Stage.AWAITING_RESPONSE: "Request received by the provider; awaiting its response",
    Stage.CAPTURING: "Response received; recording it",
    Stage.ACKNOWLEDGING: "Acknowledging to the provider",
    Stage.PARKED: "Parked: waiting for a late response, an operator, or a batch",
    Stage.RECONCILING: "Outcome unknown: asking the provider until it is known",
    Stage.COMPLETED: "Completed",
    Stage.FAILED: "Failed",
    Stage.CANCELLED: "Cancelled",
}


def render(status: CallStatus) -> str:
    """Show the stage, the deadline with its reason, counts, the last error and the notice."""
    return document(
        f"**{_HEADLINES[status.stage]}{_ending(status)}** (since {timestamp(status.since)})",
        bullets(_facts(status)),
        quote_notice(status.notice),
    )


_UNKNOWN = "the provider may have done the work, or may still do it"


def _ending(status: CallStatus) -> str:
    """What the headline says of an end besides its stage."""
    outcome = status.outcome
    if outcome is not None and outcome.late:
        return ", late: after a missed deadline, or after the caller was told of a delay"
    is_ended = status.stage in (Stage.FAILED, Stage.CANCELLED)
    return f", effect unknown: {_UNKNOWN}" if is_ended and status.effect is Effect.UNKNOWN else ""


def _facts(status: CallStatus) -> list[str]:
    facts = [f"cycle {status.cycle}, attempts to send: {status.attempts}"]
    if status.stage is not Stage.PREPARING:
        is_unknown = status.effect is Effect.UNKNOWN
        meaning = f" ({_UNKNOWN})" if is_unknown else ""
        facts.append(f"effect at the provider: {status.effect}{meaning}")
    if status.code:
        facts.append(f"code: {status.code}, the provider's: {status.provider_code or 'none'}")
    if status.waiting:
        facts.append(waiting_text(status.waiting))
    if status.reference:
        facts.append(f"provider's reference: `{status.reference}`")
    if status.deadline:
        facts.append(f"until {timestamp(status.deadline)}: {status.deadline_reason}")
    if status.parked_times:
        facts.append(f"parked: {times(status.parked_times)}")
    if status.reprocessed:
        facts.append(f"reprocessed: {times(status.reprocessed)}, last by {status.reprocessed_by}")
    if status.standing:
        facts.append(f"flags and breaker: {status.standing}")
    if status.acknowledgements_owed:
        facts.append(f"pending acknowledgements: {status.acknowledgements_owed}")
    if status.disputed:
        facts.append("the provider refuses our success acknowledgement")
    if status.duplicates:
        facts.append(f"duplicates suppressed: {status.duplicates}")
    if status.last_error:
        facts.append(f"last error: {status.last_error}")
    outcome = status.outcome
    if outcome is not None and outcome.forced:
        facts.append(f"forced by {outcome.forced.by}: {outcome.forced.reason}")
    if outcome is not None and outcome.cancelled:
        facts.append(f"cancelled by {outcome.cancelled.by}: {outcome.cancelled.reason}")
    if outcome is not None and outcome.settled:
        facts.append(f"settled by {outcome.settled.by}: {outcome.settled.reason}")
    return facts


def waiting_text(waiting: Waiting) -> str:
    """What the call waits for, until when, and why."""
    text = f"waiting for: {waiting.what.replace('_', ' ')}, since {timestamp(waiting.since)}"
    if waiting.next_attempt_at:
        text += f", next attempt at {timestamp(waiting.next_attempt_at)}"
    return f"{text}: {waiting.detail}" if waiting.detail else text
