"""Parked calls in the ledger: selected oldest first, and each taken once by a batch."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from ackbridge.contracts.batches import BatchCounts, ParkedSelection
from ackbridge.contracts.calls import CallRequest, OutcomeStatus, Stage
from ackbridge.contracts.steps import AcknowledgementKind, Parking
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger

from .samples import START, MovableClock, outcome_of, request_for, response

ALL = ParkedSelection(provider="acme")
MINUTE = timedelta(minutes=1)


async def park(ledger: Ledger, key: str, reason: str = "no_response", times: int = 1) -> str:
    """Claim a call, and park it."""
    request = request_for(key)
    await ledger.calls.claim(request, "run-1")
    parking = Parking(reason=reason, times=times)
    await ledger.calls.record_stage(request.call_id, Stage.PARKED, "silence", None, parking=parking)
    return request.call_id


async def complete(ledger: Ledger, key: str, *, was_parked: bool = True) -> None:
    """The response of a call comes."""
    request = request_for(key)
    message, outcome = response(f"e-{key}"), outcome_of(request)
    recorded = await ledger.calls.record_response(
        request.call_id, 1, message, outcome, was_parked=was_parked
    )
    assert recorded.accepted


async def fail(ledger: Ledger, key: str) -> None:
    """A call ends without a response."""
    request = request_for(key)
    failed = outcome_of(request, status=OutcomeStatus.FAILED)
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, "silence", failed)


async def waiting(ledger: Ledger, **selection: Any) -> list[str]:
    """The keys of the selected calls."""
    wanted = ParkedSelection(provider="acme", **selection)
    return [one.call_id.removeprefix("acme.order.") for one in await ledger.batches.parked(wanted)]


async def tell_all(ledger: Ledger, batch: str, limit: int = 10) -> list[str]:
    """Take calls for a batch, and tell them."""
    taken = await ledger.batches.claim(batch, ALL, START + 60 * MINUTE, limit)
    await ledger.batches.mark_signalled(batch, taken)
    return taken


async def test_the_oldest_come_first(ledger: Ledger, clock: MovableClock) -> None:
    """A call that is parked again is the youngest, so that no hopeless one holds others up."""
    for key in ("b", "a", "c"):
        await park(ledger, key)
        clock.go_on(MINUTE)
    assert await waiting(ledger) == ["b", "a", "c"]
    await park(ledger, "b", times=2)
    assert await waiting(ledger) == ["a", "c", "b"]


async def test_selections(ledger: Ledger, clock: MovableClock) -> None:
    """By operation, reason, age and key; of one provider only."""
    await park(ledger, "a", "no_receipt")
    clock.go_on(MINUTE)
    await park(ledger, "b.with.dots")
    other = CallRequest(provider="acme2", operation="order", key="a")
    await ledger.calls.claim(other, "run-1")
    await ledger.calls.record_stage(other.call_id, Stage.PARKED, None, None)

    assert await waiting(ledger, reason="no_receipt") == ["a"]
    assert await waiting(ledger, operation="refund") == []
    assert await waiting(ledger, older_than=MINUTE) == ["a"]
    assert await waiting(ledger, keys=("b.with.dots", "x")) == ["b.with.dots"]
    (unknown,) = await ledger.batches.parked(ParkedSelection(provider="acme2"))
    assert (unknown.reason, unknown.times) == ("unknown", 1)
    counted = await ledger.batches.count_parked(ALL)
    assert [(kind.reason, kind.calls) for kind in counted] == [
        ("no_receipt", 1),
        ("no_response", 1),
    ]
    assert counted[0].oldest == START


async def test_whoever_ends_is_parked_no_more(ledger: Ledger) -> None:
    """A late response, a failure and a new run of a key leave nothing to take."""
    for key in ("late", "given-up", "anew", "waits"):
        await park(ledger, key)
    await complete(ledger, "late")
    await fail(ledger, "given-up")
    await ledger.calls.claim(request_for("anew"), "run-2")
    assert await waiting(ledger) == ["waits"]


async def test_the_same_parking_is_written_once(ledger: Ledger, clock: MovableClock) -> None:
    """What a parked call has to log again and again does not make it younger, nor free."""
    call_id = await park(ledger, "a")
    clock.go_on(MINUTE)
    await park(ledger, "a")
    (one,) = await ledger.batches.parked(ALL)
    assert one.parked_at == START
    assert await tell_all(ledger, "batch-1") == [call_id]
    await park(ledger, "a")
    assert await waiting(ledger) == []


async def test_a_batch_takes_each_call_once(ledger: Ledger, clock: MovableClock) -> None:
    """Not again when it is parked again, though another batch may."""
    await park(ledger, "a")
    assert await tell_all(ledger, "batch-1") == ["acme.order.a"]
    assert await tell_all(ledger, "batch-1") == []
    await park(ledger, "a", times=2)
    assert await tell_all(ledger, "batch-1") == []
    assert await tell_all(ledger, "batch-2") == ["acme.order.a"]


async def test_calls_parked_later_are_left_to_the_next_batch(
    ledger: Ledger, clock: MovableClock
) -> None:
    """A batch comes to an end however many calls are parked meanwhile."""
    await park(ledger, "a")
    clock.go_on(MINUTE)
    await park(ledger, "b")
    assert await ledger.batches.claim("batch-1", ALL, START, 10) == ["acme.order.a"]


async def test_closed_operations_are_left_alone(ledger: Ledger) -> None:
    """What is switched off is not taken up only to be parked again."""
    await park(ledger, "a")
    later = START + MINUTE
    assert await ledger.batches.claim("batch-1", ALL, later, 10, frozenset({"order"})) == []


async def test_batches_at_once_share_the_calls(ledger: Ledger) -> None:
    """No call is taken by two of them, and none is left out."""
    for number in range(40):
        await park(ledger, f"{number:02}")
    taken = await asyncio.gather(*(tell_all(ledger, f"batch-{n}") for n in range(4)))
    assert sorted(call_id for ids in taken for call_id in ids) == [
        f"acme.order.{number:02}" for number in range(40)
    ]


async def test_what_became_of_the_calls(ledger: Ledger) -> None:
    """Completed, failed, parked again, skipped; the rest is under way."""
    for key in ("completes", "fails", "again", "gone", "slow"):
        await park(ledger, key)
    await tell_all(ledger, "batch-1", limit=4)
    assert await ledger.batches.claim("batch-1", ALL, START, 10) != []
    await ledger.batches.skip("batch-1", "acme.order.slow")
    assert await ledger.batches.settle("batch-1") == 4
    await complete(ledger, "completes")
    await fail(ledger, "fails")
    await park(ledger, "again", times=2)
    assert await ledger.batches.settle("batch-1") == 1
    assert await ledger.batches.counts("batch-1") == BatchCounts(
        selected=5, signalled=4, completed=1, parked_again=1, failed=1, skipped=1
    )


async def test_an_owed_acknowledgement_holds_nobody_up(ledger: Ledger) -> None:
    """A call with its response counts as completed, whatever it still owes."""
    await park(ledger, "a")
    await tell_all(ledger, "batch-1")
    request = request_for("a")
    outcome = outcome_of(request, acknowledgement_owed=True)
    message = response("e-a")
    await ledger.calls.record_response(request.call_id, 1, message, outcome, was_parked=True)
    await ledger.calls.record_owed(request.call_id, 1, AcknowledgementKind.SUCCESS, "503")
    assert await ledger.batches.settle("batch-1") == 0
    assert (await ledger.batches.counts("batch-1")).completed == 1


async def test_a_call_that_never_ends_is_waited_for_no_longer_than_a_day(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Somebody has terminated its workflow, and the ledger will never hear of it."""
    await park(ledger, "a")
    await tell_all(ledger, "batch-1")
    clock.go_on(timedelta(hours=25))
    assert await ledger.batches.settle("batch-1") == 0
    assert (await ledger.batches.counts("batch-1")).skipped == 1


