"""The activities `send`, `correlate` and `look_inbox`: a request, its receipt, early messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json
from temporalio import activity

from ackbridge.catalog.matching import (
    asks_to_retry,
    classify,
    is_receipt,
    kept_values,
    receipt_data,
    receipt_failure,
    receipt_pause,
    receipt_reference,
    receipt_response,
    refusal,
)
from ackbridge.catalog.rendering import render_request, render_status
from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.limits import MAX_RESULT_BYTES
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.steps import (
    CorrelateStep,
    InboxMessages,
    LookStep,
    SendStep,
    Sent,
    StepFailure,
)
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.control.deadlines import CallDeadline, deadline_for, deadline_of_probe
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.inbox import StoredEntry
from activities.support.counters import (
    count_cycle_ends,
    count_failed_send,
    count_receipt,
    count_silence,
    counting_failures,
)
from activities.support.dependencies import Dependencies
from activities.support.leases import Leases
from activities.support.provider_http import (
    MAX_QUOTED,
    ProviderResponse,
    call_provider,
    own_event_key,
    quota_key,
    read_message,
    refusal_of,
    store_if_large,
    with_bounded_data,
)
from activities.support.retry import (
    MAX_MISSING_INTERVAL,
    MAXIMUM_INTERVAL,
    Classification,
    HeldBackError,
    RetryableError,
    UnreadableError,
    activity_failure,
    classified_errors,
    classify_error,
    require_time,
)

UNEXPLAINED = "the provider's answer is neither a success nor a failure by its operation"

NO_REFERENCE = "no reference in the receipt, and nothing else matches the response"

MAX_INBOX_BYTES = MAX_RESULT_BYTES // 2
"""Of JSON, of the messages that one look into the inbox returns."""

MAX_INLINE_BYTES = MAX_RESULT_BYTES * 3 // 8
"""Of data that should be stored, while the ledger is away: two of them fit into a result."""

LEDGER_WITHIN = timedelta(seconds=2)
"""Of each step after a receipt, at most two: the engine would end an activity that takes longer
than its request and five seconds, and the receipt would be lost."""

NOT_NOW_DELAY = timedelta(seconds=10)
"""The shortest delay of a request that an open breaker keeps back."""

FREQUENT_TRIES = 25
"""To send what a worker lacks something for, every 10 s at most: for about three minutes."""

log = logging.getLogger(__name__)


def call_deadline(
    deps: Dependencies, request: CallRequest, snapshot: ControlSnapshot | None
) -> CallDeadline:
    """How long the response of a call is awaited that is sent now."""
    spec = deps.catalog.operation(request.provider, request.operation).response.deadline
    learned = snapshot.deadlines.get(request.operation) if snapshot else None
    # From 0 to 1, the same whenever the call is sent, unrelated to flag percentages.
    bucket = int(request.digest[-8:], 16) / 16**8
    usual = deadline_for(spec.rules, learned, spec.before_learning, bucket)
    breaker = snapshot.breaker_of(request.operation) if snapshot else None
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return usual
    return deadline_of_probe(usual, spec.ceiling, breaker.state.replace("_", " "))


class Send:
    """One attempt under the cycle's idempotency key; the call decides whether there is another."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps
        self._inbox = InboxReader(deps)
        self._leases = Leases(deps)

    @activity.defn(name=names.SEND)
    async def send(self, step: SendStep) -> Sent:
        """Send the request once, and read the receipt. After a receipt nothing fails.

        Raises:
            ApplicationError: Expired, InvalidRequest, Unreadable and Refused are final; NoReceipt,
                Missing and Unavailable may be tried again after the delay, and so may Refused after
                a request that may have arrived: the refusal answers this one only. The details say
                whether this request or an earlier one may have reached the provider. NotNow: the
                operation's breaker is open, and nothing was sent.
        """
        attempt, request = activity.info().attempt, step.request
        if not step.tried and attempt == 1:
            count_cycle_ends(self._deps, request, step.ended)
        snapshot = await self._deps.snapshots.snapshot(request.provider)
        self._require_not_open(request, snapshot)
        if step.queue_within is None and not step.missing:
            # If the engine repeats it, the attempt before may have ended at any point. Where the
            # activity waits for a lease, or for what a worker lacks, the engine repeats nothing but
            # the waiting.
            step = step.model_copy(update={"reached": step.reached or attempt > 1})
        sent = await self.attempt(step)
        # The plan may be old, and its deadline with it.
        deadline = call_deadline(self._deps, request, snapshot)
        return sent.model_copy(
            update={
                "deadline": deadline.deadline,
                "deadline_reason": deadline.reason,
                "delayed_after": deadline.delayed_after,
            }
        )

    def _require_not_open(self, request: CallRequest, snapshot: ControlSnapshot | None) -> None:
        breaker = snapshot.breaker_of(request.operation) if snapshot else None
        if breaker is None or breaker.state is not BreakerState.OPEN:
            return
        left = breaker.until - self._deps.clock() if breaker.until else NOT_NOW_DELAY
        raise activity_failure(
            StepFailure.NOT_NOW,
            f"the breaker of {request.operation} is open: {breaker.reason}",
            final=False,
            delay=max(left, NOT_NOW_DELAY),
        )

    async def attempt(self, step: SendStep) -> Sent:
        """Send as part of any activity, whatever attempt of it is running; raises as `send`."""
        started_at = self._deps.clock()
        try:
            require_time(step.request, started_at)
            self._require_no_pause(step)
            return await self._send_leased(step)
        except Exception as error:
            found = _classify(error)
            # What the breaker counts depends on when it has changed.
            await self._deps.snapshots.snapshot(step.request.provider)
            count_failed_send(self._deps, step, found, started_at)
            made = _attempts_made(step)
            number = activity.info().attempt if step.missing else step.tried + made
            raise _of_all_attempts(_waiting(found, number), step).failure(number, made) from None

    async def _send_leased(self, step: SendStep) -> Sent:
        """Send, with a lease where the provider limits how many requests are in flight."""
        limits = self._deps.catalog.integration(step.request.provider).limits
        if limits is None or not limits.is_leased:
            return await self._send(step)
        await self._leases.acquire(step, limits)
        try:
            return await self._send(step)
        finally:
            await self._leases.release(step)

    def _require_no_pause(self, step: SendStep) -> None:
        """Keep the pause that the provider has asked another request for."""
        now = self._deps.clock()
        until = self._deps.counters.quotas.paused_until(quota_key(self._deps, step.request), now)
        if until is not None:
            raise HeldBackError(
                f"the provider asked for a pause until {until:%H:%M:%S} UTC", until - now
            )

    async def _send(self, step: SendStep) -> Sent:
        request = step.request
        sent_at = self._deps.clock()
        response = await call_provider(
            self._deps, request, step.cycle, render_request, holds_others=True
        )
        receipt_at = self._deps.clock()
        response = _with_pause(response, receipt_at)
        if response.problem is None and asks_to_retry(response.operation, response.document):
            raise self._not_now(step, response)
        failure = self._failure(step, response, receipt_at)
        if failure is None and not is_receipt(
            response.operation, response.status, response.document
        ):
            redactor = self._deps.redactor(request)
            raise response.retryable or _unknown(response) or refusal_of(response, redactor)
        try:
            sent = Sent(
                sent_at=sent_at,
                receipt_at=receipt_at,
                reference=receipt_reference(response.operation, response.document),
                kept=kept_values(response.operation, response.document),
                attempt=_attempts_made(step),
                again=step.reached,
            )
            sent = await self._read(step, response, sent, failure)
        except (RetryableError, UnreadableError):
            raise
        except Exception as error:
            # The provider has the request: sending it again would not help.
            log.exception("a receipt cannot be read")
            raise UnreadableError(f"unexpected error: {type(error).__name__}") from None
        count_receipt(self._deps, step, sent)
        return sent

    def _not_now(self, step: SendStep, response: ProviderResponse) -> RetryableError:
        """The provider asks for another attempt, by `receipt.retry`."""
        said = refusal(response.operation, response.document, self._deps.redactor(step.request))
        text = f"the provider answered {response.status}, which asks for another attempt"
        return RetryableError(
            f"{text}: {said.reason[:MAX_QUOTED]}" if said.reason else text,
            # A refused attempt has done nothing. Any other answer may be about work under way, but
            # where the file forbids to repeat the request, it says so of attempts without effect.
            reached=response.operation.request.is_repeatable and not _is_refusal(response.status),
            retry_after=response.retry_after,
            throttled=response.status < 500,
        )

    def _failure(
        self, step: SendStep, response: ProviderResponse, at: datetime
    ) -> ProviderMessage | None:
        """The failure of the work that the answer reports, whatever its status."""
        if response.problem:
            return None
        redactor = self._deps.redactor(step.request)
        failure = receipt_failure(response.operation, response.document, redactor)
        if failure is None:
            return None
        return ProviderMessage(
            kind=MessageKind.FAILURE,
            event_key=own_event_key("receipt", step.request, step.cycle),
            reason=failure.reason,
            code=failure.code,
            reference=receipt_reference(response.operation, response.document),
            received_at=at,
            source=MessageSource.SYNC,
        )

    async def _read(
        self,
        step: SendStep,
        response: ProviderResponse,
        sent: Sent,
        failure: ProviderMessage | None,
    ) -> Sent:
        """Add what the receipt says, and what came before it."""
        operation, request = response.operation, step.request
        messages = [failure] if failure else []
        early = InboxMessages()
        if failure is None:
            key = own_event_key("receipt", request, step.cycle)
            final = receipt_response(operation, response.document, key, sent.receipt_at)
            if final is None or response.problem is not None:
                self._require_usable(step, response, sent)
            else:
                data = await self._stored(step, response, final.event_key, final.data)
                messages = [final.model_copy(update={"data": data})]
        if operation.response.mode == "sync" and failure is None:
            messages = [await self._synchronous(step, response, sent.reference)]
        elif operation.response.mode == "callback":
            early = await self._inbox.after_receipt(request, sent.reference)
        return sent.model_copy(
            update={
                "receipt": await self._stored(
                    step, response, "receipt", receipt_data(operation, response.document)
                ),
                "messages": (*messages, *early.messages),
                "uncorrelated": early.more,
            }
        )

    def _require_usable(self, step: SendStep, response: ProviderResponse, sent: Sent) -> None:
        """Require the reference of the provider's work, where the receipt should have it."""
        operation = response.operation
        if operation.receipt.reference is None and operation.response.mode == "poll":
            self._require_askable(step, sent)
        if sent.reference is not None or operation.receipt.reference is None:
            return
        if operation.response.mode == "sync" and isinstance(response.document["body"], str):
            # Such as an error page: the answer should have been JSON.
            raise UnreadableError(response.problem or NO_REFERENCE)
        mode, match = operation.response.mode, operation.response.match
        is_matched = mode == "sync" or (mode == "callback" and match.call_id is not None)
        if not is_matched and not self._can_ask_without_reference(step, sent):
            raise UnreadableError(response.problem or NO_REFERENCE)

    def _require_askable(self, step: SendStep, sent: Sent) -> None:
        """Require what the status request needs of the receipt, such as a link."""
        integration = self._deps.catalog.integration(step.request.provider)
        operation = integration.operations[step.request.operation]
        context = self._deps.template_context(step.request, step.cycle, kept=sent.kept)
        try:
            render_status(integration, operation, context)
        except InvalidInputError as error:
            raise UnreadableError(f"the receipt does not say where to ask: {error}") from None

    def _can_ask_without_reference(self, step: SendStep, sent: Sent) -> bool:
        integration = self._deps.catalog.integration(step.request.provider)
        operation = integration.operations[step.request.operation]
        context = self._deps.template_context(step.request, step.cycle, kept=sent.kept)
        try:
            request = render_status(integration, operation, context)
            same = render_status(integration, operation, {**context, "reference": "known"})
        except InvalidInputError:
            return False
        return request is not None and request == same

    async def _stored(
        self, step: SendStep, response: ProviderResponse, name: str, data: Any
    ) -> Any:
        """Data of the answer, or a reference to it if it is large and the ledger is there."""
        try:
            async with asyncio.timeout(LEDGER_WITHIN.total_seconds()):
                return await store_if_large(self._deps, step.request.call_id, name, data)
        except (LedgerUnavailableError, TimeoutError) as error:
            size = len(to_json(data))
            if size <= MAX_INLINE_BYTES:
                return data
            reason = f"{size} bytes of the answer cannot be stored: {error or 'no ledger in time'}"
            if response.operation.request.is_repeatable:
                raise RetryableError(reason, reached=True) from None
            raise UnreadableError(reason) from None

    async def _synchronous(
        self, step: SendStep, response: ProviderResponse, reference: str | None
    ) -> ProviderMessage:
        if response.problem:
            raise UnreadableError(response.problem)
        message = read_message(
            self._deps, step.request, step.cycle, response, MessageSource.SYNC, reference
        )
        if message is None:
            raise UnreadableError(UNEXPLAINED)
        data = await self._stored(step, response, message.event_key, message.data)
        return message.model_copy(update={"data": data})


