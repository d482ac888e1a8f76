"""The inbox: messages that could not be delivered yet; and the log of what was suppressed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Effect
from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.wire import InvalidInputError

from .database.engines import Store, insert_new, reads, upsert, writes
from .database.tables import calls, coverage, inbox, log, responses

FIRST_BACKOFF: Final = timedelta(seconds=1)
MAX_BACKOFF: Final = timedelta(minutes=5)
NOTHING_NEW: Final = "it says what is known already"

MAX_EVENTS: Final = 100
"""Events of one object that are forwarded at once."""


class InboxState(StrEnum):
    """The state of an inbox entry; DELIVERED, DUPLICATE and DISCARDED are final.

    Attributes:
        PENDING: waits for its call, or for the engine.
        UNCLASSIFIED: no rule of its provider says what it means; kept whole, can be replayed.
        DELIVERED: its call has received it, or an operator has applied it.
        HELD: no call can accept it, and it may change what is known; it waits for an operator.
        DUPLICATE: it says nothing new.
        DISCARDED: an operator has discarded it.
    """

    PENDING = "pending"
    UNCLASSIFIED = "unclassified"
    DELIVERED = "delivered"
    HELD = "held"
    DUPLICATE = "duplicate"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class InboxEntry:
    """A provider's message that could not be delivered yet.

    Attributes:
        provider, event_key: which message; unique together.
        operation, call_id, reference: what it was matched by, as far as is known.
        message: its content, once its operation is known.
        document: the JSON document to classify once the operation is known.
        event: of an event that is for no call, its name in the provider's file.
        object: what such an event is about.
    """

    provider: str
    event_key: str
    operation: str | None
    call_id: str | None
    reference: str | None
    message: ProviderMessage | None
    document: Any | None
    received_at: datetime
    event: str | None = None
    object: str | None = None


@dataclass(frozen=True)
class StoredEntry:
    """An inbox entry with the id of its row.

    Attributes:
        attempts: how often its delivery was postponed.
        reason: why it is in its state, such as why no call accepts it.
        settled_at: since when; None while it is pending.
    """

    id: int
    entry: InboxEntry
    attempts: int
    state: InboxState
    reason: str | None
    settled_at: datetime | None


class LogKind(StrEnum):
    """Why something was logged instead of applied."""

    SUPPRESSED = "suppressed"
    REFERENCE_CONFLICT = "reference_conflict"


@dataclass(frozen=True)
class LogEntry:
    """An entry of the suppressed log; `subject` is an event key or a reference."""

    kind: LogKind
    provider: str
    subject: str
    call_id: str | None
    reason: str

    @property
    def fingerprint(self) -> str:
        """The key of the entry: a digest, because reasons are too long for an index."""
        fields = [self.kind, self.provider, self.subject, self.call_id, self.reason]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


class Inbox(Store):
    """Messages that wait for their call, for the engine, or for an operator."""

    @writes
    def store(self, connection: sa.Connection, entry: InboxEntry) -> bool:
        """Store a message to deliver.

        Returns:
            False if it was stored before; then that entry does not change.

        Raises:
            InvalidInputError: its event key or reference is too long.
        """
        return insert_new(connection, inbox, _row(entry))

    @writes
    def store_unclassified(self, connection: sa.Connection, entry: InboxEntry, reason: str) -> bool:
        """Store a message that no rule classifies; otherwise as `store`.

        Args:
            reason: why it is not classified.
        """
        settled = {"state": InboxState.UNCLASSIFIED, "settled_at": self.clock()}
        return insert_new(connection, inbox, _row(entry) | settled | {"reason": reason})

    @reads
    def look(
        self, connection: sa.Connection, call_id: str, provider: str, references: Sequence[str]
    ) -> list[StoredEntry]:
        """The messages that a call has not received: all with its id, or its references; by age.

        Those with a reference and no call id may have been held before the reference was known.
        """
        key = {"whose": provider, "which": call_id, "known_as": list(references)}
        return [_stored(row) for row in connection.execute(_OF_CALL, key).mappings()]

    @reads
    def due(
        self, connection: sa.Connection, older_than: timedelta, limit: int
    ) -> list[StoredEntry]:
        """Pending messages to retry, at least this old and not postponed; oldest first."""
        now = self.clock()
        conditions = (inbox.c.next_try_at <= now, inbox.c.received_at <= now - older_than)
        rows = connection.execute(_PENDING.where(*conditions).limit(limit))
        return [_stored(row) for row in rows.mappings()]

    async def held(self, provider: str | None = None, limit: int = 100) -> list[StoredEntry]:
        """The messages that wait for an operator, of one provider or of all, oldest first."""
        return await self.entries(provider, InboxState.HELD, limit)

    @reads
    def entries(
        self,
        connection: sa.Connection,
        provider: str | None = None,
        state: InboxState | None = None,
        limit: int = 100,
    ) -> list[StoredEntry]:
        """The messages of one provider or of all, in one state or in any, oldest first."""
        query = sa.select(inbox)
        if provider is not None:
            query = query.where(inbox.c.provider == provider)
        if state is not None:
            query = query.where(inbox.c.state == state)
        age = sa.func.coalesce(inbox.c.settled_at, inbox.c.received_at)
        rows = connection.execute(query.order_by(age, inbox.c.id).limit(limit))
        return [_stored(row) for row in rows.mappings()]

    @reads
    def held_entry(self, connection: sa.Connection, entry_id: int) -> StoredEntry | None:
        """The message with this id, if it waits for an operator."""
        return find_held(connection, entry_id)

    @writes
    def discard_held(self, connection: sa.Connection, entry_id: int, by: str, reason: str) -> bool:
        """An operator discards a held message.

        Returns:
            False if no such message is held.
        """
        if find_held(connection, entry_id) is None:
            return False
        why = f"discarded by {by}: {reason}"
        _settle(connection, [entry_id], InboxState.DISCARDED, why, self.clock())
        return True

    @writes
    def replay(
        self, connection: sa.Connection, ids: Sequence[int], by: str, reason: str
    ) -> list[int]:
        """Classify and deliver messages again that are unclassified or held.

        Args:
            by, reason: who requests it and why; kept as the reason of the entries.

        Returns:
            The ids of those that are pending now.
        """
        replayable = sa.and_(
            inbox.c.id.in_(ids), inbox.c.state.in_([InboxState.UNCLASSIFIED, InboxState.HELD])
        )
        query = sa.select(inbox.c.id).where(replayable).order_by(inbox.c.id).with_for_update()
        known = list(connection.execute(query).scalars())
        values = {
            "state": InboxState.PENDING,
            "reason": f"replayed by {by}: {reason}",
            "attempts": 0,
            "next_try_at": self.clock(),
            "settled_at": None,
        }
        connection.execute(inbox.update().where(inbox.c.id.in_(known)).values(values))
        return known

    @writes
    def settle(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        state: InboxState,
        reason: str | None = None,
    ) -> None:
        """Set the state of entries; those in a final state do not change.

        Of those to be held, the ones that say nothing new become duplicates.
        """
        now = self.clock()
        if state is InboxState.HELD:
            rows = connection.execute(sa.select(inbox).where(inbox.c.id.in_(ids))).mappings()
            repeats = [row["id"] for row in rows if _is_repeat(connection, _entry(row))]
            _settle(connection, repeats, InboxState.DUPLICATE, NOTHING_NEW, now)
            ids = [one for one in ids if one not in repeats]
        _settle(connection, ids, state, reason, now)

    @writes
    def mark_event(
        self,
        connection: sa.Connection,
        provider: str,
        event_key: str,
        event: str,
        about: str | None,
    ) -> None:
        """A pending message is for no call, but an event to forward.

        Args:
            event: its name in the provider's file.
            about: the object of the event.
        """
        which = sa.and_(
            inbox.c.provider == provider,
            inbox.c.event_key == event_key,
            inbox.c.state == InboxState.PENDING,
        )
        values = {"event": event, "object": about, "message": None, "operation": None}
        connection.execute(inbox.update().where(which).values(values))

    @reads
    def pending_events(
        self, connection: sa.Connection, provider: str, event_key: str, about: str | None
    ) -> list[StoredEntry]:
        """The events to forward of an object, or else the one with this key; oldest first."""
        which = inbox.c.event_key == event_key if about is None else inbox.c.object == about
        query = _PENDING.where(inbox.c.provider == provider, inbox.c.event.is_not(None), which)
        rows = connection.execute(query.order_by(None).order_by(inbox.c.id).limit(MAX_EVENTS))
        return [_stored(row) for row in rows.mappings()]

    @reads
    def event_document(self, connection: sa.Connection, provider: str, event_key: str) -> Any:
        """The document of an event; None if it is not stored any more."""
        query = sa.select(inbox.c.document).where(
            inbox.c.provider == provider, inbox.c.event_key == event_key
        )
        return connection.execute(query).scalar_one_or_none()

    @writes
    def hold_event(
        self, connection: sa.Connection, provider: str, event_key: str, reason: str
    ) -> None:
        """Hold an event that was forwarded, and of which nothing came."""
        which = sa.and_(inbox.c.provider == provider, inbox.c.event_key == event_key)
        values = {"state": InboxState.HELD, "reason": reason, "settled_at": self.clock()}
        connection.execute(inbox.update().where(which).values(values))

    @writes
    def hold_message(
        self, connection: sa.Connection, call_id: str, message: ProviderMessage, reason: str
    ) -> None:
        """Hold a message that its call can no longer take, and log it."""
        now = self.clock()
        provider, _, _ = names.split_call_id(call_id)
        entry = LogEntry(LogKind.SUPPRESSED, provider, message.event_key, call_id, reason)
        log_at_least(connection, entry, now)
        hold(connection, call_id, message, reason, now)

    @reads
    def covered_until(self, connection: sa.Connection, provider: str) -> datetime | None:
        """Until when a gateway was there for a provider's callbacks; None: never."""
        query = sa.select(coverage.c.covered_until).where(coverage.c.provider == provider)
        found: datetime | None = connection.execute(query).scalar_one_or_none()
        return found

    @writes
    def cover(self, connection: sa.Connection, provider: str, until: datetime) -> None:
        """A gateway is there for a provider's callbacks, or what was missed is being listed."""
        row = {"provider": provider, "covered_until": until}
        statement = upsert(connection.dialect.name, coverage).values(row)
        later = coverage.c.covered_until < statement.excluded.covered_until
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[coverage.c.provider], set_={"covered_until": until}, where=later
            )
        )

    @writes
    def postpone(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        """Retry entries later: after 1 s, twice as long each time, at most 5 minutes."""
        query = sa.select(inbox.c.id, inbox.c.attempts).where(inbox.c.id.in_(ids))
        now = self.clock()
        rows: list[dict[str, Any]] = [
            {
                "row": row.id,
                "attempts": row.attempts + 1,
                "next_try_at": now + _backoff(row.attempts),
            }
            for row in connection.execute(query)
        ]
        if rows:
            connection.execute(inbox.update().where(inbox.c.id == sa.bindparam("row")), rows)

    @writes
    def log_suppressed(
        self,
        connection: sa.Connection,
        provider: str,
        event_key: str,
        call_id: str | None,
        reason: str,
    ) -> None:
        """Log a message that changed nothing; a repeat increments its count."""
        entry = LogEntry(LogKind.SUPPRESSED, provider, event_key, call_id, reason)
        _log(connection, entry, self.clock(), 1, log.c.times + 1)


def hold(
    connection: sa.Connection, call_id: str, message: ProviderMessage, reason: str, now: datetime
) -> None:
    """Hold a message for operators, also one that is pending, or was delivered to its call in vain.

    One that says nothing new is stored as a duplicate; what else is settled does not change.
    """
    provider, operation, _ = names.split_call_id(call_id)
    entry = InboxEntry(
        provider=provider,
        event_key=message.event_key,
        operation=operation,
        call_id=call_id,
        reference=message.reference,
        message=message,
        document=None,
        received_at=message.received_at or now,
    )
    state, replaced = InboxState.HELD, [InboxState.PENDING, InboxState.DELIVERED]
    if _is_repeat(connection, entry):
        state, reason, replaced = InboxState.DUPLICATE, NOTHING_NEW, [InboxState.PENDING]
    row = _row(entry) | {"state": state, "reason": reason, "settled_at": now}
    statement = upsert(connection.dialect.name, inbox).values(row)
    # The call has classified it by now; the row of a pending one may lack that.
    known = ("operation", "call_id", "message", "state", "reason", "settled_at")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[inbox.c.provider, inbox.c.event_key],
            set_={name: statement.excluded[name] for name in known},
            where=inbox.c.state.in_(replaced),
        )
    )


