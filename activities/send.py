"""The activity `send`: send a call's request and read the provider's receipt."""

from __future__ import annotations

import logging
from datetime import timedelta

from pydantic import AwareDatetime
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.matching import classify, is_receipt, receipt_reference
from ackbridge.catalog.rendering import render_request
from ackbridge.clock import Clock
from ackbridge.contracts import names
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import SendStep, Sent, StepFailure
from ackbridge.contracts.wire import Wire
from ackbridge.errors import UnknownNameError
from ackbridge.ledger.inbox import StoredEntry
from activities.support.counters import count_cycle_ends, count_failed_send, count_receipt
from activities.support.dependencies import Dependencies
from activities.support.heartbeats import last_heartbeat
from activities.support.provider_http import (
    ProviderResponse,
    call_provider,
    read_message,
    refusal_reason,
)
from activities.support.retry import (
    Classification,
    RefusedError,
    RetryableError,
    activity_failure,
    classify_error,
    retry_delay,
)

GARBLED = "the provider's body cannot be read"

log = logging.getLogger(__name__)


class Send:
    """One attempt; Temporal retries it under the cycle's idempotency key."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.SEND)
    async def send(self, step: SendStep) -> Sent:
        """Send the request and read the receipt.

        Raises:
            ApplicationError: Refused (final), or NoReceipt: retryable, unless the next attempt
                would start later than `receipt.within` after the first one. The details say
                whether any attempt may have reached the provider.
        """
        history = AttemptHistory(step, self._within(step), self._deps.clock)
        if not step.tried and activity.info().attempt == 1:
            count_cycle_ends(self._deps, step.request, step.ended)
        timeout = history.timeout()
        if timeout is not None:
            raise history.failure(timeout)
        try:
            return await self._send(step, history)
        except Exception as error:
            found = _classify(error)
            count_failed_send(self._deps, step.request, found)
            raise history.failure(found) from None

    async def _send(self, step: SendStep, history: AttemptHistory) -> Sent:
        request = step.request
        sent_at = self._deps.clock()
        response = await call_provider(self._deps, request, step.cycle, render_request)
        receipt_at = self._deps.clock()
        if not is_receipt(response.operation, response.status, response.document):
            raise RefusedError(refusal_reason(response, self._deps.redactor(request.provider)))
        reached_before, history.reached = history.reached, True
        reference = receipt_reference(response.operation, response.document)
        if reference is None and response.operation.receipt.reference and response.is_garbled:
            raise RetryableError(f"{GARBLED} as a receipt", reached=True)
        sent = Sent(
            sent_at=sent_at,
            receipt_at=receipt_at,
            reference=reference,
            attempt=activity.info().attempt,
            messages=tuple(await self._messages(step, response, reference)),
            again=reached_before,
        )
        count_receipt(self._deps, request, sent)
        return sent

    async def _messages(
        self, step: SendStep, response: ProviderResponse, reference: str | None
    ) -> list[ProviderMessage]:
        """The provider's response (`sync`), or callbacks that arrived before the receipt."""
        mode = response.operation.response.mode
        if mode == "sync":
            return [self._synchronous(step, response, reference)]
        if mode == "poll":
            return []
        request, ledger = step.request, self._deps.ledger
        if reference is not None:
            # Write the reference first, then read the inbox: the gateway does both the other way
            # round, so that one of the two finds a callback that arrives in between.
            await ledger.calls.commit_reference(request.call_id, request.provider, reference)
        entries = await ledger.inbox.pending(request.provider, request.call_id, reference)
        messages = (self._read_entry(response, request.provider, entry) for entry in entries)
        return [message for message in messages if message is not None]

    def _read_entry(
        self, response: ProviderResponse, provider: str, stored: StoredEntry
    ) -> ProviderMessage | None:
        entry = stored.entry
        return entry.message or classify(
            response.operation,
            entry.document or {},
            entry.event_key,
            MessageSource.CALLBACK,
            entry.received_at,
            self._deps.redactor(provider),
        )

    def _synchronous(
        self, step: SendStep, response: ProviderResponse, reference: str | None
    ) -> ProviderMessage:
        message = read_message(
            self._deps, step.request, step.cycle, response, MessageSource.SYNC, reference
        )
        if message is None and response.is_garbled:
            raise RetryableError(f"{GARBLED} as an answer", reached=True)
        if message is None:
            reason = "the provider's answer is neither a success nor a failure by its operation"
            raise RefusedError(reason, reached=True)
        return message

    def _within(self, step: SendStep) -> timedelta | None:
        request = step.request
        try:
            return self._deps.catalog.operation(request.provider, request.operation).receipt.within
        except UnknownNameError:
            return None