async def test_an_interrupted_batch_knows_whom_it_has_not_told(
    ledger: Ledger, clock: MovableClock
) -> None:
    """What was marked is told later, given back, or somebody else's by then."""
    for key in ("a", "b"):
        await park(ledger, key)
    taken = await ledger.batches.claim("batch-1", ALL, START, 10)
    assert await ledger.batches.unsignalled("batch-1") == taken
    await ledger.batches.release("batch-1")
    assert await ledger.batches.unsignalled("batch-1") == []
    assert await waiting(ledger) == ["a", "b"]
    assert (await ledger.batches.counts("batch-1")).skipped == 2

    await ledger.batches.claim("batch-2", ALL, START, 10)
    clock.go_on(timedelta(minutes=11))
    assert (await ledger.batches.survey(ALL)).total == 2
    assert await tell_all(ledger, "batch-3") == taken
    assert await ledger.batches.unsignalled("batch-2") == []


async def test_a_call_that_moved_while_its_batch_was_interrupted_counts_as_told(
    ledger: Ledger,
) -> None:
    """Whoever told it had no time to note that, and what became of it counts."""
    for key in ("completes", "again"):
        await park(ledger, key)
    await ledger.batches.claim("batch-1", ALL, START, 10)
    await complete(ledger, "completes")
    await park(ledger, "again", times=2)
    assert await ledger.batches.unsignalled("batch-1") == []
    assert await ledger.batches.settle("batch-1") == 0
    counts = await ledger.batches.counts("batch-1")
    assert (counts.completed, counts.parked_again, counts.skipped) == (1, 1, 0)


