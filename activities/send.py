"""send: the request goes out under the cycle's key, until there is a receipt."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog import (
    Operation,
    classify,
    is_receipt,
    receipt_reference,
    render_request,
)
from ackbridge.contracts import MessageSource, ProviderMessage, SendStep, Sent, StepFailure, names

from .failures import classified, failure
from .provisions import Provisions
from .speaking import Answer, refusal, speak


class Send:
    """One attempt; the retries are the engine's."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.SEND)
    async def send(self, step: SendStep) -> Sent:
        """Send the request and take the receipt.

        Raises:
            ApplicationError: Refused (final), or NoReceipt (to be tried again).
        """
        request = step.request
        with classified():
            integration = self._with.catalog.integration(request.provider)
            operation = self._with.catalog.operation(request.provider, request.operation)
            outbound = render_request(
                integration, operation, self._with.context(request, step.cycle)
            )
        sent_at = self._with.clock()
        answer = await speak(
            self._with,
            request.provider,
            outbound,
            operation.receipt.timeout,
            StepFailure.NO_RECEIPT,
        )
        receipt_at = self._with.clock()
        if not is_receipt(operation, answer.status, answer.document):
            raise failure(StepFailure.REFUSED, refusal(answer), final=True, reached=True)
        reference = receipt_reference(operation, answer.document)
        with classified():
            messages = await self._messages(step, operation, answer, reference)
        return Sent(
            sent_at=sent_at,
            receipt_at=receipt_at,
            reference=reference,
            attempt=activity.info().attempt,
            messages=tuple(messages),
        )

    async def _messages(
        self,
        step: SendStep,
        operation: Operation,
        answer: Answer,
        reference: str | None,
    ) -> list[ProviderMessage]:
        """The response itself, or what has come before anyone waited for it."""
        request = step.request
        if operation.response.mode == "sync":
            return [self._synchronous(step, operation, answer)]
        ledger = self._with.ledger
        if reference is not None:
            # Written first, read then: the gateway does the same from its side, so that a
            # callback between the two is found by one of them.
            await ledger.commit_reference(request.call_id, request.provider, reference)
        waiting = await ledger.waiting(request.provider, request.call_id, reference)
        messages = []
        for stored in waiting:
            message = stored.entry.message or classify(
                operation,
                stored.entry.document or {},
                stored.entry.event_key,
                MessageSource.CALLBACK,
                stored.entry.received_at,
            )
            if message is not None:
                messages.append(message)
        return messages

    def _synchronous(self, step: SendStep, operation: Operation, answer: Answer) -> ProviderMessage:
        event_key = f"sync:{names.idempotency_key(step.request.call_id, step.cycle)}"
        message = classify(
            operation, answer.document, event_key, MessageSource.SYNC, self._with.clock()
        )
        if message is None:
            reason = "the provider's answer is neither a success nor a failure by its operation"
            raise failure(StepFailure.REFUSED, reason, final=True, reached=True)
        return message
