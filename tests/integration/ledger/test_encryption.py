"""What callers and providers have written is encrypted in the ledger, on each database."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ackbridge.contracts.calls import NoticeStatus, OutcomeStatus, Stage
from ackbridge.contracts.deliveries import Delivery, NoticeBody, NoticeData
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind, SuppressedMessage, WrittenOff
from ackbridge.errors import ConfigurationError, DecryptionError
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.tables import metadata
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.reencryption import PAGE_ROWS, compact
from ackbridge.security.encryption import Encryption, load_encryption

from .samples import START, MovableClock, entry, outcome_of, request_for, response

OLD, NEW = (base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))
PERSONAL = "Ada Lovelace"
LOOKS_SEALED = {"$sealed": "AAAA"}


def keys(*ids: str) -> Encryption:
    """An encryption with the keys of these ids, the first of which encrypts."""
    environ = {"OLD": OLD, "NEW": NEW}
    environ["ACKBRIDGE_ENCRYPTION_KEYS"] = ",".join(f"{one}=env:{one.upper()}" for one in ids)
    loaded = load_encryption(environ)
    assert loaded is not None
    return loaded


def stored(url: str, folder: Path) -> str:
    """All rows as the database has them, and the files of an SQLite ledger."""
    engine = sa.create_engine(parse_url(url))
    with engine.connect() as connection:
        texts = [
            repr(row)
            for table in metadata.tables.values()
            for row in connection.execute(sa.select(sa.text("*")).select_from(table))
        ]
    engine.dispose()
    files = [path.read_bytes().decode("latin-1") for path in folder.rglob("ledger.db*")]
    return "\n".join([*texts, *files])


async def write_everything(ledger: Ledger) -> None:
    """A row in each table that has an encrypted column."""
    request, now = request_for("1", {"name": PERSONAL}), START
    call_id = request.call_id
    await ledger.calls.claim(request, "run")
    failed = outcome_of(request, status=OutcomeStatus.FAILED, reason=f"no {PERSONAL}")
    held = ProviderMessage(kind=MessageKind.FAILURE, event_key="h-1", reason=f"not {PERSONAL}")
    quoted = SuppressedMessage(event_key="s-1", reason=f"suppressed: {PERSONAL}")
    await ledger.calls.record_stage(
        call_id, Stage.FAILED, f"failed: {PERSONAL}", failed, [quoted], [held]
    )
    await ledger.calls.record_owed(call_id, 1, AcknowledgementKind.FAILED, f"owed: {PERSONAL}")
    off = WrittenOff(cycle=1, kind=AcknowledgementKind.FAILED, by="bob", reason=f"off: {PERSONAL}")
    await ledger.calls.record_stage(call_id, Stage.FAILED, None, None, written_off=[off])
    await ledger.calls.record_response(
        call_id, 1, response("e-1", [PERSONAL]), outcome_of(request, response=[PERSONAL])
    )
    await ledger.bodies.store(call_id, "e-1", "text/plain", PERSONAL.encode())
    await ledger.inbox.store(entry("i-1", document={"name": PERSONAL}))
    await ledger.inbox.store(entry("i-2", message=response("i-2", PERSONAL)))
    data = NoticeData(
        call_id=call_id,
        provider="acme",
        operation="order",
        key="1",
        sequence=1,
        status=NoticeStatus.FAILED,
        response=PERSONAL,
    )
    body = NoticeBody(id="n-1", type="call.failed", timestamp=now, data=data)
    await ledger.notices.start_attempt(Delivery(subscriber="shop", body=body))
    await ledger.notices.record_failure("n-1", f"refused: {PERSONAL}")


async def read_everything(ledger: Ledger) -> list[Any]:
    """What `write_everything` has written, as the ledger's methods return it."""
    row = await ledger.calls.get("acme.order.1")
    assert row is not None
    entries = await ledger.inbox.entries()
    [notice] = await ledger.notices.find()
    return [
        row.outcome,
        (await ledger.calls.responses("acme.order.1"))[0].data,
        [(one.entry.message, one.entry.document, one.reason) for one in entries],
        notice.body,
        notice.reason,
    ]


