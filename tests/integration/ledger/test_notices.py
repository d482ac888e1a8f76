"""Notices to subscribers: pending, delivered, dead, and sent again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from ackbridge.contracts.calls import NoticeStatus
from ackbridge.contracts.deliveries import Delivery, NoticeBody, NoticeData
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.notices import NoticeRow, NoticeState

from .samples import START, MovableClock


def delivery(number: int = 1, subscriber: str = "shop", **more: Any) -> Delivery:
    """A notice about the call `acme.order.<number>`."""
    call_id = f"acme.order.{number}"
    data = NoticeData(
        call_id=call_id,
        provider="acme",
        operation="order",
        key=str(number),
        metadata={"strange": "\x00 \N{GRINNING FACE} Zoë"},
        sequence=1,
        status=NoticeStatus.FAILED,
    )
    body = NoticeBody(
        id=f"{call_id}:1.failed",
        type="call.failed",
        timestamp=START + timedelta(seconds=number),
        data=data,
    )
    return Delivery(subscriber=subscriber, body=body, **more)


async def only(ledger: Ledger) -> NoticeRow:
    """The only notice."""
    (row,) = await ledger.notices.find()
    return row


async def test_a_pending_notice(ledger: Ledger, clock: MovableClock) -> None:
    """It is stored from the first attempt on, with the number of attempts and the last error."""
    one = delivery()
    assert await ledger.notices.start_attempt(one) is None
    await ledger.notices.record_failure(one.body.id, "the subscriber answered 503")
    clock.advance(timedelta(minutes=1))
    assert await ledger.notices.start_attempt(one) is None

    row = await only(ledger)

    assert one.body == row.body
    assert (row.state, row.attempts) == (NoticeState.PENDING, 2)
    assert row.reason == "the subscriber answered 503"
    assert (row.happened_at, row.settled_at) == (one.body.timestamp, None)
    assert row.updated_at == START + timedelta(minutes=1)


async def test_a_delivered_notice_is_not_delivered_again(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Unless it is requested; and a failure that is recorded late does not undo the delivery."""
    one = delivery()
    await ledger.notices.start_attempt(one)
    await ledger.notices.mark_delivered(one.body.id, START)

    assert await ledger.notices.start_attempt(one) == START
    await ledger.notices.mark_dead(one, "an attempt that was thought lost")

    row = await only(ledger)
    assert (row.state, row.attempts, row.reason) == (NoticeState.DELIVERED, 1, None)
    assert await ledger.notices.start_attempt(delivery(again=True)) is None
    assert (await only(ledger)).state is NoticeState.PENDING


async def test_a_dead_notice_can_be_sent_again(ledger: Ledger) -> None:
    """It stays, with the reason, until then; a notice can be dead without any attempt."""
    await ledger.notices.mark_dead(delivery(1), "nobody serves its queue")
    await ledger.notices.start_attempt(delivery(2))
    await ledger.notices.mark_dead(delivery(2), "410")
    await ledger.notices.mark_dead(delivery(2), "410")

    dead = await ledger.notices.find(state=NoticeState.DEAD)

    assert [(one.reason, one.attempts) for one in dead] == [
        ("nobody serves its queue", 0),
        ("410", 1),
    ]
    assert await ledger.notices.start_attempt(delivery(1)) is None
    await ledger.notices.mark_delivered(delivery(1).body.id, START)
    dead = await ledger.notices.find(state=NoticeState.DEAD)
    assert [one.call_id for one in dead] == ["acme.order.2"]


async def test_notices_are_found(ledger: Ledger) -> None:
    """By subscriber, state and id, oldest first, up to a limit."""
    for number in (3, 1, 2):
        await ledger.notices.start_attempt(delivery(number))
    await ledger.notices.start_attempt(delivery(4, "shed"))

    async def found(**wanted: Any) -> list[str]:
        return [one.body.call.key for one in await ledger.notices.find(**wanted)]

    assert await found() == ["1", "2", "3", "4"]
    assert await found(subscriber="shop", limit=2) == ["1", "2"]
    assert await found(subscriber="shed", state=NoticeState.PENDING) == ["4"]
    assert await found(event_id="acme.order.2:1.failed") == ["2"]
    assert await found(state=NoticeState.DEAD) == []


async def test_concurrent_attempts_are_one_notice(ledger: Ledger) -> None:
    """Two workers may attempt the same one."""
    await asyncio.gather(*(ledger.notices.start_attempt(delivery()) for _ in range(5)))
    assert (await only(ledger)).attempts == 5
