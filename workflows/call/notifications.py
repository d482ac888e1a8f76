"""Notify the subscriber of a call, without ever waiting for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from temporalio import workflow

from workflows.hosting.host import Host

from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, Effect, Notice, NoticeStatus, OutcomeStatus
    from ackbridge.contracts.deliveries import (
        Delivery,
        NoticeBody,
        NoticeData,
        NoticeEvent,
        ReplyPlan,
        event_id,
    )


class Notifications:
    """The notices of one call. Each is delivered by a workflow of its own, which outlives the call.

    Without a subscriber nothing is done, and nothing is added to any history.
    """

    def __init__(
        self,
        host: Host,
        state: CallState,
        reply: ReplyPlan | None,
        notices: Mapping[str, Notice],
    ) -> None:
        """Notify a subscriber, if there is one.

        Args:
            notices: the operation's notices by kind; those of a success are for subscribers only.
        """
        self._host = host
        self._state = state
        self._reply = reply
        self._notices = notices
        self._starting = 0
        self._reported = _report_of(state.outcome)

    def delayed(self, notice: Notice | None) -> None:
        """The call is parked; notify only of what is new."""
        if notice == self._state.notifications.delayed:
            return
        self._update(delayed=notice)
        data = self._data(NoticeStatus.DELAYED, notice)
        self._notify(NoticeEvent.DELAYED, data, self._host.now())

    def ended(self, outcome: CallOutcome, *, was_delayed: bool) -> None:
        """The call has its outcome, or another one; the same one again has no effect."""
        is_replaced = self._reported is not None
        if self._reported == _report_of(outcome):
            return
        self._reported = _report_of(outcome)
        data = self._data(NoticeStatus(outcome.status), outcome.notice)
        data = data.model_copy(update={"effect": outcome.effect, "code": outcome.code})
        event, at = NoticeEvent(outcome.status), self._host.now()
        if outcome.status is OutcomeStatus.COMPLETED:
            was_delayed = was_delayed or self._state.notifications.delayed is not None
            is_late = outcome.late or was_delayed or is_replaced
            event = NoticeEvent.COMPLETED_LATE if is_late else NoticeEvent.COMPLETED
            data = data.model_copy(update={"late": is_late, "notice": self._notices.get(event)})
            at = outcome.timings.answered_at or at
        self._notify(event, data.model_copy(update={"reference": outcome.reference}), at)

    async def all_started(self) -> None:
        """Wait until the engine, and not the subscriber, has every delivery."""
        if self._starting:
            await self._host.wait(lambda: not self._starting, None)

    def _data(self, status: NoticeStatus, notice: Notice | None) -> NoticeData:
        request = self._state.request
        return NoticeData(
            call_id=request.call_id,
            provider=request.provider,
            operation=request.operation,
            key=request.key,
            metadata=request.metadata,
            sequence=self._state.notifications.sequence + 1,
            status=status,
            notice=notice,
        )

    def _notify(self, event: NoticeEvent, data: NoticeData, at: datetime) -> None:
        reply = self._reply
        if reply is None or event not in reply.events:
            return
        self._update(sequence=data.sequence)
        body = NoticeBody(
            id=event_id(data.call_id, data.sequence, event),
            type=f"call.{event}",
            timestamp=at,
            data=data,
        )
        delivery = Delivery(
            subscriber=reply.subscriber, body=body, timeout=reply.timeout, within=reply.within
        )
        self._starting += 1
        self._host.run_in_background(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        await self._host.deliver(delivery)
        self._starting -= 1

    def _update(self, **changes: object) -> None:
        self._state.notifications = self._state.notifications.model_copy(update=changes)


def _report_of(outcome: CallOutcome | None) -> tuple[OutcomeStatus, Effect] | None:
    """What a subscriber is notified of: a call ends once, unless this changes."""
    return (outcome.status, outcome.effect) if outcome is not None else None
