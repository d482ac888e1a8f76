"""The activities `visit`, `hold_event` and `hold_message`: what no call waits for."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import httpx
from temporalio import activity

from ackbridge.catalog.matching import is_retryable_status
from ackbridge.contracts import names
from ackbridge.contracts.bulk import HoldMessageStep
from ackbridge.contracts.deliveries import HoldEventStep, VisitStep
from ackbridge.contracts.steps import StepFailure
from ackbridge.errors import ConfigurationError
from ackbridge.http.client import HttpResponse, exchange
from activities.support.dependencies import Dependencies
from activities.support.retry import (
    RefusedError,
    RetryableError,
    classified_errors,
    network_failure,
)

TIMEOUT: Final = timedelta(seconds=30)
MAX_REPLY_BYTES: Final = 64 * 1024
"""Of an answer that is read only so that the connection can be reused."""


class Forward:
    """Runs for `ForwardEvents`."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.VISIT)
    async def visit(self, step: VisitStep) -> dict[str, str]:
        """Send a GET request to the URL in an event, without credentials; a 2xx is a success.

        Raises:
            ApplicationError: final where the event has no URL, its host is not allowed, or it
                answers with a 4xx; else to be tried again.
        """
        with classified_errors(StepFailure.NO_RECEIPT):
            url = await self._url(step)
            reply = await self._get(step.provider, url)
            if is_retryable_status(reply.status):
                raise RetryableError(f"the URL answered {reply.status}")
            if not 200 <= reply.status < 300:
                raise RefusedError(f"the URL answered {reply.status}")
        return {}

    @activity.defn(name=names.HOLD_EVENT)
    async def hold_event(self, step: HoldEventStep) -> dict[str, str]:
        """Hold an event for operators."""
        with classified_errors():
            inbox = self._deps.ledger.inbox
            await inbox.hold_event(step.provider, step.event_key, step.reason)
        return {}

    @activity.defn(name=names.HOLD_MESSAGE)
    async def hold_message(self, step: HoldMessageStep) -> dict[str, str]:
        """Hold a message for operators."""
        with classified_errors():
            inbox = self._deps.ledger.inbox
            await inbox.hold_message(step.call_id, step.message, step.reason)
        return {}

    async def _url(self, step: VisitStep) -> str:
        integration = self._deps.catalog.integration(step.provider)
        rule = integration.callbacks and integration.callbacks.events.get(step.event)
        if not rule or rule.visit is None:
            raise ConfigurationError(
                f"{step.provider}: the file has no event {step.event} to visit"
            )
        document = await self._deps.ledger.inbox.event_document(step.provider, step.event_key)
        url = rule.visit.search(document)
        if not isinstance(url, str) or integration.access_to(url) is None:
            raise RefusedError("the event has no URL whose host is that of base_url or in hosts")
        return url

    async def _get(self, provider: str, url: str) -> HttpResponse:
        try:
            return await exchange(
                self._deps.http,
                method="GET",
                url=url,
                headers={},
                content=None,
                auth=None,
                timeout=TIMEOUT,
                max_bytes=MAX_REPLY_BYTES,
                pool=provider,
            )
        except (httpx.HTTPError, TimeoutError) as error:
            raise network_failure(error) from None
