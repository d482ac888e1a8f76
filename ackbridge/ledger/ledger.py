"""The façade of the ledger."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from ackbridge.clock import Clock
from ackbridge.security.encryption import Encryption

from .audit import AuditLog
from .batches import BatchStore
from .bodies import BodyStore, ObjectStore
from .call_events import CallEventStore
from .calls import CallStore
from .controls import ControlStore
from .database import tables
from .database.engines import Database, open_database
from .inbox import Inbox, InboxState, LogKind
from .leases import LeaseStore
from .notices import NoticeStore
from .purge import LedgerPurge
from .reencryption import Reencryption
from .settlement import SettlementStore
from .stats import StatsStore


class Ledger:
    """Calls, messages, notices and statistics, in SQLite or PostgreSQL.

    Every method of its parts is one transaction, may be repeated, and raises
    `LedgerUnavailableError` when the database does not answer in time: everything it wrote is then
    committed, or nothing. Keys and references have at most 512 characters (`InvalidInputError`
    otherwise). Every time is aware, in UTC.

    Attributes:
        calls: claims, references, responses, acknowledgements and outcomes.
        call_events: what pages show of calls.
        settlement: unknown effects, and what operators state about calls.
        inbox: messages that could not be delivered yet, and the log of suppressed ones.
        bodies: large bodies of providers, which messages refer to.
        batches: parked calls, and the batches that reprocess them.
        notices: notices to subscribers.
        stats: statistics of providers, and the rates that they accept.
        controls: the last snapshots of the providers' controls.
        leases: which requests are in flight, where a provider limits how many.
        audit: what operators did.
        purge: deletes what has expired.
        reencryption: encrypts rows with the key that encrypts now.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        encryption: Encryption | None = None,
        objects: ObjectStore | None = None,
    ) -> None:
        self._database = database
        self._objects = objects
        self.calls = CallStore(database, clock)
        self.call_events = CallEventStore(database, clock)
        self.settlement = SettlementStore(database, clock)
        self.inbox = Inbox(database, clock)
        self.bodies = BodyStore(database, clock, objects, encryption)
        self.batches = BatchStore(database, clock)
        self.notices = NoticeStore(database, clock)
        self.stats = StatsStore(database, clock)
        self.controls = ControlStore(database, clock)
        self.leases = LeaseStore(database, clock)
        self.audit = AuditLog(database, clock)
        self.purge = LedgerPurge(database, clock, objects)
        self.reencryption = Reencryption(database, clock)

    @classmethod
    def open(
        cls,
        url: str,
        clock: Clock,
        timeout: timedelta = timedelta(seconds=10),
        encryption: Encryption | None = None,
        objects: ObjectStore | None = None,
    ) -> Ledger:
        """Open a migrated ledger; the first use connects.

        Args:
            url: `sqlite:///path` or `postgresql://user:password@host/database`.
            clock: gives the times that are written.
            timeout: of one transaction, including the wait for its turn.
            encryption: of what callers and providers have written; None: it is stored in plain.
            objects: where large bodies are stored; None: in the database.

        Raises:
            ConfigurationError: the URL is of neither database.
        """
        return cls(open_database(url, timeout, encryption), clock, encryption, objects)

    async def close(self) -> None:
        """Close all connections, also those of the object store."""
        await self._database.close()
        if self._objects is not None:
            await self._objects.aclose()

    async def ping(self) -> None:
        """Check that the database answers and has its tables."""
        await self._database.read(_ping)

    async def counts(self) -> dict[str, int]:
        """The number of rows.

        Returns:
            `calls`, `responses`, `suppressed` (messages, repeats included), `inbox_pending` and
            `acknowledgements_owed`.
        """
        return await self._database.read(_counts)


def _ping(connection: sa.Connection) -> None:
    connection.execute(sa.select(sa.literal(1)).select_from(tables.calls).limit(1))


def _counts(connection: sa.Connection) -> dict[str, int]:
    every = sa.func.count()
    suppressed = sa.func.coalesce(sa.func.sum(tables.log.c.times), 0)
    is_pending = tables.inbox.c.state == InboxState.PENDING
    queries = {
        "calls": sa.select(every).select_from(tables.calls),
        "responses": sa.select(every).select_from(tables.responses),
        "suppressed": sa.select(suppressed).where(tables.log.c.kind == LogKind.SUPPRESSED),
        "inbox_pending": sa.select(every).select_from(tables.inbox).where(is_pending),
        "acknowledgements_owed": sa.select(every)
        .select_from(tables.acknowledgements)
        .where(tables.acknowledgements.c.is_owed),
    }
    row = connection.execute(
        sa.select(*(query.scalar_subquery().label(name) for name, query in queries.items()))
    ).one()
    return {name: int(value) for name, value in zip(queries, row, strict=True)}
