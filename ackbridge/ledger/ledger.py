"""The one door to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from ackbridge.clock import Clock
from ackbridge.contracts.batches import ParkedSelection
from ackbridge.contracts.calls import CallOutcome, CallRequest, Stage
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind, Parking, Recorded, SuppressedMessage
from ackbridge.ledger.database.transactions import Database, open_database
from ackbridge.stats.counters import Bucket
from ackbridge.stats.scorecard import Scorecard
from ackbridge.stats.totals import Observed

from . import calls, correlations, inbox, parked, responses
from . import recent_stats as reported
from . import stats as observing
from . import suppressed_log as logbook
from .batches import Batches
from .database import tables
from .notices import Notices
from .purge import Purging
from .recent_stats import Reported
from .rows import (
    CallRow,
    Claim,
    HeldEntry,
    InboxEntry,
    InboxState,
    LogKind,
    Owed,
    ParkedCall,
    ParkedCount,
    ResponseRow,
    StoredEntry,
    Unsettled,
)


class Ledger:
    """Responses, the duplicate index, correlations and the inbox, in SQLite or PostgreSQL.

    Every method is one transaction, may be repeated, and raises `LedgerUnavailable` when the
    database does not answer in time; what it wrote is then all there, or not at all. Event keys
    and references are at most 512 characters long (`Invalid` otherwise).

    Attributes:
        notices: what subscribers were told, or could not be.
        batches: which batch has taken which parked call.
        purging: forgets what is over and old.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.notices = Notices(database, clock)
        self.batches = Batches(database, clock)
        self.purging = Purging(database, clock)

    @classmethod
    def open(cls, url: str, clock: Clock, within: timedelta = timedelta(seconds=10)) -> Ledger:
        """Open a migrated ledger; the first use connects.

        Args:
            url: `sqlite:///path` or `postgresql://user:password@host/database`.
            clock: gives the times that are written.
            within: how long one transaction may take, waiting for its turn included.

        Raises:
            ConfigurationError: the URL is neither of the two databases'.
        """
        return cls(open_database(url, within), clock)

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def ping(self) -> None:
        """Find out whether the ledger answers and has its tables."""
        await self._database.read(_ping)

    # Calls

    async def claim(self, request: CallRequest, run_chain: str) -> Claim:
        """Claim a call before anything is sent; claims outlive the engine's retention.

        Args:
            request: stands for its call id; its digest tells a repeat from a reused key.
            run_chain: the id of the first run of this execution chain.
        """
        return await self._database.write(calls.claim, request, run_chain, self._clock())

    async def acknowledged(
        self,
        call_id: str,
        cycle: int,
        kind: AcknowledgementKind,
        at: datetime,
        outcome: CallOutcome | None = None,
    ) -> None:
        """The provider has accepted this acknowledgement; nothing is owed for it any more.

        Args:
            outcome: if given, the outcome of the call from now on.
        """
        await self._database.write(
            calls.acknowledged, call_id, cycle, kind, at, outcome, self._clock()
        )

    async def owe(self, call_id: str, cycle: int, kind: AcknowledgementKind, reason: str) -> None:
        """The provider has not accepted this acknowledgement yet; once it has, that stands."""
        await self._database.write(calls.owe, call_id, cycle, kind, reason, self._clock())

    async def conclude(
        self,
        call_id: str,
        stage: Stage,
        reason: str | None,
        outcome: CallOutcome | None,
        suppressed: Sequence[SuppressedMessage] = (),
        held: Sequence[ProviderMessage] = (),
        parking: Parking | None = None,
    ) -> None:
        """Keep where a call stands, log what it suppressed, and keep what it holds for people.

        Args:
            outcome: how it ended; None leaves an outcome that stands as it is.
            held: messages to keep whole in the inbox; one that waits there is held from now on,
                one that is settled stays as it is.
            parking: of a call that is parked.
        """
        await self._database.write(
            calls.conclude,
            call_id,
            stage,
            reason,
            outcome,
            suppressed,
            held,
            self._clock(),
            parking,
        )

    async def parked(self, selection: ParkedSelection, limit: int = 100) -> list[ParkedCall]:
        """The calls that a batch would take, in its order: the oldest first."""
        return await self._database.read(parked.waiting, selection, limit, self._clock())

    async def count_parked(self, selection: ParkedSelection) -> list[ParkedCount]:
        """How many calls a batch would take, by operation and reason; `at_most` does not count."""
        return await self._database.read(parked.count, selection, self._clock())

    async def owed(self, provider: str | None = None, limit: int = 100) -> list[Owed]:
        """The acknowledgements that are owed, to one provider or to all, oldest first."""
        return await self._database.read(calls.owed, provider, limit)

    async def call(self, call_id: str) -> CallRow | None:
        """What is known about a call, also when no worker can be asked."""
        return await self._database.read(calls.call, call_id)

    # References

    async def commit_reference(self, call_id: str, provider: str, reference: str) -> None:
        """Let the provider's reference stand for the call; the first wins, others are logged."""
        inbox.bounded("reference", reference)
        await self._database.write(correlations.commit, call_id, provider, reference, self._clock())

    async def find_call(self, provider: str, reference: str) -> str | None:
        """The call that a provider's reference stands for."""
        return await self._database.read(correlations.find, provider, reference)

    # Inbox

    async def keep(self, entry: InboxEntry) -> bool:
        """Keep a message; false when it was kept before, and then that one stays as it is."""
        return await self._database.write(inbox.keep, entry)

    async def waiting(
        self, provider: str, call_id: str, reference: str | None
    ) -> list[StoredEntry]:
        """Pending messages that name the call, or no call but its reference; oldest first."""
        return await self._database.read(inbox.waiting, provider, call_id, reference)

    async def due(self, older_than: timedelta, limit: int) -> list[StoredEntry]:
        """Pending messages to try again: received so long ago and not postponed; oldest first."""
        return await self._database.read(inbox.due, older_than, limit, self._clock())

    async def settle(
        self, ids: Sequence[int], state: InboxState, reason: str | None = None
    ) -> None:
        """Close messages; those delivered or found to be duplicates stay as they are."""
        await self._database.write(inbox.settle, ids, state, reason, self._clock())

    async def postpone(self, ids: Sequence[int]) -> None:
        """Try these later: after 1 s, twice as long each time, 5 minutes at the most."""
        await self._database.write(inbox.postpone, ids, self._clock())

    async def held(self, provider: str | None = None, limit: int = 100) -> list[HeldEntry]:
        """What is kept for people, of one provider or of all, oldest first."""
        return await self._database.read(inbox.held, provider, limit)

    # Responses

    async def record(
        self,
        call_id: str,
        provider: str,
        operation: str,
        cycle: int,
        message: ProviderMessage,
        outcome: CallOutcome,
        *,
        was_parked: bool = False,
    ) -> Recorded:
        """Write the response, its duplicate-index row and the outcome, and settle its inbox entry.

        The same message for the same call again is accepted and changes nothing. An event that
        was applied to another call, or a second response of this one, is refused and logged.

        Args:
            was_parked: the call is among the parked ones, and leaves them.
        """
        capture = responses.CaptureResult(
            call_id, provider, operation, cycle, message, outcome, was_parked
        )
        return await self._database.write(responses.record, capture, self._clock())

    async def is_recorded(self, provider: str, event_key: str) -> bool:
        """Whether any call has applied this event."""
        return await self._database.read(responses.is_recorded, provider, event_key)

    async def responses(self, call_id: str) -> list[ResponseRow]:
        """The response of a call: a list of one, or of none."""
        return await self._database.read(responses.of_call, call_id)

    # Observations

    async def report(self, worker: str, buckets: Sequence[Bucket]) -> None:
        """Keep what a worker has observed; each bucket takes the place of its earlier reports."""
        rows = observing.rows_of(worker, buckets, self._clock())
        await self._database.write(observing.report, rows)

    async def observed(self, provider: str, since: datetime) -> dict[str, Observed]:
        """By operation, what all workers together have observed of a provider.

        Args:
            since: the bucket in which it lies counts as a whole: 10 s up to a quarter of an hour
                back, 5 minutes up to a day back, which is as long as they are kept.

        Returns:
            Observations of the provider as a whole, such as its health, stand under "".
        """
        return await self._database.read(observing.observed, provider, since, self._clock())

    async def scorecard(
        self, provider: str, since: datetime, snapshot: ControlSnapshot | None = None
    ) -> Scorecard:
        """How a provider and its operations have done, by what all workers have observed.

        Args:
            since: as of `observed`.
            snapshot: what the provider's control publishes, for the breaker and the deadlines.
        """
        return await self._database.read(observing.score, provider, since, snapshot, self._clock())

    async def reported(self, provider: str, since: datetime) -> list[Reported]:
        """What workers have counted lately, each report by itself, without any times.

        Args:
            since: a quarter of an hour ago at the most; its bucket of 10 s counts as a whole.
        """
        return await self._database.read(reported.reported, provider, since)

    async def observed_providers(self, since: datetime) -> list[str]:
        """The providers of which anything has been observed, sorted."""
        return await self._database.read(observing.observed_providers, since)

    async def forget_observations(self) -> None:
        """Delete the observations that are older than they are kept."""
        await self._database.write(observing.forget, self._clock())

    async def standing(self, provider: str) -> dict[str, Unsettled]:
        """By operation, how much is parked and owed now; operations with neither are left out."""
        return await self._database.read(observing.unsettled, provider)

    # The log

    async def suppress(
        self, provider: str, event_key: str, call_id: str | None, reason: str
    ) -> None:
        """Log a message that changed nothing; a repeat counts up."""
        entry = logbook.LogEntry(LogKind.SUPPRESSED, provider, event_key, call_id, reason)
        await self._database.write(logbook.count, entry, self._clock())

    async def counts(self) -> dict[str, int]:
        """How many there are of each.

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
    pending = tables.inbox.c.state == InboxState.PENDING
    queries = {
        "calls": sa.select(every).select_from(tables.calls),
        "responses": sa.select(every).select_from(tables.responses),
        "suppressed": sa.select(suppressed).where(tables.log.c.kind == LogKind.SUPPRESSED),
        "inbox_pending": sa.select(every).select_from(tables.inbox).where(pending),
        "acknowledgements_owed": sa.select(every)
        .select_from(tables.acknowledgements)
        .where(tables.acknowledgements.c.is_owed),
    }
    row = connection.execute(
        sa.select(*(query.scalar_subquery().label(name) for name, query in queries.items()))
    ).one()
    return {name: int(value) for name, value in zip(queries, row, strict=True)}
