"""The purge: what is over and expired is deleted, completely, and nothing else."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ackbridge.contracts.batches import ParkedSelection
from ackbridge.contracts.calls import CallRequest, OutcomeStatus, Stage
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.purge import KEEP_FOREVER, PurgeCursor, Retention
from ackbridge.contracts.steps import AcknowledgementKind, Parking, SuppressedMessage
from ackbridge.ledger import calls
from ackbridge.ledger.calls import ClaimKind
from ackbridge.ledger.database.engines import insert_new, parse_url
from ackbridge.ledger.database.tables import metadata
from ackbridge.ledger.inbox import InboxState
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.notices import NoticeState

from .samples import MovableClock, entry, outcome_of, request_for, response
from .test_notices import delivery

DAY = timedelta(days=1)
SUCCESS = AcknowledgementKind.SUCCESS


async def complete(ledger: Ledger, key: str, message: ProviderMessage | None = None) -> CallRequest:
    """A successful call: claimed, sent, answered, acknowledged."""
    request = request_for(key)
    await ledger.calls.claim(request, "run-1")
    await ledger.calls.commit_reference(request.call_id, "acme", f"ref-{key}")
    said = message or response(f"evt-{key}")
    outcome = outcome_of(request, acknowledgement_owed=True)
    await ledger.calls.record_response(request.call_id, 1, said, outcome)
    at = outcome.timings.started_at
    await ledger.calls.record_acknowledgement(request.call_id, 1, SUCCESS, at, outcome_of(request))
    return request


async def purge(
    ledger: Ledger,
    retention: Retention | None = None,
    *,
    pages: int | None = None,
    rows: int = 2,
    dry_run: bool = False,
) -> dict[str, int]:
    """Purge the ledger, or some pages of it, and return the number of deleted rows."""
    gone: Counter[str] = Counter()
    place: PurgeCursor | None = None
    as_of = None
    while as_of is None or place is not None:
        if pages is not None and (pages := pages - 1) < 0:
            break
        page = await ledger.purge.page(
            retention or Retention(), as_of, place, rows=rows, dry_run=dry_run
        )
        as_of, place = page.as_of, page.place
        gone.update(page.gone)
    return dict(gone)


def everything(url: str) -> dict[str, list[Any]]:
    """By table, the call ids of its rows."""
    engine = sa.create_engine(parse_url(url))
    with engine.connect() as connection:
        found = {
            name: list(connection.execute(sa.select(table.c.call_id)).scalars())
            for name, table in metadata.tables.items()
            if "call_id" in table.c
        }
    engine.dispose()
    return {name: sorted(ids, key=str) for name, ids in found.items() if ids}


async def test_an_expired_call_is_deleted_completely(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """Nothing of it is deleted earlier; its event key has a longer retention."""
    request = await complete(ledger, "1")
    await ledger.inbox.log_suppressed("acme", "evt-x", request.call_id, "duplicate")
    await ledger.bodies.store(request.call_id, "evt-1", "text/plain", b"large")
    clock.advance(90 * DAY)
    assert await purge(ledger, Retention(log=KEEP_FOREVER)) == {}

    clock.advance(timedelta(seconds=1))
    assert await purge(ledger, dry_run=True) == {"calls": 1, "log": 1}
    assert await purge(ledger, Retention(log=KEEP_FOREVER)) == {"calls": 1}
    assert everything(ledger_url) == {"event_keys": [request.call_id]}
    clock.advance(90 * DAY)
    assert await purge(ledger) == {"events": 1}
    assert everything(ledger_url) == {}


async def test_a_body_without_a_call_is_deleted(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """After the retention of calls."""
    await ledger.bodies.store("acme.order.1", "evt-1", "text/plain", b"large")
    clock.advance(90 * DAY)
    assert await purge(ledger) == {}
    clock.advance(timedelta(seconds=1))
    assert await purge(ledger) == {"bodies": 1}
    assert everything(ledger_url) == {}


async def test_unclassified_messages_expire(ledger: Ledger, clock: MovableClock) -> None:
    """After the retention of the inbox."""
    await ledger.inbox.store_unclassified(entry("e-1"), "no rule matches")
    clock.advance(30 * DAY)
    assert await purge(ledger) == {}
    clock.advance(timedelta(seconds=1))
    assert await purge(ledger) == {"inbox": 1}


async def test_what_is_not_over_stays(ledger: Ledger, ledger_url: str, clock: MovableClock) -> None:
    """At any age: open, parked, with owed acknowledgements, pending messages or notices."""
    await ledger.calls.claim(request_for("preparing"), "run-1")
    parked = request_for("parked")
    await ledger.calls.claim(parked, "run-1")
    await ledger.calls.record_stage(
        parked.call_id, Stage.PARKED, "silence", None, parking=Parking(reason="x", times=1)
    )
    owing = await complete(ledger, "owing")
    await ledger.calls.record_owed(owing.call_id, 2, AcknowledgementKind.FAILED, "503")
    held = await complete(ledger, "held")
    outcome = outcome_of(held)
    late = response("evt-late")
    await ledger.calls.record_stage(held.call_id, Stage.COMPLETED, None, outcome, [], [late])
    awaited = await complete(ledger, "awaited")
    await ledger.inbox.store(entry("evt-waits", call_id=awaited.call_id))
    for number, bury in ((1, False), (2, True)):
        await complete(ledger, str(number))
        await ledger.notices.start_attempt(delivery(number))
        if bury:
            await ledger.notices.mark_dead(delivery(number), "gone")
    before = everything(ledger_url)
    clock.advance(5000 * DAY)
    await purge(
        ledger, Retention(events=KEEP_FOREVER, held=KEEP_FOREVER, dead_notices=KEEP_FOREVER)
    )

    assert everything(ledger_url) == before

    await ledger.calls.record_acknowledgement(
        owing.call_id, 2, AcknowledgementKind.FAILED, clock(), outcome_of(owing)
    )
    assert await purge(ledger, Retention(events=KEEP_FOREVER)) == {
        "held": 1,
        "dead_notices": 1,
        "calls": 2,
    }
    clock.advance(91 * DAY)
    assert (await purge(ledger, Retention(events=KEEP_FOREVER)))["calls"] == 1
    left = ("1", "awaited", "parked", "preparing")
    assert everything(ledger_url)["calls"] == [f"acme.order.{key}" for key in left]


@pytest.mark.parametrize("event_key", ["sync:acme.order.1:1", "operator:acme.order.1"])
async def test_a_reused_id_is_a_new_call(
    ledger: Ledger, clock: MovableClock, event_key: str
) -> None:
    """Neither synchronous responses nor an operator's message of the old call block its own."""
    source = MessageSource(event_key.partition(":")[0])
    said = response(event_key).model_copy(update={"source": source})
    request = await complete(ledger, "1", said)
    assert (await ledger.calls.claim(request, "run-2")).kind is ClaimKind.RECORDED
    clock.advance(91 * DAY)
    await purge(ledger)

    again = request_for("1", {"another": "payload"})
    assert (await ledger.calls.claim(again, "run-2")).kind is ClaimKind.FRESH
    assert await ledger.calls.find_by_reference("acme", "ref-1") is None
    recorded = await ledger.calls.record_response(again.call_id, 1, said, outcome_of(again))
    assert recorded.accepted
    assert not recorded.repeated


