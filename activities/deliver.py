"""The activities `deliver` and `bury`: post a notice to its subscriber, or dead-letter it."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Final

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.subscribers import Subscriber
from ackbridge.contracts import names
from ackbridge.contracts.calls import NoticeStatus
from ackbridge.contracts.deliveries import (
    DeadLetterStep,
    Delivered,
    Delivery,
    EventData,
    NoticeBody,
)
from ackbridge.contracts.steps import StepFailure
from ackbridge.errors import LedgerUnavailableError
from ackbridge.http.client import HttpResponse, exchange
from ackbridge.http.retry_after import parse_retry_after
from ackbridge.security.outbound import sign_notice
from activities.support.dependencies import Dependencies
from activities.support.provider_http import load_data
from activities.support.retry import (
    Classification,
    RefusedError,
    RetryableError,
    activity_failure,
    classified_errors,
    classify_error,
    network_failure,
    retry_delay,
)

INITIAL_INTERVAL: Final = timedelta(seconds=5)
MAXIMUM_INTERVAL: Final = timedelta(hours=6)
COEFFICIENT: Final = 4

GONE: Final = 410
"""The only status that ends a notice: the subscriber does not exist any more."""

MAX_REPLY_BYTES: Final = 16 * 1024
"""Of a body that is read only so that the connection can be reused."""


def notices_pool(subscriber: str) -> str:
    """The connections to a subscriber."""
    return f"{subscriber}.notices"


class Deliver:
    """At least once: an attempt that did not report back is repeated under the same id."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.DELIVER)
    async def deliver(self, delivery: Delivery) -> Delivered:
        """Post one signed notice, and store its state in the ledger.

        Raises:
            ApplicationError: NotAccepted, retryable, without the subscriber's own text. Final when
                the subscriber answers 410 (Gone).
        """
        try:
            return await self._deliver(delivery)
        except Exception as error:
            found = classify_error(error, StepFailure.NOT_ACCEPTED)
            if found is None:
                raise
            raise await self._failure(delivery, found) from None

    @activity.defn(name=names.BURY)
    async def bury(self, step: DeadLetterStep) -> dict[str, str]:
        """Store a notice as a dead letter, until an operator replays it."""
        with classified_errors():
            await self._deps.ledger.notices.mark_dead(step.delivery, step.reason)
        return {}

    async def _deliver(self, delivery: Delivery) -> Delivered:
        notices = self._deps.ledger.notices
        if activity.info().attempt > 1:
            # `again` delivers a notice once more: later attempts must not repeat a delivery.
            delivery = delivery.model_copy(update={"again": False})
        delivered_at = await notices.start_attempt(delivery)
        if delivered_at is not None:
            return Delivered(delivered_at=delivered_at)
        subscriber = self._deps.catalog.subscriber(delivery.subscriber)
        body = await self._body(subscriber, delivery.body)
        reply = await self._post(subscriber, body, min(subscriber.timeout, delivery.timeout))
        self._require_accepted(reply)
        now = self._deps.clock()
        await notices.mark_delivered(delivery.body.id, now)
        return Delivered(delivered_at=now)

    async def _body(self, subscriber: Subscriber, body: NoticeBody) -> NoticeBody:
        """The body, with the call's response if the subscriber receives responses; or the event."""
        if isinstance(body.data, EventData):
            return body.model_copy(update={"data": await self._event(body.data)})
        if not subscriber.response or body.data.status is not NoticeStatus.COMPLETED:
            return body
        found = await self._deps.ledger.calls.responses(body.data.call_id)
        response = await load_data(self._deps, found[0].data) if found else None
        call = await self._deps.ledger.calls.get(body.data.call_id)
        if call is not None and call.outcome is not None:
            # A subscriber is not the caller.
            response = call.outcome.model_copy(update={"response": response}).masked().response
        return body.model_copy(update={"data": body.data.model_copy(update={"response": response})})

    async def _event(self, data: EventData) -> EventData:
        """The event with its content, which is in the ledger; by today's file."""
        document = await self._deps.ledger.inbox.event_document(data.provider, data.event_key)
        callbacks = self._deps.catalog.integration(data.provider).callbacks
        rule = callbacks.events.get(data.event) if callbacks is not None else None
        select = rule.data if rule is not None else None
        content = (document or {}).get("body") if select is None else select.search(document)
        return data.model_copy(update={"data": content})

    async def _post(
        self, subscriber: Subscriber, body: NoticeBody, within: timedelta
    ) -> HttpResponse:
        text = body.model_dump_json()
        signature = sign_notice(
            self._deps.secrets, subscriber.secrets, body.id, self._deps.clock(), text
        )
        try:
            return await exchange(
                self._deps.http,
                method="POST",
                url=subscriber.url,
                headers={"content-type": "application/json", **signature},
                content=text.encode(),
                auth=None,
                timeout=within,
                max_bytes=MAX_REPLY_BYTES,
                pool=notices_pool(subscriber.subscriber),
            )
        except (httpx.HTTPError, TimeoutError) as error:
            raise network_failure(error) from None

    def _require_accepted(self, reply: HttpResponse) -> None:
        status = reply.status
        if status in range(200, 300):
            return
        if status == GONE:
            raise RefusedError(f"the subscriber answered {status}: it does not exist any more")
        if 300 <= status < 400:
            raise RetryableError(f"the subscriber answered {status}: redirects are not followed")
        wait = parse_retry_after(reply.headers.get("retry-after"), self._deps.clock())
        raise RetryableError(f"the subscriber answered {status}", retry_after=wait)

    async def _failure(self, delivery: Delivery, error: Classification) -> ApplicationError:
        """The failure of this attempt, also stored in the ledger if it is available."""
        with suppress(LedgerUnavailableError):
            await self._deps.ledger.notices.record_failure(delivery.body.id, error.reason)
        delay = retry_delay(
            activity.info().attempt,
            error.retry_after,
            INITIAL_INTERVAL,
            MAXIMUM_INTERVAL,
            COEFFICIENT,
        )
        return activity_failure(error.kind, error.reason, final=error.final, delay=delay)
