"""One call of the demo: actions and observations, and the facts that it is checked by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from ackbridge.client.calls import Call
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, Notice, Stage
from ackbridge.errors import CallCancelledError, CallError, CallFailedError
from ackbridge.ledger.calls import CallRow

from .load import TIMEOUT
from .records import EVERY_ROW, FORGERIES, PROVIDER, CallRecords, RecordSources, is_accepted

POLL_INTERVAL = 0.2
"""Seconds between two checks of a condition."""
FIRST_TASK = 4
"""Events of a history up to the end of its first workflow task."""


@dataclass
class DemoCall:
    """A call, and what was observed of it."""

    sources: RecordSources
    request: CallRequest
    parked: CallStatus | None = None
    # parked_at, parked_reason: from the ledger.
    parked_at: datetime | None = None
    parked_reason: str | None = None
    # Its status after an extension, if there was one; `extended_at`: observed then.
    extended: CallStatus | None = None
    extended_at: datetime | None = None
    outcome: CallOutcome | None = None
    # Errors that the caller got instead of an outcome.
    refusals: list[CallError] = field(default_factory=list)
    is_repeated: bool = False  # whether a repeated request returned the same outcome
    is_owed: bool = False  # whether there was an outcome while its acknowledgement was pending

    @property
    def call(self) -> Call:
        return self.sources.calls.call(self.request.call_id)

    @property
    def notices(self) -> list[Notice]:
        ends = [self.parked, self.outcome]
        return [end.notice for end in ends if end is not None and end.notice is not None]

    async def start(self) -> None:
        await self.sources.calls.start(self.request)

    async def start_expecting_refusal(self, request: CallRequest) -> None:
        try:
            await self.sources.calls.start(request)
        except CallError as error:
            self.refusals.append(error)

    async def end(self, *, settled: bool = True) -> None:
        """Wait for the outcome; settled: and for its acknowledgement."""
        try:
            self.outcome = await self.call.outcome(TIMEOUT, settled=settled)
        except (CallFailedError, CallCancelledError) as ended:
            self.outcome = ended.outcome
        except CallError as error:
            self.refusals.append(error)

    async def wait_until_parked(self) -> None:
        """Wait until the ledger has it as parked or ended, and read its status."""
        row: CallRow | None = None

        async def is_parked_or_ended() -> bool:
            nonlocal row
            row = await self.sources.ledger.calls.get(self.request.call_id)
            return row is not None and (row.stage is Stage.PARKED or row.outcome is not None)

        await wait_until(is_parked_or_ended)
        status = await self.call.status()
        if row is not None and status.stage is Stage.PARKED:
            self.parked = status
            self.parked_at, self.parked_reason = row.updated_at, row.reason

    async def wait_until_awaiting(self, longer_than: timedelta = timedelta(0)) -> None:
        """Wait until the call has ended, or awaits its response for longer than this."""
        # A query while the request is under way may make the engine repeat the workflow task, and
        # with it the request.
        await wait_until(self._has_ended_first_task)
        status = await self.call.status()

        async def is_awaiting() -> bool:
            nonlocal status
            status = await self.call.status()
            return status.stage.is_final or _deadline(status) > longer_than

        await wait_until(is_awaiting)
        if longer_than and not status.stage.is_final:
            self.extended, self.extended_at = status, utc_now()

    async def _has_ended_first_task(self) -> bool:
        handle = self.sources.temporal.get_workflow_handle(self.request.call_id)
        return (await handle.describe()).history_length > FIRST_TASK

    async def wait_until_answered(self, times: int) -> None:
        """Wait until this many completions of the provider were accepted."""

        async def is_answered() -> bool:
            events = await self.sources.events(self.request.call_id)
            return sum(is_accepted(event, "completed") for event in events) >= times

        await wait_until(is_answered)

    async def check_owed(self) -> None:
        owed = await self.sources.ledger.calls.owed(PROVIDER, EVERY_ROW)
        self.is_owed = any(row.call_id == self.request.call_id for row in owed)


def _deadline(status: CallStatus) -> timedelta:
    """The time span of the response deadline; 0 while no response is awaited."""
    if status.stage is not Stage.AWAITING_RESPONSE or status.deadline is None:
        return timedelta(0)
    return status.deadline - status.since


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds; raises `TimeoutError` if it does not within `TIMEOUT`."""
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        while not await condition():  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(POLL_INTERVAL)