class InboxReader:
    """Messages that the gateway has stored, because it could not deliver them to their call."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.CORRELATE)
    async def correlate(self, step: CorrelateStep) -> InboxMessages:
        """Commit the reference, then read the messages that came before it was known.

        Raises:
            ApplicationError: Unavailable or Missing, both retryable.
        """
        with counting_failures(self._deps, step.request), classified_errors():
            return await self._correlate(step.request, step.reference, step.seen)

    @activity.defn(name=names.LOOK_INBOX)
    async def look_inbox(self, step: LookStep) -> InboxMessages:
        """Read the messages about a call, by its id and all its references.

        Raises:
            ApplicationError: Unavailable or Missing, both retryable.
        """
        with counting_failures(self._deps, step.request), classified_errors():
            found = await self._look(step.request, step.references, step.seen)
        if step.silence is not None and not found.messages:
            await count_silence(self._deps, step.request, step.silence)
        return found

    async def after_receipt(self, request: CallRequest, reference: str | None) -> InboxMessages:
        """As `correlate`, but never fails; `more` if it has to be done again."""
        try:
            async with asyncio.timeout(LEDGER_WITHIN.total_seconds()):
                return await self._correlate(request, reference)
        except (LedgerUnavailableError, TimeoutError):
            return InboxMessages(more=True)
        except Exception:
            log.exception("a receipt could not be correlated")
            return InboxMessages(more=True)

    async def _correlate(
        self, request: CallRequest, reference: str | None, seen: Sequence[str] = ()
    ) -> InboxMessages:
        if reference is None:
            return await self._look(request, (), seen)
        # Write the reference first, then read the inbox: the gateway does both the other way round,
        # so that one of the two finds a callback that arrives in between.
        calls = self._deps.ledger.calls
        await calls.commit_reference(request.call_id, request.provider, reference)
        return await self._look(request, (reference,), seen)

    async def _look(
        self, request: CallRequest, references: Sequence[str], seen: Sequence[str]
    ) -> InboxMessages:
        self._deps.secrets.use_in_task()
        look = self._deps.ledger.inbox.look
        if self._deps.catalog.operation(request.provider, request.operation).sends_short_id:
            references = (*references, names.short_call_id(request.call_id))
        found = await look(request.call_id, request.provider, references)
        known = set(seen)
        taken: list[ProviderMessage] = []
        size = 0
        for message in (self._read(request, stored) for stored in found):
            if message is None or message.event_key in known:
                continue
            message = await with_bounded_data(self._deps, request.call_id, message)
            size += len(message.model_dump_json().encode())
            if taken and size > MAX_INBOX_BYTES:
                return InboxMessages(messages=tuple(taken), more=True)
            taken.append(message)
        return InboxMessages(messages=tuple(taken))

    def _read(self, request: CallRequest, stored: StoredEntry) -> ProviderMessage | None:
        entry = stored.entry
        return entry.message or classify(
            self._deps.catalog.operation(request.provider, request.operation),
            entry.document or {},
            entry.event_key,
            MessageSource.CALLBACK,
            entry.received_at,
            self._deps.redactor(request),
        )


def _with_pause(response: ProviderResponse, at: datetime) -> ProviderResponse:
    """The answer with the delay by `receipt.pause`, where it has no Retry-After."""
    pause = receipt_pause(response.operation, response.document, at)
    if pause is None or response.retry_after is not None:
        return response
    retryable = response.retryable and replace(response.retryable, retry_after=pause)
    return replace(response, retry_after=pause, retryable=retryable)


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in _MAY_BE_UNDER_WAY


_MAY_BE_UNDER_WAY = (408, 409, 425)


def _unknown(response: ProviderResponse) -> UnreadableError | None:
    """A refusal that an expression over its body might have explained as something else."""
    receipt = response.operation.receipt
    rules = (receipt.accept, receipt.retry, receipt.failure and receipt.failure.when)
    if response.problem is None or not any(rules):
        return None
    return UnreadableError(f"the provider answered {response.status}: {response.problem}")


def _attempts_made(step: SendStep) -> int:
    """Attempts to send by the running activity; waiting for a lease is none."""
    is_one = step.queue_within is not None or step.missing
    return 1 if is_one else activity.info().attempt


def _waiting(error: Classification, number: int) -> Classification:
    """Try more rarely for what workers lack, after many tries.

    Another worker may have it, or an operator is about to set it: the first minutes matter most.
    Then each try takes a turn of the provider's queue from calls that lack nothing.
    """
    if error.kind is not StepFailure.MISSING or number <= FREQUENT_TRIES:
        return error
    pause = MAX_MISSING_INTERVAL * 2 ** min(number - FREQUENT_TRIES, 8)
    return replace(error, retry_after=min(pause, MAXIMUM_INTERVAL))


def _classify(error: Exception) -> Classification:
    found = classify_error(error, StepFailure.NO_RECEIPT)
    if found is not None:
        return found
    log.error("send failed with an unexpected error", exc_info=error)
    reason = f"unexpected error: {type(error).__name__}"
    # The request may have been sent.
    return Classification(StepFailure.NO_RECEIPT, reason, reached=True)


def _of_all_attempts(error: Classification, step: SendStep) -> Classification:
    """What the failure of this attempt means for all those under its key."""
    if not step.reached:
        return error
    if error.kind is StepFailure.REFUSED:
        # It answers this attempt, and says nothing about an earlier one that may have arrived.
        return replace(error, final=False, reached=True)
    if error.kind in (StepFailure.UNAVAILABLE, StepFailure.MISSING):
        return replace(error, kind=StepFailure.NO_RECEIPT, reached=True)
    return replace(error, reached=True)
