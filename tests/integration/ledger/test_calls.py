"""Calls: claims, stages, acknowledgements, references and the suppressed log."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ackbridge.contracts.calls import CallRequest, OutcomeStatus, Stage
from ackbridge.contracts.names import short_call_id
from ackbridge.contracts.steps import AcknowledgementKind, Parking, SuppressedMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.calls import CallFilter, Claim, ClaimKind, RecordedCall
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.tables import log
from ackbridge.ledger.inbox import LogKind
from ackbridge.ledger.ledger import Ledger

from .samples import START, MovableClock, outcome_of, request_for, response

SUCCESS = AcknowledgementKind.SUCCESS
FAILED = AcknowledgementKind.FAILED


async def test_the_first_claim_is_fresh_and_its_repeat_is_held(ledger: Ledger) -> None:
    """A run may repeat its claim."""
    request = request_for("1", {"amount": 5})

    assert Claim(ClaimKind.FRESH) == await ledger.calls.claim(request, "chain-1")
    assert Claim(ClaimKind.HELD) == await ledger.calls.claim(request, "chain-1")


async def test_a_key_with_another_payload_is_reused(ledger: Ledger) -> None:
    """The same key with another payload is refused, for the same run chain too."""
    await ledger.calls.claim(request_for("1", {"amount": 5}), "chain-1")

    assert Claim(ClaimKind.REUSED) == await ledger.calls.claim(
        request_for("1", {"amount": 6}), "chain-1"
    )
    assert Claim(ClaimKind.REUSED) == await ledger.calls.claim(
        request_for("1", {"amount": 6}), "chain-2"
    )


async def test_another_run_chain_gets_the_recorded_outcome(ledger: Ledger) -> None:
    """After the engine's retention a repeated call gets the recorded outcome."""
    request = request_for("1")
    outcome = outcome_of(request, response={"id": "o-1"}, attempts=2)
    await ledger.calls.claim(request, "chain-1")
    await ledger.calls.record_response(request.call_id, 1, response("e-1"), outcome)

    assert Claim(ClaimKind.RECORDED, outcome) == await ledger.calls.claim(request, "chain-2")


async def test_the_same_run_chain_gets_the_outcome_it_recorded(ledger: Ledger) -> None:
    """A workflow task that was lost may have recorded it."""
    request = request_for("1")
    outcome = outcome_of(request, response={"id": "o-1"}, attempts=2)
    await ledger.calls.claim(request, "chain-1")
    await ledger.calls.record_response(request.call_id, 1, response("e-1"), outcome)

    assert Claim(ClaimKind.HELD, outcome) == await ledger.calls.claim(request, "chain-1")


async def test_another_run_chain_takes_over_a_call_without_outcome(ledger: Ledger) -> None:
    """It continues a call whose run was terminated, and knows so whenever it asks."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    first = await ledger.calls.get(request.call_id)
    assert first is not None
    assert not first.taken_over

    taken = Claim(ClaimKind.HELD, taken_over=True, first_claimed_at=first.claimed_at)
    assert taken == await ledger.calls.claim(request, "chain-2")
    # The result of the first claim was lost.
    assert taken == await ledger.calls.claim(request, "chain-2")


async def test_who_takes_over_gets_the_last_reference(ledger: Ledger, clock: MovableClock) -> None:
    """To ask the provider, and to acknowledge; the short id of the call is none."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    for reference in ("r-1", "r-2", short_call_id(request.call_id)):
        await ledger.calls.commit_reference(request.call_id, request.provider, reference)
        clock.advance(timedelta(seconds=1))

    for _ in range(2):
        assert (await ledger.calls.claim(request, "chain-2")).reference == "r-2"
    row = await ledger.calls.get(request.call_id)
    assert row is not None
    assert row.run_chain == "chain-2"