class AttemptRecord(Wire):
    """What a failed attempt passes to the next one, as heartbeat details.

    Attributes:
        attempt: its number. If it is not the last attempt's, that one's process died.
        first_started_at: when the first attempt started, by the engine's clock.
        reached: whether the provider may have received the request from any attempt so far.
        reason: why this attempt failed.
    """

    attempt: int
    first_started_at: AwareDatetime
    reached: bool
    reason: str


class AttemptHistory:
    """The running attempt of a send and all before it.

    Times are the engine's: its clock may differ from ours, and is faster in tests.

    Attributes:
        reached: whether the provider may have received the request from any attempt so far.
    """

    def __init__(self, step: SendStep, within: timedelta | None, clock: Clock) -> None:
        """Combine what the workflow knows with what the last attempt reported.

        Args:
            within: the limit for all attempts together: none starts later than this.
        """
        self._info = info = activity.info()
        self._within = within
        self._clock = clock
        self._started_at = clock()
        self._tried = step.tried
        self._first_started_at = step.first_tried_at or info.started_time
        self.reached = step.reached
        self._last_reason = "its time was over before a worker started it"
        if info.attempt > 1:
            record = last_heartbeat(AttemptRecord)
            # An attempt that reported nothing died, and may have sent before.
            self.reached = record is None or record.reached or record.attempt != info.attempt - 1
            self._last_reason = "the attempt did not report back in time"
            self._first_started_at = step.first_tried_at or info.scheduled_time
            if record is not None:
                self._first_started_at = record.first_started_at
                self._last_reason = record.reason

    def timeout(self) -> Classification | None:
        """The failure of an attempt that started too late to be made."""
        if self._within is None or self._info.started_time <= self._first_started_at + self._within:
            return None
        return Classification(StepFailure.NO_RECEIPT, self._last_reason, final=True)

    def failure(self, error: Classification) -> ApplicationError:
        """The failure of this attempt, for the workflow and for the next attempt."""
        self.reached = self.reached or error.reached
        kind = error.kind
        if kind is StepFailure.UNAVAILABLE and self.reached:
            # Something of ours is unavailable, but the provider may have the request.
            kind = StepFailure.NO_RECEIPT
        delay = retry_delay(self._tried + self._info.attempt, error.retry_after)
        final = error.final or not self._has_time_for_another(delay)
        if not final and not self._info.is_local:
            # After a local attempt the workflow passes this on.
            activity.heartbeat(
                AttemptRecord(
                    attempt=self._info.attempt,
                    first_started_at=self._first_started_at,
                    reached=self.reached,
                    reason=error.reason,
                )
            )
        return activity_failure(kind, error.reason, final=final, reached=self.reached, delay=delay)

    def _has_time_for_another(self, delay: timedelta) -> bool:
        if self._within is None:
            return True
        now = self._info.started_time + (self._clock() - self._started_at)
        return now + delay <= self._first_started_at + self._within


def _classify(error: Exception) -> Classification:
    found = classify_error(error, StepFailure.NO_RECEIPT)
    if found is not None:
        return found
    log.error("send failed with an unexpected error", exc_info=error)
    reason = f"unexpected error: {type(error).__name__}"
    # The request may have been sent.
    return Classification(StepFailure.NO_RECEIPT, reason, reached=True)