async def test_nothing_that_was_written_is_readable_in_the_database(
    ledger_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    """With keys the rows say what they say without; the database shows none of it."""
    ledger = Ledger.open(ledger_url, clock, encryption=keys("new"))
    await write_everything(ledger)
    read = await read_everything(ledger)

    assert repr(read).count(PERSONAL) == 7
    assert PERSONAL not in (found := stored(ledger_url, tmp_path))
    assert "acme.order.1" in found
    await ledger.close()


async def test_a_ledger_gets_keys_and_new_ones(ledger_url: str, clock: MovableClock) -> None:
    """Rows in plain, and those with the key before, are read on, and replaced one by one."""
    plain = Ledger.open(ledger_url, clock)
    await write_everything(plain)
    before = await read_everything(plain)
    await plain.close()

    old = Ledger.open(ledger_url, clock, encryption=keys("old"))
    assert await read_everything(old) == before
    await old.inbox.store(entry("i-3", document="by the old key"))
    await old.close()

    rotated = Ledger.open(ledger_url, clock, encryption=keys("new", "old"))
    assert (await rotated.inbox.entries())[-1].entry.document == "by the old key"
    await rotated.close()


async def test_rows_are_encrypted_again(
    ledger_url: str, clock: MovableClock, tmp_path: Path
) -> None:
    """Afterwards the old key is not needed, and nothing is plain; a second run finds nothing."""
    plain = Ledger.open(ledger_url, clock)
    await write_everything(plain)
    before = await read_everything(plain)
    await plain.close()
    old = Ledger.open(ledger_url, clock, encryption=keys("old"))
    for number in range(PAGE_ROWS + 1):
        await old.inbox.store(entry(f"many-{number}\\", document=number))
    await old.close()

    both = Ledger.open(ledger_url, clock, encryption=keys("new", "old"))
    done = [one async for one in both.reencryption.run()]
    assert sum(rows for table, rows in done if table == "inbox") == PAGE_ROWS + 1 + 3
    assert {table for table, rows in done if rows} >= {"calls", "responses", "bodies", "notices"}
    assert sum([rows async for _, rows in both.reencryption.run()]) == 0
    await both.close()
    new = Ledger.open(ledger_url, clock, encryption=keys("new"))
    assert (await read_everything(new))[:2] == before[:2]
    assert len(await new.inbox.entries(limit=1000)) == PAGE_ROWS + 1 + 3
    await new.close()
    compact(ledger_url)
    assert PERSONAL not in stored(ledger_url, tmp_path)


async def test_without_the_key_nothing_is_read(ledger_url: str, clock: MovableClock) -> None:
    """The error names what to do, and no value."""
    ledger = Ledger.open(ledger_url, clock, encryption=keys("new"))
    await ledger.inbox.store(entry("i-1", document={"name": PERSONAL}))
    await ledger.close()

    without = Ledger.open(ledger_url, clock)
    with pytest.raises(ConfigurationError, match=r"inbox\.document .* ACKBRIDGE_ENCRYPTION_KEYS"):
        await without.inbox.entries()
    await without.close()
    others = Ledger.open(ledger_url, clock, encryption=keys("old"))
    with pytest.raises(DecryptionError):
        await others.inbox.entries()
    await others.close()


@pytest.mark.parametrize("encryption", [None, keys("new")], ids=["plain", "encrypted"])
async def test_what_a_provider_wrote_is_never_taken_for_a_sealed_value(
    ledger_url: str, clock: MovableClock, encryption: Encryption | None
) -> None:
    """Whatever it looks like, it is read as it was written."""
    ledger = Ledger.open(ledger_url, clock, encryption=encryption)
    values: list[Any] = [LOOKS_SEALED, {"$plain": LOOKS_SEALED}, "\\eAAAA", None, 1.5, "\ud800"]
    for number, value in enumerate(values):
        request = request_for(str(number))
        outcome = outcome_of(request, response=value)
        await ledger.calls.claim(request, "run")
        await ledger.calls.record_response(
            request.call_id, 1, response(f"e-{number}", value), outcome
        )
        [row] = await ledger.calls.responses(request.call_id)
        assert row.data == value
    reason = "\\eAAAA\x00"
    await ledger.inbox.store_unclassified(entry("i-1"), reason)
    assert (await ledger.inbox.entries())[0].reason == reason
    for body in (b"\x00EAAAA", b"\x00P", b"\xffACK\x01"):
        ref = await ledger.bodies.store("acme.order.1", "e", "text/plain", body)
        assert await ledger.bodies.read(ref.id) == body
    await ledger.close()


async def test_a_value_of_another_column_does_not_decrypt(
    ledger_url: str, clock: MovableClock
) -> None:
    """Who can write to the database cannot move a value to where it is shown."""
    ledger = Ledger.open(ledger_url, clock, encryption=keys("new"))
    await ledger.inbox.store(entry("i-1", document=PERSONAL, message=response("i-1")))
    engine = sa.create_engine(parse_url(ledger_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE inbox SET message = document")
    engine.dispose()

    with pytest.raises(DecryptionError):
        await ledger.inbox.entries()
    await ledger.close()