async def test_a_late_duplicate_is_not_applied_to_a_new_call(
    ledger: Ledger, clock: MovableClock
) -> None:
    """An event that the deleted call has applied is no response of a call with the same id.

    Also when the id was used again and the event's own time is up.
    """
    await complete(ledger, "1")
    clock.advance(91 * DAY)
    await purge(ledger)
    assert await ledger.calls.is_event_recorded("acme", "evt-1")
    request = request_for("1", "another")
    await ledger.calls.claim(request, "run-2")
    clock.advance(400 * DAY)
    assert await purge(ledger) == {}

    repeated = await ledger.calls.record_response(
        request.call_id, 1, response("evt-1"), outcome_of(request)
    )
    assert not repeated.accepted
    assert await ledger.calls.responses(request.call_id) == []
    answered = await ledger.calls.record_response(
        request.call_id, 1, response("evt-2"), outcome_of(request)
    )
    assert answered.accepted


async def test_notices_of_a_reused_id_are_delivered(ledger: Ledger, clock: MovableClock) -> None:
    """Their ids are derived from the call's: those of the deleted call are deleted with it.

    It is as old as its last notice: the engine knows that one as long as it knew the call.
    """
    await complete(ledger, "1")
    clock.advance(80 * DAY)
    await ledger.notices.start_attempt(delivery(1))
    await ledger.notices.mark_delivered(delivery(1).body.id, clock())
    clock.advance(11 * DAY)
    assert await purge(ledger, Retention(notices=KEEP_FOREVER)) == {}
    clock.advance(80 * DAY)
    assert await purge(ledger, Retention(notices=KEEP_FOREVER)) == {"calls": 1}

    assert await ledger.notices.start_attempt(delivery(1)) is None


