"""Parked calls: selected oldest first, and each claimed once by a batch."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from ackbridge.contracts.batches import BatchCounts, ParkedSelection
from ackbridge.contracts.calls import CallRequest, OutcomeStatus, Stage
from ackbridge.contracts.steps import AcknowledgementKind, Parking
from ackbridge.ledger.batches import ParkedState
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
    """Record the response of a call."""
    request = request_for(key)
    message, outcome = response(f"e-{key}"), outcome_of(request)
    recorded = await ledger.calls.record_response(
        request.call_id, 1, message, outcome, was_parked=was_parked
    )
    assert recorded.accepted


async def fail(ledger: Ledger, key: str) -> None:
    """End a call without a response."""
    request = request_for(key)
    failed = outcome_of(request, status=OutcomeStatus.FAILED)
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, "silence", failed)


async def parked_keys(ledger: Ledger, **selection: Any) -> list[str]:
    """The keys of the selected parked calls."""
    selected = ParkedSelection(provider="acme", **selection)
    return [
        one.call_id.removeprefix("acme.order.") for one in await ledger.batches.parked(selected)
    ]


async def claim_and_signal(ledger: Ledger, batch: str, limit: int = 10) -> list[str]:
    """Claim calls for a batch, and mark them as signalled."""
    taken = await ledger.batches.claim(batch, ALL, START + 60 * MINUTE, limit)
    await ledger.batches.mark_signalled(batch, taken)
    return taken


async def test_the_oldest_come_first(ledger: Ledger, clock: MovableClock) -> None:
    """A call that is parked again is the youngest, so that it does not delay others."""
    for key in ("b", "a", "c"):
        await park(ledger, key)
        clock.advance(MINUTE)
    assert await parked_keys(ledger) == ["b", "a", "c"]
    await park(ledger, "b", times=2)
    assert await parked_keys(ledger) == ["a", "c", "b"]


async def test_selections(ledger: Ledger, clock: MovableClock) -> None:
    """By operation, reason, age and key; of one provider only."""
    await park(ledger, "a", "no_receipt")
    clock.advance(MINUTE)
    await park(ledger, "b.with.dots")
    other = CallRequest(provider="acme2", operation="order", key="a")
    await ledger.calls.claim(other, "run-1")
    parking = Parking(reason="unknown", times=1)
    await ledger.calls.record_stage(other.call_id, Stage.PARKED, None, None, parking=parking)

    assert await parked_keys(ledger, reason="no_receipt") == ["a"]
    assert await parked_keys(ledger, operation="refund") == []
    assert await parked_keys(ledger, older_than=MINUTE) == ["a"]
    assert await parked_keys(ledger, keys=("b.with.dots", "x")) == ["b.with.dots"]
    (unknown,) = await ledger.batches.parked(ParkedSelection(provider="acme2"))
    assert (unknown.reason, unknown.times) == ("unknown", 1)
    counted = await ledger.batches.count_parked(ALL)
    assert [(kind.reason, kind.calls) for kind in counted] == [
        ("no_receipt", 1),
        ("no_response", 1),
    ]
    assert counted[0].oldest == START


async def test_what_an_outage_has_parked(ledger: Ledger, clock: MovableClock) -> None:
    """For several reasons, since it began; a call that is put back unsent keeps its place."""
    outage = {"reason": ("breaker_open", "no_receipt"), "parked_since": START + MINUTE}
    await park(ledger, "before", "no_receipt")
    clock.advance(MINUTE)
    for key, reason in (("b", "breaker_open"), ("a", "no_receipt"), ("off", "switched_off")):
        await park(ledger, key, reason)
    assert await parked_keys(ledger, **outage) == ["a", "b"]
    put_back = Parking(reason="no_receipt", times=2, put_back=True)
    await ledger.calls.record_stage("acme.order.before", Stage.PARKED, "-", None, parking=put_back)
    assert await parked_keys(ledger) == ["before", "a", "b", "off"]
    assert await parked_keys(ledger, **outage) == ["a", "b"]


async def test_a_call_that_ends_is_no_longer_parked(ledger: Ledger) -> None:
    """After a late response, a failure or a new run of its key."""
    for key in ("late", "given-up", "anew", "waits"):
        await park(ledger, key)
    await complete(ledger, "late")
    await fail(ledger, "given-up")
    await ledger.calls.claim(request_for("anew"), "run-2")
    assert await parked_keys(ledger) == ["waits"]


async def test_the_same_parking_is_written_once(ledger: Ledger, clock: MovableClock) -> None:
    """Repeating it does not change the time or free a claimed call."""
    call_id = await park(ledger, "a")
    clock.advance(MINUTE)
    await park(ledger, "a")
    (one,) = await ledger.batches.parked(ALL)
    assert one.parked_at == START
    assert await claim_and_signal(ledger, "batch-1") == [call_id]
    await park(ledger, "a")
    assert await parked_keys(ledger) == []


async def test_a_batch_claims_each_call_once(ledger: Ledger, clock: MovableClock) -> None:
    """Not again when it is parked again; another batch may claim it."""
    await park(ledger, "a")
    assert await claim_and_signal(ledger, "batch-1") == ["acme.order.a"]
    assert await claim_and_signal(ledger, "batch-1") == []
    await park(ledger, "a", times=2)
    assert await claim_and_signal(ledger, "batch-1") == []
    assert await claim_and_signal(ledger, "batch-2") == ["acme.order.a"]


async def test_calls_parked_later_are_left_to_the_next_batch(
    ledger: Ledger, clock: MovableClock
) -> None:
    """A batch ends however many calls are parked meanwhile."""
    await park(ledger, "a")
    clock.advance(MINUTE)
    await park(ledger, "b")
    assert await ledger.batches.claim("batch-1", ALL, START, 10) == ["acme.order.a"]


async def test_excluded_operations_are_not_claimed(ledger: Ledger) -> None:
    """Calls of an operation that is off would only be parked again."""
    await park(ledger, "a")
    later = START + MINUTE
    assert await ledger.batches.claim("batch-1", ALL, later, 10, frozenset({"order"})) == []


async def test_concurrent_batches_share_the_calls(ledger: Ledger) -> None:
    """No call is claimed by two of them, and none is left out."""
    for number in range(40):
        await park(ledger, f"{number:02}")
    taken = await asyncio.gather(*(claim_and_signal(ledger, f"batch-{n}") for n in range(4)))
    assert sorted(call_id for ids in taken for call_id in ids) == [
        f"acme.order.{number:02}" for number in range(40)
    ]


async def test_the_counts_of_a_batch(ledger: Ledger) -> None:
    """Completed, failed, parked again, skipped; the rest is unfinished."""
    for key in ("completes", "fails", "again", "gone", "slow"):
        await park(ledger, key)
    await claim_and_signal(ledger, "batch-1", limit=4)
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


async def test_an_owed_acknowledgement_does_not_delay_a_batch(ledger: Ledger) -> None:
    """A call with its response counts as completed."""
    await park(ledger, "a")
    await claim_and_signal(ledger, "batch-1")
    request = request_for("a")
    outcome = outcome_of(request, acknowledgement_owed=True)
    message = response("e-a")
    await ledger.calls.record_response(request.call_id, 1, message, outcome, was_parked=True)
    await ledger.calls.record_owed(request.call_id, 1, AcknowledgementKind.SUCCESS, "503")
    assert await ledger.batches.settle("batch-1") == 0
    assert (await ledger.batches.counts("batch-1")).completed == 1


async def test_a_call_that_never_ends_is_skipped_after_a_day(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Its workflow was terminated, which the ledger does not know."""
    await park(ledger, "a")
    await claim_and_signal(ledger, "batch-1")
    clock.advance(timedelta(hours=25))
    assert await ledger.batches.settle("batch-1") == 0
    assert (await ledger.batches.counts("batch-1")).skipped == 1


