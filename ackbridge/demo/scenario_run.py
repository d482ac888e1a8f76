"""One call on stage: what its caller and the operators do and see while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ackbridge.client.calls import Call
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, Notice, Stage
from ackbridge.errors import CallCancelledError, CallError, CallFailedError
from ackbridge.ledger.calls import CallRow

from .records import EVERY_ROW, PROVIDER, Archive

PATIENCE = timedelta(minutes=2)
LOOK_EVERY = 0.2
"""Seconds between two looks at something that will change."""


@dataclass
class DemoCall:
    """A call, and what is seen of it from outside.

    Attributes:
        parked: its status when it was parked, if it was.
        parked_at, parked_because: what the ledger had about that.
        extended: its status when it had been given more time, if it was; `extended_at`: seen then.
        outcome: how it ended.
        refusals: what the caller was told instead of an outcome.
        is_repeated: the same request has found the same outcome.
        is_owed: the outcome stood while the provider was owed an acknowledgement.
    """

    archive: Archive
    request: CallRequest
    parked: CallStatus | None = None
    parked_at: datetime | None = None
    parked_because: str | None = None
    extended: CallStatus | None = None
    extended_at: datetime | None = None
    outcome: CallOutcome | None = None
    refusals: list[CallError] = field(default_factory=list)
    is_repeated: bool = False
    is_owed: bool = False

    @property
    def call(self) -> Call:
        """The call, once it is started."""
        return self.archive.calls.call(self.request.call_id)

    @property
    def notices(self) -> list[Notice]:
        """What the user was to read, in order."""
        seen = [
            self.parked.notice if self.parked else None,
            self.outcome.notice if self.outcome else None,
        ]
        return [notice for notice in seen if notice is not None]

    async def start(self) -> None:
        """Start the call, or find it."""
        await self.archive.calls.start(self.request)

    async def expect_refusal(self, request: CallRequest) -> None:
        """Start what claims to be the same call, and keep how that is refused."""
        try:
            await self.archive.calls.start(request)
        except CallError as refused:
            self.refusals.append(refused)

    async def end(self, *, settled: bool = True) -> None:
        """Wait for the outcome; settled: and for what we owe the provider."""
        try:
            self.outcome = await self.call.outcome(PATIENCE, settled=settled)
        except (CallFailedError, CallCancelledError) as ended:
            self.outcome = ended.outcome
        except CallError as refused:
            self.refusals.append(refused)

    async def until_parked(self) -> None:
        """Wait until the ledger says that it is parked or over, and look at it then."""
        row: CallRow | None = None

        async def is_waiting_no_more() -> bool:
            nonlocal row
            row = await self.archive.ledger.calls.get(self.request.call_id)
            return row is not None and (row.stage is Stage.PARKED or row.outcome is not None)

        await until(is_waiting_no_more)
        status = await self.call.status()
        if row is not None and status.stage is Stage.PARKED:
            self.parked = status
            self.parked_at, self.parked_because = row.updated_at, row.reason

    async def until_awaiting(self, longer_than: timedelta = timedelta(0)) -> None:
        """Wait until the provider has the request, and so much time for its answer, or it is over.

        Args:
            longer_than: the time that it gets without asking for more.
        """
        status = await self.call.status()

        async def is_awaiting() -> bool:
            nonlocal status
            status = await self.call.status()
            return status.stage.is_final or _time_for(status) > longer_than

        await until(is_awaiting)
        if longer_than and not status.stage.is_final:
            self.extended, self.extended_at = status, utc_now()

    async def until_answered(self, times: int) -> None:
        """Wait until so many answers of the provider were taken."""

        async def is_answered() -> bool:
            events = await self.archive.events(self.request.call_id)
            return sum(is_taken(event, "completed") for event in events) >= times

        await until(is_answered)

    async def look_for_debts(self) -> None:
        """See in the ledger whether the provider is owed an acknowledgement."""
        debts = await self.archive.ledger.calls.owed(PROVIDER, EVERY_ROW)
        self.is_owed = any(debt.call_id == self.request.call_id for debt in debts)


def _time_for(status: CallStatus) -> timedelta:
    """How long the answer is awaited; nothing while it is not."""
    if status.stage is not Stage.AWAITING_RESPONSE or status.deadline is None:
        return timedelta(0)
    return status.deadline - status.since


def is_taken(event: dict[str, Any], news: str) -> bool:
    """Whether a callback of this kind was accepted by the gateway."""
    is_reply = event["kind"] == "callback_reply" and event["news"] == news
    return is_reply and event.get("status") in range(200, 300)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await holds():  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(LOOK_EVERY)
