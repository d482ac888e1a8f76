"""The workflow `DeliverNotice`: deliver one notice to its subscriber, retrying for up to days."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    TimeoutError,  # noqa: A004 -- the SDK's
    is_cancelled_exception,
)

# As in call/workflow.py: a module that is passed through there and loaded anew here is two.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.deliveries import DeadLetterStep, Delivered, Delivery, EventData
    from ackbridge.contracts.wire import InvalidInputError, duration_text, parse_argument
    from workflows.hosting import markdown
    from workflows.hosting.inputs import invalid_request, require_workflow_id
    from workflows.hosting.steps import LEDGER_TIMEOUT, MARGIN

DEAD_WORKER_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=5),
    backoff_coefficient=4.0,
    maximum_interval=timedelta(hours=6),
    maximum_attempts=0,
)
"""Applies to attempts whose worker died; a failed attempt carries its own retry delay."""


@workflow.defn(name=names.DELIVER_NOTICE)
class DeliverNotice:
    """Retries until the subscriber accepts, is gone, or time runs out; then dead-letters."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid = ""
        self._delivery: Delivery | None = None
        try:
            delivery = parse_argument(Delivery, arguments)
            require_workflow_id(names.notice_id(delivery.body.id), "body.id")
        except InvalidInputError as error:
            self._invalid = str(error)
        else:
            self._delivery = delivery

    @workflow.run
    async def run(self, *_arguments: Any) -> Delivered:
        """Deliver the notice.

        Raises:
            ApplicationError: of type InvalidRequest; or NotDelivered with the reason, after the
                notice was added to the ledger's dead letters.
        """
        delivery = self._delivery
        if delivery is None:
            raise invalid_request(self._invalid)
        _show(delivery, "being delivered")
        try:
            delivered = await self._deliver(delivery)
        except (ActivityError, asyncio.CancelledError) as error:
            reason = _failure_reason(error, delivery)
            await self._dead_letter(delivery, reason)
            _show(delivery, f"dead: {reason}")
            if is_cancelled_exception(error):
                raise
            raise ApplicationError(reason, type=names.NOT_DELIVERED, non_retryable=True) from None
        _show(delivery, "delivered")
        return delivered

    async def _deliver(self, delivery: Delivery) -> Delivered:
        delivered: Delivered = await workflow.execute_activity(
            names.DELIVER,
            delivery,
            result_type=Delivered,
            task_queue=names.notices_queue(delivery.subscriber),
            start_to_close_timeout=delivery.timeout + MARGIN,
            schedule_to_close_timeout=delivery.within,
            retry_policy=DEAD_WORKER_RETRIES,
            summary=f"{delivery.body.type} to {delivery.subscriber}",
        )
        return delivered

    async def _dead_letter(self, delivery: Delivery, reason: str) -> None:
        await workflow.execute_activity(
            names.BURY,
            DeadLetterStep(delivery=delivery, reason=reason),
            start_to_close_timeout=LEDGER_TIMEOUT,
            summary="store as a dead letter",
        )


def _failure_reason(error: BaseException, delivery: Delivery) -> str:
    if not isinstance(error, ActivityError) or is_cancelled_exception(error):
        return "the delivery was cancelled"
    cause = error.cause
    if isinstance(cause, TimeoutError):
        cause = cause.cause
    reason = cause.message if isinstance(cause, ApplicationError) else "no attempt reported back"
    timed_out = error.retry_state is RetryState.TIMEOUT
    return (
        f"not accepted within {duration_text(delivery.within)}: {reason}" if timed_out else reason
    )


def _show(delivery: Delivery, state: str) -> None:
    data = delivery.body.data
    workflow.set_current_details(
        markdown.document(
            f"**{delivery.body.type}** to subscriber {delivery.subscriber}: {state}",
            markdown.bullets(
                [
                    f"event `{data.event_key}` of {data.provider}"
                    if isinstance(data, EventData)
                    else f"call `{data.call_id}`, notice {data.sequence}",
                    f"retried for at most {duration_text(delivery.within)}",
                ]
            ),
            "" if isinstance(data, EventData) else markdown.quote_notice(data.notice),
        )
    )