async def test_one_of_several_takes_over_from_a_host_that_has_ended(ledger: Ledger) -> None:
    """Each names the run chain that it found ended; the others find the one that was faster."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1", "bulk:1")
    elsewhere = await ledger.calls.claim(request, "chain-2", "bulk:2")
    assert elsewhere == Claim(ClaimKind.ELSEWHERE, host="bulk:1", run_chain="chain-1")

    claims = await asyncio.gather(
        *(
            ledger.calls.claim(request, f"chain-{n}", f"bulk:{n}", ended_chain="chain-1")
            for n in range(2, 5)
        )
    )
    kinds = [claim.kind for claim in claims]
    assert kinds.count(ClaimKind.HELD) == 1
    assert [claim.taken_over for claim in claims if claim.kind is ClaimKind.HELD] == [True]
    assert kinds.count(ClaimKind.ELSEWHERE) == 2


async def test_one_of_many_concurrent_claims_is_fresh(ledger: Ledger) -> None:
    """Of any number of concurrent claims, exactly one is the first."""
    request = request_for("1")

    claims = await asyncio.gather(*(ledger.calls.claim(request, f"chain-{n}") for n in range(20)))

    kinds = [claim.kind for claim in claims]
    assert kinds.count(ClaimKind.FRESH) == 1
    assert kinds.count(ClaimKind.HELD) == 19


async def test_the_row_of_a_call(ledger: Ledger, clock: MovableClock) -> None:
    """It follows the call from the claim to its end."""
    request = request_for("1")
    assert await ledger.calls.get(request.call_id) is None
    await ledger.calls.claim(request, "chain-1")
    clock.advance(timedelta(seconds=2))
    owed = outcome_of(request, acknowledgement_owed=True)
    await ledger.calls.record_response(request.call_id, 1, response("e-1"), owed)

    captured = await ledger.calls.get(request.call_id)
    await ledger.calls.record_acknowledgement(
        request.call_id, 1, SUCCESS, clock(), outcome_of(request)
    )
    ended = await ledger.calls.get(request.call_id)

    assert captured is not None
    assert ended is not None
    assert captured.stage is Stage.ACKNOWLEDGING
    assert captured.outcome == owed
    assert captured.request_digest == request.digest
    assert captured.claimed_at == START
    assert captured.updated_at == START + timedelta(seconds=2)
    assert ended.stage is Stage.COMPLETED
    assert ended.outcome == outcome_of(request)


async def test_a_response_without_acknowledgement_completes_the_call(ledger: Ledger) -> None:
    """If no acknowledgement is owed, recording the response ends the call."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    await ledger.calls.record_response(request.call_id, 1, response("e-1"), outcome_of(request))

    row = await ledger.calls.get(request.call_id)

    assert row is not None
    assert row.stage is Stage.COMPLETED


async def test_an_owed_acknowledgement_counts_until_accepted(
    ledger: Ledger, clock: MovableClock
) -> None:
    """It counts once, however often it fails."""
    await ledger.calls.record_owed("acme.order.1", 1, FAILED, "503")
    await ledger.calls.record_owed("acme.order.1", 1, FAILED, "504")
    await ledger.calls.record_owed("acme.order.1", 2, SUCCESS, "503")
    assert (await ledger.counts())["acknowledgements_owed"] == 2

    await ledger.calls.record_acknowledgement("acme.order.1", 1, FAILED, clock())
    await ledger.calls.record_acknowledgement("acme.order.1", 1, FAILED, clock())
    assert (await ledger.counts())["acknowledgements_owed"] == 1


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_a_success_replaces_a_failed_acknowledgement(
    ledger: Ledger, clock: MovableClock, is_accepted: bool
) -> None:
    """A late success replaces that of its cycle, accepted or owed; not that of other cycles."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    await ledger.calls.record_owed(request.call_id, 1, FAILED, "503")
    await ledger.calls.record_owed(request.call_id, 2, FAILED, "503")

    if is_accepted:
        late = outcome_of(request, late=True)
        await ledger.calls.record_acknowledgement(request.call_id, 1, SUCCESS, clock(), late)
    else:
        await ledger.calls.record_owed(request.call_id, 1, SUCCESS, "503")
    await ledger.calls.record_owed(request.call_id, 1, FAILED, "a try that was reported late")

    assert (await ledger.counts())["acknowledgements_owed"] == (1 if is_accepted else 2)


async def test_an_accepted_acknowledgement_is_never_owed_again(
    ledger: Ledger, clock: MovableClock
) -> None:
    """A failure that is recorded late does not undo it."""
    await ledger.calls.record_acknowledgement("acme.order.1", 1, SUCCESS, clock())
    await ledger.calls.record_owed("acme.order.1", 1, SUCCESS, "timed out")

    assert (await ledger.counts())["acknowledgements_owed"] == 0


async def test_a_parked_call_keeps_its_reason(ledger: Ledger) -> None:
    """A stage without an outcome is recorded with its reason."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")

    await ledger.calls.record_stage(request.call_id, Stage.PARKED, "no response", None, [])

    row = await ledger.calls.get(request.call_id)
    assert row is not None
    assert (row.stage, row.reason, row.outcome) == (Stage.PARKED, "no response", None)


async def test_a_stage_without_outcome_keeps_the_old_one(ledger: Ledger) -> None:
    """A recorded outcome is not overwritten."""
    request = request_for("1")
    failed = outcome_of(request, status=OutcomeStatus.FAILED, reason="silence")
    await ledger.calls.claim(request, "chain-1")
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, "silence", failed, [])
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, "silence", None, [])

    assert Claim(ClaimKind.RECORDED, failed) == await ledger.calls.claim(request, "chain-2")


async def test_a_repeated_stage_logs_nothing_more(ledger: Ledger) -> None:
    """Each message that a call suppresses counts once, although the step may run twice."""
    suppressed = [SuppressedMessage(event_key=key, reason="seen") for key in ("a", "b", "a")]

    for _ in range(2):
        await ledger.calls.record_stage("acme.order.1", Stage.COMPLETED, None, None, suppressed)

    assert (await ledger.counts())["suppressed"] == 3


