"""The activities `ask_status`, `poll` and `fetch_result`: ask the provider about its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.matching import kept_values, result_data
from ackbridge.catalog.rendering import render_result, render_status
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import (
    POLL_RETRY_FROM,
    Asked,
    AskStep,
    Kept,
    PollStep,
    ResultStep,
    StepFailure,
)
from ackbridge.stats.counters import Count
from activities.support.counters import count, count_silence, counting_failures
from activities.support.dependencies import Dependencies
from activities.support.heartbeats import worker_shuts_down
from activities.support.provider_http import (
    ProviderResponse,
    call_provider,
    load_data,
    read_message,
    refusal_of,
    with_bounded_data,
)
from activities.support.retry import (
    RetryableError,
    activity_failure,
    classified_errors,
    classify_error,
    retry_delay,
)

MAX_PAUSING = 20
"""Of the polls of one provider that wait out a short pause in a slot of this worker. What is beyond
pauses as a retry, like a long one."""


@dataclass(frozen=True)
class StatusReply:
    """The provider's answer to a status request.

    Attributes:
        message: what it means for the call; None when there is no response yet.
        summary: the answer in one line.
        retry_after: the delay before the next request that the provider asks for.
        kept: values for later requests.
    """

    message: ProviderMessage | None
    summary: str
    retry_after: timedelta | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)


class AskStatus:
    """What the provider answers is recorded like a callback."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps
        self._pausing = Counter[str]()

    @activity.defn(name=names.ASK_STATUS)
    async def ask_status(self, step: AskStep) -> Asked:
        """Ask once.

        Raises:
            ApplicationError: NoReceipt, retryable.
        """
        with (
            counting_failures(self._deps, step.request, Count.STATUS_UNANSWERED),
            classified_errors(StepFailure.NO_RECEIPT),
        ):
            reply = await self._request_status(step)
        count(self._deps, step.request, Count.STATUS_ANSWERED)
        asked = _asked(reply) if reply is not None else Asked()
        if step.silence is not None and asked.message is None:
            await count_silence(self._deps, step.request, step.silence)
        return asked

    @activity.defn(name=names.POLL)
    async def poll(self, step: PollStep) -> Asked:
        """Ask until there is a new message. The workflow sets the deadline.

        Raises:
            ApplicationError: NotYet, retryable after the interval; never final.
        """
        while True:
            reply, interval = await self._poll_once(step)
            if reply.message is not None:
                return Asked(message=reply.message, kept=dict(reply.kept))
            await self._pause(step.request.provider, reply.summary, interval)

    @activity.defn(name=names.FETCH_RESULT)
    async def fetch_result(self, step: ResultStep) -> Asked:
        """Fetch the result of work that is done, as the data of its message.

        Raises:
            ApplicationError: NoReceipt, retryable. Refused, and InvalidRequest (the file, or a link
                of the provider, does not fit), are final.
        """
        with (
            counting_failures(self._deps, step.request, Count.STATUS_UNANSWERED),
            classified_errors(StepFailure.NO_RECEIPT),
        ):
            response = await call_provider(
                self._deps,
                step.request,
                step.cycle,
                render_result,
                reference=step.reference,
                kept=step.kept,
                message=await load_data(self._deps, step.message.data),
            )
            if response is None:
                return Asked(message=step.message)
            self._require_result(response, step.request)
            data = result_data(response.operation, response.document)
            message = step.message.model_copy(update={"data": data})
            message = await with_bounded_data(self._deps, step.request.call_id, message)
        count(self._deps, step.request, Count.STATUS_ANSWERED)
        return Asked(message=message)

    def _require_result(self, response: ProviderResponse, request: CallRequest) -> None:
        if response.retryable:
            raise response.retryable
        if response.problem:
            raise RetryableError(response.problem, reached=True, retry_after=response.retry_after)
        if response.status in (404, 409):
            # The work is done; its result may show a moment later.
            reason = f"the provider answered {response.status}"
            raise RetryableError(reason, reached=True, retry_after=response.retry_after)
        if not 200 <= response.status < 300:
            raise refusal_of(response, self._deps.redactor(request))

    async def _poll_once(self, step: PollStep) -> tuple[StatusReply, timedelta]:
        """The reply, its message only if it is new, and the delay before the next request."""
        try:
            reply = await self._request_status(step)
        except Exception as error:
            found = classify_error(error, StepFailure.NOT_YET)
            if found is None:
                raise
            unanswered = found.kind in (StepFailure.NOT_YET, StepFailure.UNREADABLE)
            count(
                self._deps,
                step.request,
                Count.STATUS_UNANSWERED if unanswered else Count.OWN_ERRORS,
            )
            delay = max(step.every, found.retry_after or step.every)
            return StatusReply(None, found.reason), delay
        if reply is None:
            reason = "response.status: the operation has no status request"
            return StatusReply(None, reason), step.every
        count(self._deps, step.request, Count.STATUS_ANSWERED)
        if reply.message is not None and reply.message.event_key in step.answered:
            reply = replace(reply, message=None, summary="the provider's answer has not changed")
        return reply, max(step.every, reply.retry_after or step.every)

    async def _pause(self, provider: str, summary: str, interval: timedelta) -> None:
        """Wait out a short pause in this attempt; leave a long one to the retry of the activity.

        Raises:
            ApplicationError: NotYet, retryable after the interval.
        """
        pause = retry_delay(1, interval, initial=timedelta(0))
        if interval >= POLL_RETRY_FROM or self._pausing[provider] >= MAX_PAUSING:
            raise _not_yet(summary, pause)
        activity.heartbeat(summary)
        self._pausing[provider] += 1
        try:
            if await worker_shuts_down(pause):
                raise _not_yet(summary, pause)
        finally:
            self._pausing[provider] -= 1

    async def _request_status(self, step: AskStep | PollStep) -> StatusReply | None:
        """Send a status request; None where the operation has none.

        Raises:
            RetryableError, UnreadableError, InvalidInputError, ConfigurationError: as
                `call_provider`.
            LedgerUnavailableError: the answer is large, and could not be stored.
        """
        response = await call_provider(
            self._deps,
            step.request,
            step.cycle,
            render_status,
            reference=step.reference,
            kept=step.kept,
        )
        if response is None:
            return None
        if response.problem and response.status < httpx.codes.BAD_REQUEST:
            raise RetryableError(response.problem, reached=True, retry_after=response.retry_after)
        message = read_message(
            self._deps, step.request, step.cycle, response, MessageSource.STATUS, step.reference
        )
        kept = kept_values(response.operation, response.document)
        summary = f"the provider answered {response.status}"
        if message is None:
            if response.retryable:
                raise response.retryable
            summary = f"{summary}, without a response yet"
        else:
            message = await with_bounded_data(self._deps, step.request.call_id, message)
        return StatusReply(message, summary, response.retry_after, kept)


def _asked(reply: StatusReply) -> Asked:
    delay = reply.retry_after and retry_delay(1, reply.retry_after)
    return Asked(message=reply.message, kept=dict(reply.kept), retry_after=delay)


def _not_yet(summary: str, delay: timedelta) -> ApplicationError:
    return activity_failure(StepFailure.NOT_YET, summary, final=False, delay=delay)