def find_held(connection: sa.Connection, entry_id: int) -> StoredEntry | None:
    """The message with this id, locked, if it waits for an operator."""
    query = sa.select(inbox).where(inbox.c.id == entry_id, inbox.c.state == InboxState.HELD)
    row = connection.execute(query.with_for_update()).mappings().one_or_none()
    return None if row is None else _stored(row)


def _settle(
    connection: sa.Connection,
    ids: Sequence[int],
    state: InboxState,
    reason: str | None,
    now: datetime,
) -> None:
    values: dict[str, Any] = {"state": state, "settled_at": now}
    if reason is not None:
        values["reason"] = reason
    connection.execute(
        inbox.update().where(inbox.c.id.in_(ids), inbox.c.state.in_(_UNSETTLED)).values(values)
    )


def _is_repeat(connection: sa.Connection, entry: InboxEntry) -> bool:
    """Whether a message agrees with what is known of its call, so that nobody has to look at it."""
    if entry.call_id is None or entry.message is None:
        return False
    row = connection.execute(_KNOWN_OF_CALL, {"which": entry.call_id}).one_or_none()
    if row is None or row.outcome is None:
        return False
    outcome, message = CallOutcome.model_validate(row.outcome), entry.message
    if message.event_key == row.event_key:
        return True
    match message.kind, outcome.effect:
        case MessageKind.EXTENSION | MessageKind.DOORBELL, Effect.NONE | Effect.DONE:
            return True
        case MessageKind.FAILURE, Effect.NONE:
            return True
        case MessageKind.RESPONSE, Effect.DONE:
            # Another reference is other work, which nobody awaits.
            is_same_work = message.reference is None or message.reference == outcome.reference
            return row.event_key is not None and (message.data == row.data or is_same_work)
        case _:
            return False


