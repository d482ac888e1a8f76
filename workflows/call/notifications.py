"""Telling the subscriber of a call what becomes of it, without ever waiting for it."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from workflows.hosting.host import Host

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import (
        CallOutcome,
        CallRequest,
        Notice,
        NoticeStatus,
        OutcomeStatus,
    )
    from ackbridge.contracts.continuation import NotificationsState
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
        self, host: Host, request: CallRequest, memory: NotificationsState | None = None
    ) -> None:
        memory = memory or NotificationsState()
        self._host = host
        self._request = request
        self._reply: ReplyPlan | None = None
        self._sequence = memory.sequence
        self._delayed = memory.delayed
        self._notices: dict[str, Notice] = {}
        self._starting = 0
        self._has_ended = False

    def plan(self, reply: ReplyPlan | None, notices: dict[str, Notice]) -> None:
        """The call is planned: who is told, and in which words what goes well."""
        self._reply = reply
        self._notices = notices

    def delayed(self, notice: Notice | None) -> None:
        """The call is parked; nothing is said twice that is not new."""
        if notice == self._delayed:
            return
        self._delayed = notice
        self._tell(NoticeEvent.DELAYED, self._data(NoticeStatus.DELAYED, notice), self._host.now())

    def ended(self, outcome: CallOutcome, *, was_delayed: bool) -> None:
        """The outcome stands; it is told once, whoever says so how often."""
        if self._has_ended:
            return
        self._has_ended = True
        data = self._data(NoticeStatus(outcome.status), outcome.notice)
        event, at = NoticeEvent(outcome.status), self._host.now()
        if outcome.status is OutcomeStatus.COMPLETED:
            is_late = outcome.late or was_delayed
            event = NoticeEvent.COMPLETED_LATE if is_late else NoticeEvent.COMPLETED
            data = data.model_copy(update={"late": is_late, "notice": self._notices.get(event)})
            at = outcome.timings.answered_at or at
        self._tell(event, data.model_copy(update={"reference": outcome.reference}), at)

    async def settled(self) -> None:
        """Wait until every delivery has been started: by the engine, not by the subscriber."""
        if self._starting:
            await self._host.wait(lambda: not self._starting, None, "")

    def memory(self) -> NotificationsState:
        """For the run that continues this one."""
        return NotificationsState(sequence=self._sequence, delayed=self._delayed)

    def _data(self, status: NoticeStatus, notice: Notice | None) -> NoticeData:
        request = self._request
        return NoticeData(
            call_id=request.call_id,
            provider=request.provider,
            operation=request.operation,
            key=request.key,
            metadata=request.metadata,
            sequence=self._sequence + 1,
            status=status,
            notice=notice,
        )

    def _tell(self, event: NoticeEvent, data: NoticeData, at: datetime) -> None:
        reply = self._reply
        if reply is None or event not in reply.events:
            return
        self._sequence = data.sequence
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
        self._host.begin(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        await self._host.deliver(delivery)
        self._starting -= 1
