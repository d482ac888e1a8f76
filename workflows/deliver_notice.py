"""The workflow `DeliverNotice`: one notice, for as long as its subscriber may be down."""

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
    TimeoutError,  # noqa: A004 -- the engine's own
    is_cancelled_exception,
)

# As in integration_call.py: a module that is passed through there and loaded anew here is two.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.deliveries import BuryStep, Delivered, Delivery
    from ackbridge.contracts.wire import InvalidInputError, read
    from workflows.hosting.steps import LEDGER_TIMEOUT, MARGIN

RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=5),
    backoff_coefficient=4.0,
    maximum_interval=timedelta(hours=6),
    maximum_attempts=0,
)
"""Of an attempt whose worker has died; those that have failed say themselves when to go on."""


@workflow.defn(name=names.DELIVER_NOTICE)
class DeliverNotice:
    """Tries until the subscriber accepts, is gone, or the time is up; then the notice is dead."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid = ""
        self._delivery: Delivery | None = None
        try:
            self._delivery = _read_start(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)

    @workflow.run
    async def run(self, *_arguments: Any) -> Delivered:
        """Deliver the notice.

        Raises:
            ApplicationError: of type InvalidRequest; or NotDelivered, with the reason. The notice
                is in the ledger then, among the dead ones.
        """
        delivery = self._delivery
        if delivery is None:
            raise ApplicationError(self._invalid, type=names.INVALID_REQUEST, non_retryable=True)
        workflow.set_current_details(_tell(delivery, "being delivered"))
        try:
            delivered = await self._deliver(delivery)
        except (ActivityError, asyncio.CancelledError) as error:
            reason = _why(error, delivery)
            await self._bury(delivery, reason)
            workflow.set_current_details(_tell(delivery, f"dead: {reason}"))
            if is_cancelled_exception(error):
                raise
            raise ApplicationError(reason, type=names.NOT_DELIVERED, non_retryable=True) from None
        workflow.set_current_details(_tell(delivery, "delivered"))
        return delivered

    async def _deliver(self, delivery: Delivery) -> Delivered:
        delivered: Delivered = await workflow.execute_activity(
            names.DELIVER,
            delivery,
            result_type=Delivered,
            task_queue=names.notices_queue(delivery.subscriber),
            start_to_close_timeout=delivery.timeout + MARGIN,
            schedule_to_close_timeout=delivery.within,
            retry_policy=RETRIES,
            summary=f"{delivery.body.type} to {delivery.subscriber}",
        )
        return delivered

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        await workflow.execute_activity(
            names.BURY,
            BuryStep(delivery=delivery, reason=reason),
            start_to_close_timeout=LEDGER_TIMEOUT,
            summary="keep it among the dead ones",
        )


def _read_start(arguments: tuple[Any, ...]) -> Delivery:
    delivery = read(Delivery, arguments)
    wanted, given = names.notice_id(delivery.body.id), workflow.info().workflow_id
    if wanted != given:
        raise InvalidInputError(
            f"body.id: its workflow id is {wanted!r}; it was started as {given!r}"
        )
    return delivery


def _why(error: BaseException, delivery: Delivery) -> str:
    """Why it is dead, in one line for people."""
    if not isinstance(error, ActivityError) or is_cancelled_exception(error):
        return "its delivery was cancelled"
    cause = error.cause
    if isinstance(cause, TimeoutError):
        cause = cause.cause
    said = cause.message if isinstance(cause, ApplicationError) else "no attempt reported back"
    is_over = error.retry_state is RetryState.TIMEOUT
    return f"not accepted within {delivery.within}: {said}" if is_over else said


def _tell(delivery: Delivery, state: str) -> str:
    """The notice as a story, for the Temporal UI (Markdown)."""
    data = delivery.body.data
    lines = [
        f"**{delivery.body.type}** for the subscriber {delivery.subscriber}: {state}",
        "",
        f"- the call `{data.call_id}`, its notice {data.sequence}",
        f"- tried for {delivery.within} at the most",
    ]
    if data.notice is not None:
        lines += ["", f"> **{data.notice.title}** {data.notice.message}"]
    return "\n".join(lines)
