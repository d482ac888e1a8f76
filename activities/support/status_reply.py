"""What a provider's answer means for its call: the message in it, under a key of our own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ackbridge.catalog.matching import classify
from ackbridge.catalog.rendering import render_status
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import (
    MessageKind,
    MessageSource,
    ProviderMessage,
)
from ackbridge.contracts.steps import AskStep, PollStep
from ackbridge.contracts.wire import digest

from .dependencies import Dependencies
from .provider_http import ProviderResponse, converse


@dataclass(frozen=True)
class StatusReply:
    """The answer to a question.

    Attributes:
        message: what it means for the call; None when the provider knows no more than we do.
        said: the answer in one line.
    """

    message: ProviderMessage | None
    said: str


async def ask(provisions: Dependencies, step: AskStep | PollStep) -> StatusReply | None:
    """Ask the provider how its work stands; None where it cannot be asked.

    Raises:
        NoAnswer, Invalid, ConfigurationError: as `converse`.
    """
    answer = await converse(
        provisions, step.request, step.cycle, render_status, reference=step.reference
    )
    if answer is None:
        return None
    said = f"the provider answered {answer.status}"
    if answer.status >= 400:
        return StatusReply(None, said)
    message = read_answer(
        provisions, step.request, step.cycle, answer, MessageSource.STATUS, step.reference
    )
    return StatusReply(message, said if message else f"{said}, and has no answer yet")


def read_answer(
    provisions: Dependencies,
    request: CallRequest,
    cycle: int,
    answer: ProviderResponse,
    source: MessageSource,
    reference: str | None,
) -> ProviderMessage | None:
    """The message in an answer; None when it is nothing the operation waits for.

    Args:
        reference: the cycle's, for an answer that does not repeat it.
    """
    now = provisions.clock()
    stem = f"{source}:{names.idempotency_key(request.call_id, cycle)}"
    message = classify(
        answer.operation,
        answer.document,
        _key(stem),
        source,
        now,
        provisions.redactor(request.provider),
    )
    if message is None:
        return None
    known = {"reference": message.reference or reference}
    if message.kind is not MessageKind.EXTENSION:
        return message.model_copy(update=known)
    # A call hears every key once, and after more time it still has to hear the response.
    return message.model_copy(update={**known, "event_key": _key(stem, _more(message, now))})


def _more(extension: ProviderMessage, now: datetime) -> str:
    """What makes two extensions the same: the moment, or the span and about when it was said.

    A span counts from now. It is heard anew once half of it is over, not at every question.
    """
    if extension.until is not None or extension.extend_by is None:
        return f":{extension.until}"
    seconds = extension.extend_by.total_seconds()
    return f":+{seconds:g}:{int(now.timestamp() // (seconds / 2))}"


def _key(stem: str, rest: str = "") -> str:
    key = f"{stem}{rest}"
    if len(key) <= MAX_KEY_LENGTH:
        return key
    source, _, _ = stem.partition(":")
    return f"{source}:{digest(stem)}{rest}"
