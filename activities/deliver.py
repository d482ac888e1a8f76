"""deliver: one attempt to tell a subscriber what has become of a call."""

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
from ackbridge.contracts.deliveries import Delivered, Delivery, NoticeBody
from ackbridge.contracts.steps import StepFailure
from ackbridge.errors import LedgerUnavailableError
from ackbridge.http.client import HttpResponse, exchange
from ackbridge.security.outbound import sign_notice
from activities.support.dependencies import Dependencies
from activities.support.retry import (
    Cause,
    NoAnswerError,
    RefusedError,
    cause_of,
    failure,
    no_connection,
    patience,
)
from activities.support.retry import retry_after as asked_patience

FIRST_RETRY: Final = timedelta(seconds=5)
LONGEST_RETRY: Final = timedelta(hours=6)
GROWTH: Final = 4
"""Attempts back off from the one to the other, each time four times as long; for days."""

GONE: Final = 410
"""The subscriber does not exist any more, and says so: the one status that ends a notice."""

READ_BYTES: Final = 16 * 1024
"""Of an answer, which nobody looks at: so that the connection can be used again."""


class Deliver:
    """At least once: an attempt whose end nobody has seen is repeated, under the same id."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.DELIVER)
    async def deliver(self, delivery: Delivery) -> Delivered:
        """Post one signed notice, and keep in the ledger what has become of it.

        Raises:
            ApplicationError: NotAccepted, to be tried again; what the subscriber says is not
                repeated. Final when the subscriber answers 410 (Gone).
        """
        try:
            return await self._deliver(delivery)
        except Exception as error:
            cause = cause_of(error, StepFailure.NOT_ACCEPTED)
            if cause is None:
                raise
            raise await self._failed(delivery, cause) from None

    async def _deliver(self, delivery: Delivery) -> Delivered:
        notices = self._with.ledger.notices
        is_first = activity.info().attempt == 1
        # Sent again on purpose, it is sent once: another attempt asks whether that has happened.
        taken = delivery if is_first else delivery.model_copy(update={"again": False})
        before = await notices.start_attempt(taken)
        if before is not None:
            return Delivered(delivered_at=before)
        subscriber = self._with.catalog.subscriber(delivery.subscriber)
        body = await self._body(subscriber, delivery.body)
        reply = await self._post(subscriber, body, min(subscriber.timeout, delivery.timeout))
        _accepted(reply, asked_patience(reply.headers.get("retry-after"), self._with.clock()))
        at = self._with.clock()
        await notices.mark_delivered(delivery.body.id, at)
        return Delivered(delivered_at=at)

    async def _body(self, subscriber: Subscriber, body: NoticeBody) -> NoticeBody:
        """What is sent: with the response, if the subscriber shall have it."""
        if not subscriber.response or body.data.status is not NoticeStatus.COMPLETED:
            return body
        found = await self._with.ledger.calls.responses(body.data.call_id)
        response = found[0].data if found else None
        return body.model_copy(update={"data": body.data.model_copy(update={"response": response})})

    async def _post(
        self, subscriber: Subscriber, body: NoticeBody, within: timedelta
    ) -> HttpResponse:
        text = body.model_dump_json()
        signed = sign_notice(
            self._with.secrets, subscriber.secrets, body.id, self._with.clock(), text
        )
        try:
            return await exchange(
                self._with.client,
                method="POST",
                url=subscriber.url,
                headers={"content-type": "application/json", **signed},
                content=text.encode(),
                auth=None,
                timeout=within,
                max_bytes=READ_BYTES,
                truncate=True,
            )
        except (httpx.HTTPError, TimeoutError) as error:
            raise no_connection(error) from None

    async def _failed(self, delivery: Delivery, cause: Cause) -> ApplicationError:
        """The failure of this attempt, which the ledger hears of if it can."""
        with suppress(LedgerUnavailableError):
            await self._with.ledger.notices.record_failure(delivery.body.id, cause.reason)
        attempt = activity.info().attempt
        delay = patience(attempt, cause.retry_after, FIRST_RETRY, LONGEST_RETRY, GROWTH)
        return failure(cause.kind, cause.reason, final=cause.final, delay=delay)


def _accepted(reply: HttpResponse, wait: timedelta | None) -> None:
    """Pass on any 2xx.

    Raises:
        RefusedError: the subscriber is gone.
        NoAnswerError: it was not accepted, and may be later.
    """
    status = reply.status
    if status == GONE:
        raise RefusedError(f"the subscriber answered {status}: it does not want this any more")
    if 300 <= status < 400:
        raise NoAnswerError(f"the subscriber answered {status}: redirects are not followed")
    if status not in range(200, 300):
        raise NoAnswerError(f"the subscriber answered {status}", retry_after=wait)