@dataclass(frozen=True)
class CallFacts:
    """How a call ended, in comparable form; the defaults are those of a call without faults.

    Attributes:
        end: `completed`, `failed` or `cancelled`; `refused` where there is no outcome.
        effect: what the outcome says of the provider's side.
        sent: how often it was sent, under each idempotency key.
        done: how many jobs the provider completed.
        acknowledged: the acknowledgements that the provider accepted, of each of its jobs.
        recorded: responses in the ledger.
        notices: their kinds, in order.
        marks: whatever else happened.
    """

    # `completed`, `failed` or `cancelled`; `refused` where there is no outcome.
    end: str = "completed"
    effect: str = "done"
    sent: tuple[int, ...] = (1,)
    done: int = 1
    acknowledged: tuple[tuple[str, ...], ...] = (("success",),)
    recorded: int = 1  # responses in the ledger
    notices: tuple[str, ...] = ()  # their kinds, in order
    marks: frozenset[str] = frozenset()  # whatever else happened

    def differences(self, seen: CallFacts) -> Iterator[str]:
        for one in fields(self):
            expected, found = getattr(self, one.name), getattr(seen, one.name)
            if expected != found:
                yield f"{one.name}: expected {_text(expected)}, seen {_text(found)}"


def facts_of(demo_call: DemoCall, records: CallRecords) -> CallFacts:
    outcome = demo_call.outcome
    cycles = sorted(event["cycle"] for event in records.events_of("request"))
    return CallFacts(
        end=outcome.status.value if outcome else "refused",
        effect=outcome.effect.value if outcome else "none",
        sent=tuple(len(list(same)) for _, same in groupby(cycles)),
        done=sum(work["status"] == "completed" for work in records.works),
        acknowledged=tuple(
            tuple(one["verdict"] for one in work["acknowledgements"]) for work in records.works
        ),
        recorded=len(records.responses),
        notices=tuple(notice.kind for notice in demo_call.notices),
        marks=frozenset(_marks(demo_call, records)),
    )


def _marks(demo_call: DemoCall, records: CallRecords) -> Iterator[str]:
    yield from _outcome_marks(demo_call.outcome)
    for signal in records.signals:
        yield f"{signal.name} by {signal.by}"
    replies = records.events_of("callback_reply")
    if sum(is_accepted(reply, "completed") for reply in replies) > 1:
        yield "answered more than once"
    if demo_call.extended:
        yield "extended"
    forged = [reply for reply in replies if reply["news"] in FORGERIES]
    if forged:
        is_rejected = all(400 <= (reply.get("status") or 0) < 500 for reply in forged)
        yield "forgeries rejected" if is_rejected else "FORGERIES ACCEPTED"
    if records.events_of("status"):
        yield "status requested"
    if records.held:
        yield f"{len(records.held)} message held"
    if demo_call.parked:
        yield "parked"
    if demo_call.is_owed:
        yield "owed"
    if demo_call.is_repeated:
        yield "same outcome again"
    for refusal in demo_call.refusals:
        yield type(refusal).__name__


def _outcome_marks(outcome: CallOutcome | None) -> Iterator[str]:
    if outcome is None:
        return
    if outcome.late:
        yield "late"
    if outcome.acknowledgement_owed:
        yield "STILL OWED"
    if outcome.forced is not None:
        yield f"forced by {outcome.forced.by}"
    if outcome.cancelled is not None:
        yield f"cancelled by {outcome.cancelled.by}"


def _text(value: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "nothing"
    return str(value)