def mark_delivered(connection: sa.Connection, provider: str, event_key: str, now: datetime) -> None:
    """The event was applied: it needs no delivery any more."""
    row = {"which": event_key, "whose": provider, "state": InboxState.DELIVERED, "settled_at": now}
    connection.execute(_MARK_DELIVERED, row)


def log_at_least(connection: sa.Connection, entry: LogEntry, now: datetime, times: int = 1) -> None:
    """Log that something happened at least this many times; for steps that may run twice."""
    _log(connection, entry, now, times, sa.case((log.c.times < times, times), else_=log.c.times))


def check_length(field: str, key: str) -> str:
    """A provider's key or reference.

    Raises:
        InvalidInputError: it is longer than the ledger's indexes take.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidInputError(
            f"{field}: {len(key)} characters, at most {MAX_KEY_LENGTH} are allowed"
        )
    return key


def _log(
    connection: sa.Connection,
    entry: LogEntry,
    now: datetime,
    times: int,
    repeated: sa.ColumnElement[int],
) -> None:
    statement = upsert(connection.dialect.name, log).values(
        fingerprint=entry.fingerprint, **asdict(entry), times=times, first_at=now, last_at=now
    )
    repeat: Mapping[str, Any] = {"times": repeated, "last_at": now}
    connection.execute(
        statement.on_conflict_do_update(index_elements=[log.c.fingerprint], set_=repeat)
    )


def _row(entry: InboxEntry) -> dict[str, Any]:
    check_length("event_key", entry.event_key)
    if entry.reference is not None:
        check_length("reference", entry.reference)
    return {
        **vars(entry),
        "message": entry.message and entry.message.model_dump(mode="json"),
        "state": InboxState.PENDING,
        "attempts": 0,
        "next_try_at": entry.received_at,
    }


def _stored(row: sa.RowMapping) -> StoredEntry:
    return StoredEntry(
        row["id"],
        _entry(row),
        row["attempts"],
        InboxState(row["state"]),
        row["reason"],
        row["settled_at"],
    )


def _entry(row: sa.RowMapping) -> InboxEntry:
    known = {field.name: row[field.name] for field in fields(InboxEntry)}
    message = row["message"] and ProviderMessage.model_validate(row["message"])
    return InboxEntry(**known | {"message": message})


def _backoff(attempts: int) -> timedelta:
    # Bounded before it is computed: 2 ** attempts would overflow a timedelta within hours.
    doubled: int = 2 ** min(attempts, 16)
    return min(FIRST_BACKOFF * doubled, MAX_BACKOFF)


_UNSETTLED = (InboxState.PENDING.value, InboxState.HELD.value)
_PENDING = (
    sa.select(inbox)
    .where(inbox.c.state == InboxState.PENDING)
    .order_by(inbox.c.received_at, inbox.c.id)
)

# Every call executes these statements: building one costs as much as executing it.

# A message with a call id belongs to that call only, whatever reference it has.
_OF_CALL = (
    sa.select(inbox)
    .where(
        inbox.c.provider == sa.bindparam("whose"),
        (
            (inbox.c.call_id == sa.bindparam("which"))
            & (inbox.c.state == sa.literal(InboxState.PENDING))
        )
        | (
            inbox.c.call_id.is_(None)
            & inbox.c.reference.in_(sa.bindparam("known_as", expanding=True))
            & inbox.c.state.in_(_UNSETTLED)
        ),
    )
    .order_by(inbox.c.received_at, inbox.c.id)
)

_KNOWN_OF_CALL = (
    sa.select(calls.c.outcome, responses.c.event_key, responses.c.data)
    .join_from(calls, responses, responses.c.call_id == calls.c.call_id, isouter=True)
    .where(calls.c.call_id == sa.bindparam("which"))
)

_MARK_DELIVERED = inbox.update().where(
    inbox.c.provider == sa.bindparam("whose"),
    inbox.c.event_key == sa.bindparam("which"),
    inbox.c.state.in_(_UNSETTLED),
)