async def test_an_interrupted_batch_knows_which_calls_to_signal(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Claimed calls are signalled later, released, or claimed by another batch by then."""
    for key in ("a", "b"):
        await park(ledger, key)
    taken = await ledger.batches.claim("batch-1", ALL, START, 10)
    assert await ledger.batches.unsignalled("batch-1") == taken
    await ledger.batches.release("batch-1")
    assert await ledger.batches.unsignalled("batch-1") == []
    assert await parked_keys(ledger) == ["a", "b"]
    assert (await ledger.batches.counts("batch-1")).selected == 0

    await ledger.batches.claim("batch-2", ALL, START, 10)
    clock.advance(timedelta(minutes=11))
    assert (await ledger.batches.survey(ALL)).total == 2
    assert await claim_and_signal(ledger, "batch-3") == taken
    assert await ledger.batches.unsignalled("batch-2") == []


async def test_a_call_that_moved_while_its_batch_was_interrupted_counts_as_signalled(
    ledger: Ledger,
) -> None:
    """The batch was interrupted before it could record the signal."""
    for key in ("completes", "again"):
        await park(ledger, key)
    await ledger.batches.claim("batch-1", ALL, START, 10)
    await complete(ledger, "completes")
    await park(ledger, "again", times=2)
    assert await ledger.batches.unsignalled("batch-1") == []
    assert await ledger.batches.settle("batch-1") == 0
    counts = await ledger.batches.counts("batch-1")
    assert (counts.completed, counts.parked_again, counts.skipped) == (1, 1, 0)


async def test_a_call_the_engine_does_not_know_is_kept_for_operators(ledger: Ledger) -> None:
    """It is not claimed again; one that has ended meanwhile is no longer parked."""
    for key in ("lost", "ended"):
        await park(ledger, key)
    await ledger.batches.claim("batch-1", ALL, START, 10)
    # By an older worker, which does not say that the call was parked.
    await complete(ledger, "ended", was_parked=False)
    for key in ("lost", "ended"):
        await ledger.batches.skip("batch-1", f"acme.order.{key}")
    assert await parked_keys(ledger) == []
    assert (await ledger.batches.survey(ALL)).total == 0
    # Whoever parks it again is there.
    await park(ledger, "lost", times=2)
    assert await parked_keys(ledger) == ["lost"]


async def test_what_is_left_for_a_batch(ledger: Ledger, clock: MovableClock) -> None:
    """Calls that are still parked, and neither claimed by it nor parked later."""
    for key in ("a", "b", "c"):
        await park(ledger, key)
    as_of = (await ledger.batches.survey(ALL)).as_of
    assert await ledger.batches.count_left("batch-1", ALL, as_of) == 3
    await ledger.batches.claim("batch-1", ALL, as_of, 1)
    await claim_and_signal(ledger, "batch-2", limit=1)
    clock.advance(MINUTE)
    await park(ledger, "later")
    assert await ledger.batches.count_left("batch-1", ALL, as_of) == 1
    await ledger.batches.release("batch-1")
    assert await ledger.batches.count_left("batch-1", ALL, as_of) == 2


async def again(ledger: Ledger, key: str, reason: str, times: int, **more: Any) -> None:
    """Park a call once more."""
    failed_alone = more.pop("failed_alone", False)
    parking = Parking(reason=reason, times=times, **more)
    await ledger.calls.record_stage(
        f"acme.order.{key}", Stage.PARKED, "-", None, parking=parking, failed_alone=failed_alone
    )


async def test_a_call_that_fails_again_is_compared_with_others(
    ledger: Ledger, clock: MovableClock
) -> None:
    """From when it was taken up, with those of its operation that have failed since; what was only
    held back has not failed."""
    for key in ("poisoned", "other"):
        await park(ledger, key, "no_receipt")
    await park(ledger, "held", "breaker_open")
    clock.advance(10 * MINUTE)
    await claim_and_signal(ledger, "batch-1")
    clock.advance(5 * MINUTE)
    failed = Parking(reason="no_receipt", times=2)
    alone = await ledger.batches.failed_again("acme.order.poisoned", failed)
    assert alone is not None
    assert (alone.since, alone.others) == (clock() - 5 * MINUTE, 0)
    await again(ledger, "other", "no_receipt", 2)
    await again(ledger, "held", "breaker_open", 2)
    alone = await ledger.batches.failed_again("acme.order.poisoned", failed)
    assert alone is not None
    assert alone.others == 1
    for which, parking in (
        ("held", failed),
        ("new", failed),
        ("poisoned", failed.model_copy(update={"times": 1})),
        ("poisoned", failed.model_copy(update={"put_back": True})),
        ("poisoned", failed.model_copy(update={"reason": "breaker_open"})),
    ):
        assert await ledger.batches.failed_again(f"acme.order.{which}", parking) is None


async def test_quarantine(ledger: Ledger, clock: MovableClock) -> None:
    """A call that fails twice again alone is left out of recoveries until it is released."""
    await park(ledger, "well")
    call_id = await park(ledger, "poisoned", "no_receipt")
    for times in (2, 3):
        assert set(await parked_keys(ledger, quarantined=False)) == {"poisoned", "well"}
        clock.advance(MINUTE)
        # A repeated step counts once.
        for _ in range(2):
            await again(ledger, "poisoned", "no_receipt", times, failed_alone=True)
        assert await ledger.batches.failures(call_id) == times - 1
    assert await parked_keys(ledger, quarantined=False) == ["well"]
    assert await parked_keys(ledger) == ["well", "poisoned"]
    (found,) = await ledger.batches.quarantined("acme")
    assert (found.call_id, found.failures, found.reason) == (call_id, 2, "no_receipt")
    await again(ledger, "poisoned", "no_receipt", 4)
    assert len(await ledger.batches.quarantined("acme")) == 1
    await again(ledger, "poisoned", "no_receipt", 5, put_back=True, released=True)
    assert await ledger.batches.quarantined("acme") == []
    assert await ledger.batches.failures("acme.order.unknown") == 0


async def test_what_waits(ledger: Ledger, clock: MovableClock) -> None:
    """By name, those in quarantine first and then the oldest; and how many of each kind."""
    await park(ledger, "taken", "no_receipt")
    await claim_and_signal(ledger, "batch-1")
    clock.advance(MINUTE)
    for key, reason in (("a", "breaker_open"), ("b", "breaker_open"), ("bad", "no_receipt")):
        await park(ledger, key, reason)
    for times in (2, 3):
        await again(ledger, "bad", "no_receipt", times, failed_alone=True)
    waiting = await ledger.batches.waiting("acme", 3)
    assert [(one.call_id, one.state, one.batch) for one in waiting] == [
        ("acme.order.bad", ParkedState.WAITING, None),
        ("acme.order.taken", ParkedState.TAKEN, "batch-1"),
        ("acme.order.a", ParkedState.WAITING, None),
    ]
    assert await ledger.batches.count_waiting("acme") == [
        (("breaker_open", False, False), 2, START + MINUTE),
        (("no_receipt", False, True), 1, START + MINUTE),
        (("no_receipt", True, False), 1, START),
    ]


async def test_survey_counts_no_more_than_selected(ledger: Ledger) -> None:
    """The total is what the batch will claim."""
    for key in ("a", "b", "c"):
        await park(ledger, key)
    selected = ALL.model_copy(update={"at_most": 2})
    survey = await ledger.batches.survey(selected)
    assert (survey.total, survey.as_of) == (2, START)