async def test_a_repeated_suppression_is_counted(ledger: Ledger) -> None:
    """The gateway's duplicates are all counted, matched or not, concurrent or not."""
    await asyncio.gather(
        *(
            ledger.inbox.log_suppressed("acme", "e-1", "acme.order.1", "duplicate")
            for _ in range(5)
        ),
        *(ledger.inbox.log_suppressed("acme", "e-1", None, "not awaited") for _ in range(5)),
    )

    assert (await ledger.counts())["suppressed"] == 10


async def test_a_reference_finds_its_call(ledger: Ledger) -> None:
    """A reference belongs to one call, of that provider only."""
    await ledger.calls.commit_reference("acme.order.1", "acme", "r-1")
    await ledger.calls.commit_reference("acme.order.1", "acme", "r-1")
    await ledger.calls.commit_reference("acme.order.1", "acme", "r-2")

    assert await ledger.calls.find_by_reference("acme", "r-1") == "acme.order.1"
    assert await ledger.calls.find_by_reference("acme", "r-2") == "acme.order.1"
    assert await ledger.calls.find_by_reference("other", "r-1") is None
    assert await ledger.calls.find_by_reference("acme", "r-3") is None


async def test_the_first_call_keeps_a_contested_reference(ledger: Ledger, ledger_url: str) -> None:
    """If a provider gives two calls the same reference, the second one is logged."""
    await ledger.calls.commit_reference("acme.order.1", "acme", "r-1")
    for _ in range(2):
        await ledger.calls.commit_reference("acme.order.2", "acme", "r-1")

    assert await ledger.calls.find_by_reference("acme", "r-1") == "acme.order.1"
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.connect() as connection:
        (logged,) = connection.execute(sa.select(log)).all()
    engine.dispose()
    assert (logged.kind, logged.call_id) == (LogKind.REFERENCE_CONFLICT, "acme.order.2")
    assert (logged.subject, logged.times) == ("r-1", 1)
    assert logged.reason == "the reference belongs to acme.order.1"


async def test_a_long_reference_is_refused(ledger: Ledger) -> None:
    """A reference that is too long for an index is an error that names it, and is not retried."""
    with pytest.raises(InvalidInputError, match="reference: 513 characters"):
        await ledger.calls.commit_reference("acme.order.1", "acme", "r" * 513)


async def test_pages_of_calls(ledger: Ledger, clock: MovableClock) -> None:
    """Newest first over all providers, none missed or repeated, also those of the same moment."""
    made = []
    for number in range(4):
        for provider in ("acme", "ajax", "zeta"):
            request = CallRequest(provider=provider, operation="order", key=f"k{number}", payload=1)
            await ledger.calls.claim(request, "run")
            made.append(request.call_id)
        clock.advance(timedelta(seconds=number % 2))
    parked = Parking(reason="no_response", times=1)
    await ledger.calls.record_stage("acme.order.k1", Stage.PARKED, "silent", None, parking=parked)

    async def pages(which: CallFilter, size: int) -> list[str]:
        seen: list[RecordedCall] = []
        while page := await ledger.calls.page(which, seen[-1].position if seen else None, size):
            assert len(page) <= size
            seen += page
        order = [(one.claimed_at, one.provider) for one in seen]
        assert order == sorted(order, reverse=True)
        return [one.call_id for one in seen]

    for size in (1, 2, 5, 100):
        assert sorted(await pages(CallFilter(), size)) == sorted(made)
    of_two = await pages(CallFilter(providers=("zeta", "nobody", "acme")), 3)
    assert sorted(of_two) == sorted(one for one in made if not one.startswith("ajax"))
    assert await pages(CallFilter(stages=(Stage.PARKED,)), 3) == ["acme.order.k1"]
    assert await pages(CallFilter(operation="other"), 3) == []
    since = CallFilter(providers=("acme",), claimed_from=START + timedelta(seconds=1))
    assert await pages(since, 3) == ["acme.order.k3", "acme.order.k2"]
    assert len(await pages(CallFilter(claimed_before=START + timedelta(seconds=1)), 3)) == 6
    await ledger.calls.record_owed("ajax.order.k2", 1, AcknowledgementKind.SUCCESS, "down")
    assert await pages(CallFilter(owed=True), 3) == ["ajax.order.k2"]


async def test_calls_by_their_ids(ledger: Ledger) -> None:
    """Those that are known."""
    request = CallRequest(provider="acme", operation="order", key="k1", payload=1)
    await ledger.calls.claim(request, "run")
    found = await ledger.calls.get_many([request.call_id, "acme.order.k2"])
    assert found == {request.call_id: await ledger.calls.get(request.call_id)}
