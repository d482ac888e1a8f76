"""The audit log: a chain of hashes, so that a changed, removed or inserted entry shows."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from ackbridge.contracts.audit import FIRST_HASH, AuditEntry, AuditRequest

from .database.engines import Store, reads, writes
from .database.tables import audit

PAGE_ROWS: Final = 1000


@dataclass(frozen=True)
class AuditRow:
    """An entry as it is stored.

    Attributes:
        text: its canonical JSON, which the hash is of.
        hash: in hexadecimal.
    """

    seq: int
    text: str
    hash: str

    @property
    def entry(self) -> AuditEntry:
        return AuditEntry.parse(self.text)


@dataclass(frozen=True)
class AuditProblem:
    """Where the chain is broken."""

    seq: int
    reason: str


class AuditLog(Store):
    """Entries are appended one at a time, and never changed or purged."""

    @writes
    def append(
        self,
        connection: sa.Connection,
        request: AuditRequest,
        client: str = "",
        principal: str = "",
    ) -> AuditEntry:
        """Append an entry; a request that was recorded before is not recorded again."""
        _lock(connection)
        known = sa.select(audit).where(audit.c.request_id == request.id)
        if (row := connection.execute(known).first()) is not None:
            return AuditEntry.parse(row.entry)
        newest = sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
        last = connection.execute(newest).first()
        entry = AuditEntry(
            seq=last.seq + 1 if last else 1,
            previous=last.hash if last else FIRST_HASH,
            salt=secrets.token_hex(16),
            client=client,
            principal=principal,
            **request.model_dump(exclude={"arguments_digest"}),
        )
        text = entry.text()
        connection.execute(
            audit.insert().values(
                seq=entry.seq, request_id=entry.id, entry=text, hash=hash_of(text)
            )
        )
        return entry

    @reads
    def page(
        self, connection: sa.Connection, after: int = 0, limit: int = PAGE_ROWS
    ) -> list[AuditRow]:
        """The entries after a number, oldest first."""
        query = sa.select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
        return [AuditRow(row.seq, row.entry, row.hash) for row in connection.execute(query)]

    @reads
    def newest(self, connection: sa.Connection, limit: int) -> list[AuditRow]:
        """The newest entries, oldest first."""
        query = sa.select(audit).order_by(audit.c.seq.desc()).limit(limit)
        rows = [AuditRow(row.seq, row.entry, row.hash) for row in connection.execute(query)]
        return rows[::-1]


class ChainVerifier:
    """Checks entries in their order; the whole log, or an export of it."""

    def __init__(self) -> None:
        self.seq = 0
        self.hash = FIRST_HASH

    def check(self, rows: list[AuditRow]) -> Iterator[AuditProblem]:
        """What is wrong with the next entries."""
        for row in rows:
            yield from (AuditProblem(row.seq, reason) for reason in self._problems(row))
            self.seq, self.hash = row.seq, row.hash

    def _problems(self, row: AuditRow) -> Iterator[str]:
        if hash_of(row.text) != row.hash:
            yield "its content was changed"
        try:
            entry = row.entry
        except ValueError:
            yield "is not an entry"
            return
        if row.seq != self.seq + 1 or entry.seq != row.seq:
            yield f"does not follow entry {self.seq}"
        if entry.previous != self.hash:
            yield "does not have the hash of the entry before it"


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lock(connection: sa.Connection) -> None:
    """Let one writer at a time read the last entry and append the next one."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE audit IN EXCLUSIVE MODE"))
