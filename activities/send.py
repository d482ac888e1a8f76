"""send: the request goes out under the cycle's key, until there is a receipt."""

from __future__ import annotations

import logging
from datetime import timedelta

from temporalio import activity

from ackbridge.catalog.matching import classify, is_receipt, receipt_reference
from ackbridge.catalog.rendering import render_request
from ackbridge.contracts import names
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import SendStep, Sent, StepFailure
from ackbridge.errors import UnknownNameError
from ackbridge.ledger.inbox import StoredEntry
from activities.support.attempts import AttemptHistory
from activities.support.counters import (
    is_first_attempt,
    note_ends,
    note_not_received,
    note_receipt,
)
from activities.support.dependencies import Dependencies
from activities.support.provider_http import ProviderResponse, converse, refusal
from activities.support.retry import Cause, NoAnswerError, RefusedError, cause_of
from activities.support.status_reply import read_answer

GARBLED = "the provider's body cannot be read"

log = logging.getLogger(__name__)


class Send:
    """One attempt; the retries are the engine's, within the operation's time."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.SEND)
    async def send(self, step: SendStep) -> Sent:
        """Send the request and take the receipt.

        Raises:
            ApplicationError: RefusedError (final), or NoReceipt: to be tried again, until the next
                attempt would begin later than `receipt.within` after the first one. Whether any
                attempt may have reached the provider is in the details.
        """
        tries = AttemptHistory(step, self._with.clock)
        within = self._within(step)
        if not step.tried and is_first_attempt():
            note_ends(self._with, step.request, step.ended)
        overdue = tries.overdue(within) if within is not None else None
        if overdue is not None:
            raise tries.failed(overdue, within)
        try:
            return await self._send(step, tries)
        except Exception as error:
            cause = _classified(error)
            note_not_received(self._with, step.request, cause)
            raise tries.failed(cause, within) from None

    async def _send(self, step: SendStep, tries: AttemptHistory) -> Sent:
        request = step.request
        sent_at = self._with.clock()
        answer = await converse(self._with, request, step.cycle, render_request)
        receipt_at = self._with.clock()
        if not is_receipt(answer.operation, answer.status, answer.document):
            raise RefusedError(refusal(answer, self._with.redactor(request.provider)))
        again, tries.reached = tries.reached, True
        reference = receipt_reference(answer.operation, answer.document)
        if reference is None and answer.operation.receipt.reference and answer.is_garbled:
            raise NoAnswerError(f"{GARBLED} as a receipt", reached=True)
        sent = Sent(
            sent_at=sent_at,
            receipt_at=receipt_at,
            reference=reference,
            attempt=activity.info().attempt,
            messages=tuple(await self._messages(step, answer, reference)),
            again=again,
        )
        note_receipt(self._with, request, sent)
        return sent

    async def _messages(
        self, step: SendStep, answer: ProviderResponse, reference: str | None
    ) -> list[ProviderMessage]:
        """The response itself, or what has come before anyone waited for it."""
        mode = answer.operation.response.mode
        if mode == "sync":
            return [self._synchronous(step, answer, reference)]
        if mode == "poll":
            return []
        request, ledger = step.request, self._with.ledger
        if reference is not None:
            # Written first, read then: the gateway does the same from its side, so that a
            # callback between the two is found by one of them.
            await ledger.calls.commit_reference(request.call_id, request.provider, reference)
        waiting = await ledger.inbox.pending(request.provider, request.call_id, reference)
        read = (self._read(answer, request.provider, stored) for stored in waiting)
        return [message for message in read if message is not None]

    def _read(
        self, answer: ProviderResponse, provider: str, stored: StoredEntry
    ) -> ProviderMessage | None:
        entry = stored.entry
        return entry.message or classify(
            answer.operation,
            entry.document or {},
            entry.event_key,
            MessageSource.CALLBACK,
            entry.received_at,
            self._with.redactor(provider),
        )

    def _synchronous(
        self, step: SendStep, answer: ProviderResponse, reference: str | None
    ) -> ProviderMessage:
        message = read_answer(
            self._with, step.request, step.cycle, answer, MessageSource.SYNC, reference
        )
        if message is None and answer.is_garbled:
            raise NoAnswerError(f"{GARBLED} as an answer", reached=True)
        if message is None:
            reason = "the provider's answer is neither a success nor a failure by its operation"
            raise RefusedError(reason, reached=True)
        return message

    def _within(self, step: SendStep) -> timedelta | None:
        request = step.request
        try:
            return self._with.catalog.operation(request.provider, request.operation).receipt.within
        except UnknownNameError:
            return None


def _classified(error: Exception) -> Cause:
    cause = cause_of(error, StepFailure.NO_RECEIPT)
    if cause is not None:
        return cause
    # Nobody knows how far it had got.
    log.error("a send has failed in an unforeseen way", exc_info=error)
    reason = f"unforeseen: {type(error).__name__}"
    return Cause(StepFailure.NO_RECEIPT, reason, reached=True)