async def test_a_call_the_engine_does_not_know_is_kept_for_people(ledger: Ledger) -> None:
    """It is not taken again and again; one that has ended meanwhile is simply gone."""
    for key in ("lost", "ended"):
        await park(ledger, key)
    await ledger.batches.claim("batch-1", ALL, START, 10)
    # By an older worker, which does not say that the call was parked.
    await complete(ledger, "ended", was_parked=False)
    for key in ("lost", "ended"):
        await ledger.batches.skip("batch-1", f"acme.order.{key}")
    assert await waiting(ledger) == []
    assert (await ledger.batches.survey(ALL)).total == 0
    # Whoever parks it again is there.
    await park(ledger, "lost", times=2)
    assert await waiting(ledger) == ["lost"]


async def test_an_older_worker_parks_a_call_again(ledger: Ledger) -> None:
    """It does not count, and the call is there to be taken all the same."""
    await park(ledger, "a")
    await tell_all(ledger, "batch-1")
    await ledger.calls.record_stage("acme.order.a", Stage.PARKED, "silence", None)
    (one,) = await ledger.batches.parked(ALL)
    assert one.times == 2


async def test_survey_counts_no_more_than_wanted(ledger: Ledger) -> None:
    """The total is what the batch will take."""
    for key in ("a", "b", "c"):
        await park(ledger, key)
    wanted = ALL.model_copy(update={"at_most": 2})
    survey = await ledger.batches.survey(wanted)
    assert (survey.total, survey.as_of) == (2, START)


@pytest.fixture
def ledger_of_before(empty_url: str) -> str:
    """A ledger from before there were batches, with a parked call and one that has ended."""
    migrate(empty_url)
    engine = sa.create_engine(parse_url(empty_url))
    config = Config()
    config.set_main_option("script_location", "ackbridge.ledger.database:migrations")
    row = (
        "INSERT INTO calls (call_id, provider, operation, request_digest, run_chain, stage,"
        " claimed_at, updated_at) VALUES ('{}', 'acme', 'order', 'd', 'r', '{}',"
        " '2026-03-01 12:00:00', '2026-03-01 12:00:00')"
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003-1")
        connection.execute(sa.text(row.format("acme.order.a.b", "parked")))
        connection.execute(sa.text(row.format("acme.order.c", "completed")))
    engine.dispose()
    migrate(empty_url)
    return empty_url


async def test_calls_parked_before_are_taken_in(ledger_of_before: str, clock: MovableClock) -> None:
    """Whatever was parked before the upgrade is selectable after it."""
    ledger = Ledger.open(ledger_of_before, clock)
    assert await waiting(ledger, keys=("a.b",)) == ["a.b"]
    assert await waiting(ledger) == ["a.b"]
    await ledger.close()
