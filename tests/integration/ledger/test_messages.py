"""Messages: responses, the duplicate index and the inbox."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ackbridge.contracts.steps import Recorded
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.inbox import InboxState
from ackbridge.ledger.ledger import Ledger

from .samples import (
    START,
    BeforeCommit,
    MovableClock,
    entry,
    outcome_of,
    request_for,
    response,
)

SOON = timedelta(0)


async def record(ledger: Ledger, key: str, event_key: str, data: object = None) -> Recorded:
    """Record a response for the call of this key."""
    request = request_for(key)
    return await ledger.calls.record_response(
        request.call_id, 1, response(event_key, data), outcome_of(request)
    )


async def test_a_response_is_recorded_once(ledger: Ledger) -> None:
    """Repeating the same message for the same call is accepted, and changes nothing."""
    assert Recorded(accepted=True) == await record(ledger, "1", "e-1", {"total": 5, "ok": None})
    again = await record(ledger, "1", "e-1", {"total": 6})
    assert Recorded(accepted=True, repeated=True) == again

    (row,) = await ledger.calls.responses("acme.order.1")
    assert row.data == {"total": 5, "ok": None}
    assert (row.event_key, row.received_at, row.recorded_at) == ("e-1", START, START)
    assert await ledger.calls.is_event_recorded("acme", "e-1")
    assert not await ledger.calls.is_event_recorded("other", "e-1")
    assert (await ledger.counts())["suppressed"] == 0


async def test_a_second_response_is_refused_and_logged(ledger: Ledger) -> None:
    """Its event is not recorded."""
    await record(ledger, "1", "e-1")

    refused = await record(ledger, "1", "e-2")

    assert Recorded(accepted=False, reason="the call has another response") == refused
    assert len(await ledger.calls.responses("acme.order.1")) == 1
    assert not await ledger.calls.is_event_recorded("acme", "e-2")
    assert (await ledger.counts())["suppressed"] == 1


async def test_an_event_belongs_to_one_call(ledger: Ledger) -> None:
    """An event that was applied to one call is refused for another."""
    await ledger.calls.claim(request_for("2"), "chain-2")
    await record(ledger, "1", "e-1")

    refused = await record(ledger, "2", "e-1")

    assert not refused.accepted
    assert refused.reason == "the event was applied to acme.order.1"
    assert await ledger.calls.responses("acme.order.2") == []
    row = await ledger.calls.get("acme.order.2")
    assert row is not None
    assert row.outcome is None
    assert (await ledger.counts())["suppressed"] == 1


async def test_concurrent_records_of_one_event_leave_one_row(ledger: Ledger) -> None:
    """Of many calls, one gets the event."""
    answers = await asyncio.gather(*(record(ledger, str(n), "e-1") for n in range(20)))

    assert [answer.accepted for answer in answers].count(True) == 1
    counts = await ledger.counts()
    assert (counts["responses"], counts["suppressed"]) == (1, 19)


async def test_concurrent_records_of_one_call_leave_one_row(ledger: Ledger) -> None:
    """Of many responses, one is recorded."""
    answers = await asyncio.gather(*(record(ledger, "1", f"e-{n % 10}") for n in range(20)))

    assert [answer.accepted for answer in answers].count(True) == 2
    assert len(await ledger.calls.responses("acme.order.1")) == 1


async def test_an_interrupted_record_leaves_nothing(ledger: Ledger, ledger_url: str) -> None:
    """After a failure before the commit a retry is no duplicate."""

    def fail() -> None:
        raise ZeroDivisionError

    interrupted = Ledger(BeforeCommit(ledger_url, fail), MovableClock())
    with pytest.raises(ZeroDivisionError):
        await record(interrupted, "1", "e-1")
    await interrupted.close()

    assert await ledger.calls.responses("acme.order.1") == []
    assert not await ledger.calls.is_event_recorded("acme", "e-1")
    assert Recorded(accepted=True) == await record(ledger, "1", "e-1")


async def test_a_message_is_stored_once_and_unchanged(ledger: Ledger) -> None:
    """The first message with an event key does not change."""
    first = entry("e-1", call_id="acme.order.1", message=response("e-1", {"n": 1}))
    assert await ledger.inbox.store(first)
    assert not await ledger.inbox.store(entry("e-1", call_id="acme.order.1"))

    (stored,) = await ledger.inbox.look("acme.order.1", "acme", [])

    assert first == stored.entry


async def test_messages_wait_for_their_call(ledger: Ledger) -> None:
    """A call finds messages with its id, and those with its reference and no id."""
    await ledger.inbox.store(entry("named", call_id="acme.order.1"))
    await ledger.inbox.store(
        entry("referenced", reference="r-1", received_at=START - timedelta(days=1))
    )
    await ledger.inbox.store(entry("of-another", call_id="acme.order.2", reference="r-1"))
    await ledger.inbox.store(entry("unmatched"))
    await ledger.inbox.store(entry("elsewhere", provider="other", reference="r-1"))

    by_both = await ledger.inbox.look("acme.order.1", "acme", ["r-1"])
    by_name = await ledger.inbox.look("acme.order.1", "acme", [])

    assert [stored.entry.event_key for stored in by_both] == ["referenced", "named"]
    assert [stored.entry.event_key for stored in by_name] == ["named"]


async def test_recording_settles_the_inbox(ledger: Ledger) -> None:
    """A message that was applied is not delivered again."""
    await ledger.inbox.store(entry("e-1", call_id="acme.order.1"))
    await record(ledger, "1", "e-1")

    assert await ledger.inbox.look("acme.order.1", "acme", []) == []
    assert await ledger.inbox.due(SOON, 10) == []


async def test_pending_messages_are_due_oldest_first(ledger: Ledger, clock: MovableClock) -> None:
    """The sweeper gets the oldest, not those that the gateway is still delivering."""
    for minutes in (3, 1, 2):
        await ledger.inbox.store(
            entry(f"{minutes}", received_at=START - timedelta(minutes=minutes))
        )

    old = await ledger.inbox.due(timedelta(minutes=2), 10)
    oldest = await ledger.inbox.due(SOON, 1)

    assert [stored.entry.event_key for stored in old] == ["3", "2"]
    assert [stored.entry.event_key for stored in oldest] == ["3"]
    clock.advance(timedelta(minutes=1))
    assert len(await ledger.inbox.due(timedelta(minutes=2), 10)) == 3


async def test_postponed_messages_wait_longer_each_time(
    ledger: Ledger, clock: MovableClock
) -> None:
    """The backoff doubles up to five minutes."""
    await ledger.inbox.store(entry("e-1"))
    waits = []
    for attempt in range(12):
        (stored,) = await ledger.inbox.due(SOON, 10)
        assert stored.attempts == attempt
        await ledger.inbox.postpone([stored.id])
        wait = 0
        while not await ledger.inbox.due(SOON, 10):
            clock.advance(timedelta(seconds=1))
            wait += 1
        waits.append(wait)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


@pytest.mark.parametrize("state", [InboxState.DELIVERED, InboxState.HELD, InboxState.DUPLICATE])
async def test_settled_messages_do_not_change(ledger: Ledger, state: InboxState) -> None:
    """They are neither due nor pending, and are not stored again."""
    await ledger.inbox.store(entry("e-1", call_id="acme.order.1"))
    (stored,) = await ledger.inbox.due(SOON, 10)

    await ledger.inbox.settle([stored.id], state, "because")

    assert await ledger.inbox.due(SOON, 10) == []
    assert await ledger.inbox.look("acme.order.1", "acme", []) == []
    assert not await ledger.inbox.store(entry("e-1"))
    assert (await ledger.counts())["inbox_pending"] == 0


async def test_empty_lists_change_nothing(ledger: Ledger) -> None:
    """Settling or postponing nothing is no error."""
    await ledger.inbox.settle([], InboxState.HELD)
    await ledger.inbox.postpone([])

    assert (await ledger.counts())["inbox_pending"] == 0


async def test_a_message_in_the_inbox_or_a_reference_is_found_by_one_side(ledger: Ledger) -> None:
    """Both sides write before they read: at least one of them sees the other."""

    async def gateway(n: int) -> bool:
        await ledger.inbox.store(entry(f"e-{n}", reference=f"r-{n}"))
        return await ledger.calls.find_by_reference("acme", f"r-{n}") is not None

    async def send(n: int) -> bool:
        await ledger.calls.commit_reference(f"acme.order.{n}", "acme", f"r-{n}")
        return bool(await ledger.inbox.look(f"acme.order.{n}", "acme", [f"r-{n}"]))

    pairs = await asyncio.gather(*(asyncio.gather(gateway(n), send(n)) for n in range(50)))

    assert all(any(pair) for pair in pairs)


@pytest.mark.parametrize(
    "key", ["a\x00b", "\ud800", "\\ud800", "back\\slash", "\\", "ключ ✓ 🔑", "' OR 1=1 --", " "]
)
async def test_any_text_is_an_event_key(ledger: Ledger, key: str) -> None:
    """Ids that no database can store as text are stored, and remain different."""
    assert await ledger.inbox.store(
        entry(key, reference=key, document={"body": key, "nan": float("nan")})
    )
    await ledger.inbox.log_suppressed("acme", key, None, key)
    await ledger.calls.commit_reference("acme.order.1", "acme", key)

    (stored,) = await ledger.inbox.look("acme.order.1", "acme", [key])

    assert stored.entry.event_key == stored.entry.reference == key
    assert stored.entry.document == {"body": key, "nan": None}
    assert await ledger.calls.find_by_reference("acme", key) == "acme.order.1"
    assert await ledger.calls.find_by_reference("acme", key + "x") is None


async def test_a_long_event_key_is_refused(ledger: Ledger) -> None:
    """An event key that is too long for an index is an error that names it."""
    with pytest.raises(InvalidInputError, match="event_key: 600 characters"):
        await ledger.inbox.store(entry("e" * 600))


async def test_a_naive_time_is_refused(ledger: Ledger) -> None:
    """Its time zone is not guessed."""
    naive = START.replace(tzinfo=None)
    with pytest.raises(Exception, match="aware times only") as caught:
        await ledger.inbox.store(entry("e-1", received_at=naive))
    assert not isinstance(caught.value, LedgerUnavailableError)


async def test_a_message_that_was_delivered_in_vain_is_held(ledger: Ledger) -> None:
    """Its call had ended when it came; one that was applied says nothing new and stays as it is."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    for event_key in ("e-1", "e-2"):
        await ledger.inbox.store(entry(event_key, call_id=request.call_id))
    rows = await ledger.inbox.look(request.call_id, "acme", [])
    await ledger.inbox.settle([row.id for row in rows], InboxState.DELIVERED)
    await record(ledger, "1", "e-1", {"ok": True})

    for event_key, data in (("e-1", {"ok": True}), ("e-2", {"ok": False})):
        message = response(event_key, data).model_copy(update={"reference": event_key})
        await ledger.inbox.hold_message(request.call_id, message, "the call had ended")
    assert [row.entry.event_key for row in await ledger.inbox.held("acme")] == ["e-2"]
    assert (await ledger.counts())["suppressed"] == 2