async def test_each_kind_has_its_own_retention(ledger: Ledger, clock: MovableClock) -> None:
    """Settled and held messages, delivered and dead notices, the log, calls of batches."""
    for key, state in (("a", "delivered"), ("b", "duplicate"), ("c", "held"), ("d", None)):
        await ledger.inbox.store(entry(key))
        if state:
            waiting = await ledger.inbox.due(timedelta(0), 10)
            ids = [one.id for one in waiting if one.entry.event_key == key]
            await ledger.inbox.settle(ids, InboxState(state))
    await ledger.notices.start_attempt(delivery(1))
    await ledger.notices.mark_delivered(delivery(1).body.id, clock())
    await ledger.notices.mark_dead(delivery(2), "gone")
    await ledger.inbox.log_suppressed("acme", "evt", None, "duplicate")
    parked = request_for("parked")
    await ledger.calls.claim(parked, "run-1")
    waits = Parking(reason="x", times=1)
    await ledger.calls.record_stage(parked.call_id, Stage.PARKED, None, None, parking=waits)
    await ledger.batches.claim("b-1", ParkedSelection(provider="acme"), clock(), 10)
    await ledger.batches.skip("b-1", parked.call_id)

    gone = []
    for days in (30, 30, 30, 275):
        clock.advance(days * DAY + timedelta(seconds=1))
        gone.append(await purge(ledger))

    assert gone == [
        {"inbox": 2, "notices": 1},
        {},
        {"log": 1, "batches": 1, "calls": 1},
        {"held": 1, "dead_notices": 1},
    ]
    (pending,) = await ledger.inbox.due(timedelta(0), 10)
    assert pending.entry.event_key == "d"


