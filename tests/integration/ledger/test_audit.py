"""The audit log: entries in a chain, in which every change shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ackbridge.contracts.audit import NOT_KEPT, AuditOrigin, AuditRequest, describe_arguments
from ackbridge.ledger.audit import AuditProblem, ChainVerifier
from ackbridge.ledger.database.tables import audit
from ackbridge.ledger.ledger import Ledger

from .samples import START, MovableClock
from .test_encryption import keys, stored


def request(number: int) -> AuditRequest:
    return AuditRequest(
        id=f"run.{number}",
        at=START,
        origin=AuditOrigin.SIGNAL,
        action="cancel",
        subject=f"acme.order.{number}",
        by="anna (certificate)",
        reason="customer \ud800 asked",
        details={"cycle": "1"},
    )


async def problems(ledger: Ledger) -> list[AuditProblem]:
    return list(ChainVerifier().check(await ledger.audit.page()))


async def test_entries_form_a_chain(ledger: Ledger) -> None:
    """Whoever appends at the same time; a request that is repeated is recorded once."""
    twice = [request(number) for number in range(20)] * 2
    appended = await asyncio.gather(*(ledger.audit.append(one, client="ui") for one in twice))
    assert {entry.seq for entry in appended} == set(range(1, 21))
    rows = await ledger.audit.page()
    assert [row.seq for row in rows] == list(range(1, 21))
    assert {row.entry.subject for row in rows} == {one.subject for one in twice}
    assert rows[0].entry.by == "anna (certificate)"
    assert rows[0].entry.client == "ui"
    assert await problems(ledger) == []
    assert [row.seq for row in await ledger.audit.newest(2)] == [19, 20]
    assert [row.seq for row in await ledger.audit.page(after=18)] == [19, 20]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: audit.delete().where(audit.c.seq == 3), [4, 4]),
        (lambda: audit.update().where(audit.c.seq == 3).values(hash="1" * 64), [3, 4]),
        (lambda: audit.update().where(audit.c.seq == 3).values(entry='{"by":"eve"}'), [3, 3]),
        (lambda: audit.update().where(audit.c.seq == 5).values(seq=9), [9]),
        (lambda: audit.insert().values(seq=6, request_id="x", entry="{}", hash="0"), [6, 6]),
    ],
)
async def test_tampering_shows(
    ledger: Ledger, change: Callable[[], sa.Executable], expected: list[int]
) -> None:
    """Removed, changed, renumbered and inserted entries."""
    for number in range(5):
        await ledger.audit.append(request(number))
    await ledger._database.write(lambda connection: connection.execute(change()))
    assert [problem.seq for problem in await problems(ledger)] == expected


def test_arguments_are_kept_short_and_private() -> None:
    """A provider's response is not kept, nor a digest by which it could be guessed."""
    described = describe_arguments(
        {
            "by": "a",
            "reason": "r",
            "cycle": 2,
            "as": "done",
            "response": {"card": "4111"},
            "x": None,
        }
    )
    assert described == {"cycle": "2", "as": "done", "response": NOT_KEPT}


async def test_entries_are_encrypted_with_the_new_key(
    ledger_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    """Entries are never purged: encrypting them again lets an old key go, and keeps the chain."""
    old = Ledger.open(ledger_url, clock, encryption=keys("old"))
    await old.audit.append(request(1))
    await old.close()
    assert "anna" not in stored(ledger_url, tmp_path)
    both = Ledger.open(ledger_url, clock, encryption=keys("new", "old"))
    await both.audit.append(request(2))
    assert ("audit", 1) in [done async for done in both.reencryption.run()]
    await both.close()
    new = Ledger.open(ledger_url, clock, encryption=keys("new"))
    assert [row.entry.subject for row in await new.audit.page()] == [
        "acme.order.1",
        "acme.order.2",
    ]
    assert await problems(new) == []
    await new.close()
