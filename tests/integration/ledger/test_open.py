"""What waits for operators: held messages and owed acknowledgements."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ackbridge.contracts.calls import OutcomeStatus, Stage
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind, SuppressedMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.calls import OwedAcknowledgement
from ackbridge.ledger.inbox import InboxState, StoredEntry
from ackbridge.ledger.ledger import Ledger

from .samples import (
    START,
    MovableClock,
    entry,
    outcome_of,
    request_for,
    response,
)

SUCCESS = AcknowledgementKind.SUCCESS
FAILED = AcknowledgementKind.FAILED
CALL = request_for("1").call_id
NOW = timedelta(0)


async def hold(ledger: Ledger, *messages: ProviderMessage) -> None:
    """End a call that holds messages."""
    why = [SuppressedMessage(event_key=one.event_key, reason="late") for one in messages]
    await ledger.calls.record_stage(CALL, Stage.FAILED, "silence", None, why, messages)


async def test_a_late_message_is_held_whole(ledger: Ledger, clock: MovableClock) -> None:
    """Operators find the whole message, why it is held, and since when."""
    late = response("e-1", {"n": [1, "ä"]}).model_copy(update={"reference": "r-1"})
    clock.advance(timedelta(minutes=1))

    await hold(ledger, late)

    (held,) = await ledger.inbox.held()
    expected = entry("e-1", call_id=CALL, reference="r-1", message=late, document=None)
    assert expected == held.entry
    assert held.reason == "late"
    assert held.settled_at == START + timedelta(minutes=1)
    assert await ledger.inbox.look(CALL, "acme", ["r-1"]) == []
    assert await ledger.inbox.due(NOW, 10) == []


async def test_a_held_message_is_held_once(ledger: Ledger, clock: MovableClock) -> None:
    """Repeating the step, or a second message with that key, changes nothing."""
    await hold(ledger, response("e-1", 1), response("e-1", 2))
    before = await ledger.inbox.held()
    clock.advance(timedelta(minutes=1))

    await asyncio.gather(*(hold(ledger, response("e-1", 3), response("e-1", 4)) for _ in range(5)))

    assert before == await ledger.inbox.held()
    assert not await ledger.inbox.store(entry("e-1"))


async def test_a_pending_message_becomes_held(ledger: Ledger) -> None:
    """The same message may be pending in the inbox: it is no longer delivered, and is complete."""
    await ledger.inbox.store(entry("e-1", operation=None, reference="r-1"))

    await hold(ledger, response("e-1", {"n": 1}))

    (held,) = await ledger.inbox.held()
    assert held.entry.message == response("e-1", {"n": 1})
    assert (held.entry.operation, held.entry.call_id) == ("order", CALL)
    assert await ledger.inbox.due(NOW, 10) == []


@pytest.mark.parametrize("state", [InboxState.DISCARDED, InboxState.DUPLICATE])
async def test_a_settled_message_is_not_held(ledger: Ledger, state: InboxState) -> None:
    """It needs no operator."""
    await ledger.inbox.store(entry("e-1"))
    (stored,) = await ledger.inbox.due(NOW, 10)
    await ledger.inbox.settle([stored.id], state)

    await hold(ledger, response("e-1"))

    assert await ledger.inbox.held() == []


async def test_what_the_gateway_holds_is_listed_too(ledger: Ledger, clock: MovableClock) -> None:
    """Oldest first, of one provider or of all, up to the limit."""
    for key, provider in (("e-2", "acme"), ("e-1", "other"), ("e-3", "acme")):
        await ledger.inbox.store(entry(key, provider=provider))
        clock.advance(timedelta(seconds=1))
        (stored,) = await ledger.inbox.due(NOW, 10)
        await ledger.inbox.settle([stored.id], InboxState.HELD, "no call has appeared")

    def keys(held: list[StoredEntry]) -> list[str]:
        return [one.entry.event_key for one in held]

    assert keys(await ledger.inbox.held()) == ["e-2", "e-1", "e-3"]
    assert keys(await ledger.inbox.held("acme")) == ["e-2", "e-3"]
    assert keys(await ledger.inbox.held(limit=1)) == ["e-2"]


async def test_a_failure_and_an_extension_can_be_held(ledger: Ledger) -> None:
    """Any kind of message is read as it was stored."""
    failure = ProviderMessage(
        kind=MessageKind.FAILURE, event_key="e-1", reason="no", retryable=True
    )
    extension = ProviderMessage(kind=MessageKind.EXTENSION, event_key="e-2", until=START)

    await hold(ledger, failure, extension)

    assert [failure, extension] == [one.entry.message for one in await ledger.inbox.held()]


async def test_a_stage_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    """If a message cannot be held, nothing of the step is written."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    endless = response("e-1").model_copy(update={"event_key": "e" * 513})
    failed = outcome_of(request, status=OutcomeStatus.FAILED)

    with pytest.raises(InvalidInputError, match="event_key: 513 characters"):
        await ledger.calls.record_stage(CALL, Stage.FAILED, None, failed, held=[endless])

    row = await ledger.calls.get(CALL)
    assert row is not None
    assert row.stage is Stage.PREPARING


async def test_owed_acknowledgements_are_listed_until_accepted(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Oldest first, with the reason of the last failure, of one provider or of all."""
    await ledger.calls.record_owed("acme.order.2", 2, FAILED, "503")
    clock.advance(timedelta(seconds=1))
    await ledger.calls.record_owed("acme.order.1", 1, SUCCESS, "503")
    await ledger.calls.record_owed("acme.order.2", 2, FAILED, "504")
    await ledger.calls.record_owed("acme_x.order.1", 1, SUCCESS, "connection refused")
    second = START + timedelta(seconds=1)

    mine = [
        OwedAcknowledgement("acme.order.2", 2, FAILED, "504", START),
        OwedAcknowledgement("acme.order.1", 1, SUCCESS, "503", second),
    ]
    other = OwedAcknowledgement("acme_x.order.1", 1, SUCCESS, "connection refused", second)
    assert [*mine, other] == await ledger.calls.owed()
    assert mine == await ledger.calls.owed("acme")
    assert [other] == await ledger.calls.owed("acme_x")
    assert mine[:1] == await ledger.calls.owed(limit=1)

    await ledger.calls.record_acknowledgement("acme.order.2", 2, FAILED, clock())
    assert mine[1:] == await ledger.calls.owed("acme")