async def test_a_call_that_the_engine_does_not_know_is_deleted(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """It was terminated while it was parked, and a batch has found that out."""
    request = request_for("lost")
    await ledger.calls.claim(request, "run-1")
    waits = Parking(reason="x", times=1)
    await ledger.calls.record_stage(request.call_id, Stage.PARKED, None, None, parking=waits)
    clock.advance(100 * DAY)
    await ledger.batches.claim("b-1", ParkedSelection(provider="acme"), clock(), 10)
    await ledger.batches.skip("b-1", request.call_id)
    assert await purge(ledger) == {}
    clock.advance(91 * DAY)

    assert await purge(ledger) == {"batches": 1, "calls": 1}
    assert everything(ledger_url) == {}


KEYS = ("1", "2", "3", "back\\slash", "nul\x00", "50 %")
DIE_BEFORE_COMMIT = """
import asyncio, os, signal, sys
from datetime import timedelta
from ackbridge.contracts.purge import Retention
from ackbridge.ledger.ledger import Ledger
from tests.integration.ledger.samples import START, BeforeCommit

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def now():
    return START + timedelta(days=91)

async def main():
    page = await Ledger.open(sys.argv[1], now).purge.page(Retention())
    ledger = Ledger(BeforeCommit(sys.argv[1], die), now)
    while page.place:
        page = await ledger.purge.page(Retention(log=timedelta(0)), page.as_of, page.place)

asyncio.run(main())
"""


async def add_calls(ledger: Ledger) -> None:
    """Add calls with everything that belongs to one."""
    for key in KEYS:
        request = await complete(ledger, key)
        await ledger.calls.record_stage(
            request.call_id,
            Stage.COMPLETED,
            None,
            outcome_of(request),
            [SuppressedMessage(event_key="evt-x", reason="duplicate")],
        )


async def is_whole(ledger: Ledger, key: str) -> bool:
    """Whether a call is there with all that protects it; else it must be deleted completely."""
    call_id = request_for(key).call_id
    found = await ledger.calls.get(call_id)
    is_there = found is not None and found.outcome is not None
    assert (found is not None) is is_there
    assert len(await ledger.calls.responses(call_id)) == is_there
    assert (await ledger.calls.find_by_reference("acme", f"ref-{key}") is not None) is is_there
    assert await ledger.calls.is_event_recorded("acme", f"evt-{key}")
    return is_there


async def test_an_interrupted_purge_leaves_whole_calls(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """After any page a call is complete, or its id can be claimed again."""
    await add_calls(ledger)
    clock.advance(91 * DAY)
    left = []
    page = await ledger.purge.page(Retention(), rows=1)
    while page.place is not None:
        page = await ledger.purge.page(Retention(log=KEEP_FOREVER), page.as_of, page.place, rows=1)
        left.append(sum([await is_whole(ledger, key) for key in KEYS]))
        there = everything(ledger_url)
        assert there.get("responses") == there.get("acknowledgements") == there.get("log")

    assert sorted(set(left), reverse=True) == [6, 5, 4, 3, 2, 1, 0]
    for key in KEYS:
        assert (await ledger.calls.claim(request_for(key, "new"), "run-2")).kind is ClaimKind.FRESH


async def test_a_killed_purge_leaves_whole_calls(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """What it had not committed is left to the next one."""
    await add_calls(ledger)
    before = everything(ledger_url)
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DIE_BEFORE_COMMIT, ledger_url],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert died.returncode == -signal.SIGKILL

    assert everything(ledger_url) == before
    clock.advance(91 * DAY)
    assert (await purge(ledger))["calls"] == len(KEYS)


async def test_a_claim_during_a_deletion(ledger: Ledger, clock: MovableClock) -> None:
    """It gets the old call or a fresh one, and never an error."""
    requests = [await complete(ledger, str(number)) for number in range(20)]
    clock.advance(91 * DAY)
    purging = asyncio.create_task(purge(ledger))
    claims = []
    while not purging.done():
        claims += [await ledger.calls.claim(request, "run-2") for request in requests]
    assert (await purging)["calls"] >= 1
    assert {claim.kind for claim in claims} <= {
        ClaimKind.RECORDED,
        ClaimKind.FRESH,
        ClaimKind.HELD,
    }


async def test_a_claim_whose_old_row_is_deleted_is_fresh(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old claim exists at the insert, and is deleted before it can be locked."""
    request = await complete(ledger, "1")
    inserting = insert_new

    def insert_and_lose(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> bool:
        monkeypatch.undo()
        is_new = inserting(connection, table, row)
        assert not is_new
        connection.execute(table.delete())
        return is_new

    monkeypatch.setattr(calls, "insert_new", insert_and_lose)

    assert (await ledger.calls.claim(request, "run-2")).kind is ClaimKind.FRESH


async def test_an_interrupted_purge_is_finished_by_the_next(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """It starts again, and finds what is left."""
    await add_calls(ledger)
    clock.advance(91 * DAY)
    first = await purge(ledger, Retention(log=KEEP_FOREVER), pages=8)
    assert 0 < first["calls"] < len(KEYS)
    second = await purge(ledger, Retention(log=KEEP_FOREVER))
    assert first["calls"] + second["calls"] == len(KEYS)
    assert set(everything(ledger_url)) == {"event_keys"}


async def test_failed_and_cancelled_calls_are_deleted_too(
    ledger: Ledger, clock: MovableClock
) -> None:
    """They have outcomes, and no response."""
    for status in (OutcomeStatus.FAILED, OutcomeStatus.CANCELLED):
        request = request_for(status)
        await ledger.calls.claim(request, "run-1")
        outcome = outcome_of(request, status=status)
        await ledger.calls.record_stage(request.call_id, Stage(status), "why", outcome)
    clock.advance(91 * DAY)

    assert await purge(ledger, rows=500) == {"calls": 2}


async def test_zero_keeps_rows_for_ever(
    ledger: Ledger, ledger_url: str, clock: MovableClock
) -> None:
    """In every table."""
    await add_calls(ledger)
    before = everything(ledger_url)
    clock.advance(36500 * DAY)
    kinds = dict.fromkeys(Retention.model_fields, KEEP_FOREVER)

    assert await purge(ledger, Retention(**kinds)) == {}
    assert everything(ledger_url) == before
    assert (await ledger.notices.find(state=NoticeState.DEAD)) == []
