"""The ledger's tables. Each change here needs a revision in `migrations/versions`; a test compares.

There are no foreign keys: several processes write the rows of one call in any order, and a message
is stored even when its call is not known.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

_UNSTORABLE = re.compile("[\\\\\x00\ud800-\udfff]")


class Key(TypeDecorator[str]):
    """Any text that a provider may use as an id.

    JSON texts may hold NUL and lone surrogates, which no database stores as text. They are stored
    escaped; a backslash marks an escaped value, so that two keys are never stored as one.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 -- SQLAlchemy's signature
        if value is None or not _UNSTORABLE.search(value):
            return value
        return value.encode("unicode_escape").decode("ascii")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 -- SQLAlchemy's signature
        if value is None or "\\" not in value:
            return value
        return value.encode("ascii").decode("unicode_escape")


class UtcTime(TypeDecorator[datetime]):
    """An aware time. SQLite has no time zones: there it is stored as UTC, without one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger stores aware times only")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 -- SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("call_id", Key, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Column("run_chain", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("reason", Key),
    sa.Column("outcome", sa.JSON(none_as_null=True)),
    # As in the outcome; of a parked call, what is known so far.
    sa.Column("effect", sa.Text),
    sa.Column("code", sa.Text),
    sa.Column("provider_code", Key),
    # A decimal number.
    sa.Column("amount", sa.Text),
    sa.Column("unknown_since", UtcTime),
    sa.Column("settled_by", Key),
    sa.Column("claimed_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    # Statistics count parked calls by it.
    sa.Index(None, "stage", "provider"),
    # Partial: calls without an unknown effect do not pay for it.
    sa.Index(
        None,
        "unknown_since",
        postgresql_where=sa.text("unknown_since IS NOT NULL"),
        sqlite_where=sa.text("unknown_since IS NOT NULL"),
    ),
)

correlations = sa.Table(
    "correlations",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("reference", Key, primary_key=True),
    sa.Column("call_id", Key, nullable=False),
    sa.Column("committed_at", UtcTime, nullable=False),
    sa.Index(None, "call_id"),
)

responses = sa.Table(
    "responses",
    metadata,
    sa.Column("call_id", Key, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("cycle", sa.Integer, nullable=False),
    sa.Column("event_key", Key, nullable=False),
    sa.Column("data", sa.JSON),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("received_at", UtcTime),
    sa.Column("recorded_at", UtcTime, nullable=False),
)

event_keys = sa.Table(
    "event_keys",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("event_key", Key, primary_key=True),
    sa.Column("call_id", Key, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    comment="The duplicate index: which call has applied which event.",
)

bodies = sa.Table(
    "bodies",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("call_id", Key, nullable=False),
    sa.Column("name", Key, nullable=False),
    sa.Column("content_type", Key, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("stored_at", UtcTime, nullable=False),
    sa.Index(None, "call_id"),
    comment="Bodies that are too large for the engine, which messages refer to.",
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("event_key", Key, nullable=False),
    sa.Column("operation", sa.Text),
    sa.Column("call_id", Key),
    sa.Column("reference", Key),
    sa.Column("message", sa.JSON(none_as_null=True)),
    sa.Column("document", sa.JSON(none_as_null=True)),
    sa.Column("received_at", UtcTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", Key),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try_at", UtcTime, nullable=False),
    sa.Column("settled_at", UtcTime),
    # Of an event for a subscriber: its name in the file, and what it is about.
    sa.Column("event", sa.Text),
    sa.Column("object", Key),
    sa.UniqueConstraint("provider", "event_key"),
    sa.Index(None, "provider", "call_id"),
    sa.Index(None, "provider", "reference"),
    sa.Index(None, "state", "next_try_at"),
    # Partial: messages for calls do not pay for it.
    sa.Index(
        None,
        "provider",
        "object",
        postgresql_where=sa.text("object IS NOT NULL"),
        sqlite_where=sa.text("object IS NOT NULL"),
    ),
    # Nobody reads the id of a new row; it is read with the entry.
    implicit_returning=False,
)

coverage = sa.Table(
    "coverage",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("covered_until", UtcTime, nullable=False),
    comment="Until when a gateway was there for the callbacks of a provider that lists its events.",
)

acknowledgements = sa.Table(
    "acknowledgements",
    metadata,
    sa.Column("call_id", Key, primary_key=True),
    sa.Column("cycle", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("is_owed", sa.Boolean, nullable=False),
    sa.Column("refused", sa.Boolean, nullable=False, default=False),
    sa.Column("reason", Key),
    sa.Column("owed_at", UtcTime),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("written_off_by", Key),
    sa.Column("written_off_reason", Key),
    sa.Index(None, "is_owed"),
)

log = sa.Table(
    "log",
    metadata,
    sa.Column("fingerprint", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("subject", Key, nullable=False),
    sa.Column("call_id", Key),
    sa.Column("reason", Key, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("first_at", UtcTime, nullable=False),
    sa.Column("last_at", UtcTime, nullable=False),
    sa.Index(None, "call_id"),
    comment="What was not applied, and why; `subject` is the event key or the reference.",
)

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("event_id", Key, primary_key=True),
    sa.Column("subscriber", sa.Text, nullable=False),
    sa.Column("call_id", Key, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", Key),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("happened_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("settled_at", UtcTime),
    sa.Index(None, "state", "subscriber"),
    sa.Index(None, "call_id"),
)

parked = sa.Table(
    "parked",
    metadata,
    sa.Column("call_id", Key, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("key", Key, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("parked_at", UtcTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("batch", sa.Text),
    sa.Column("taken_at", UtcTime),
    # How often it has failed again while other calls were answered.
    sa.Column("failures", sa.Integer, nullable=False),
    # In the order in which batches claim them.
    sa.Index(None, "provider", "state", "parked_at", "call_id"),
    comment="Calls that are parked, or were when they were taken up again and have not ended.",
)

batch_calls = sa.Table(
    "batch_calls",
    metadata,
    sa.Column("batch", sa.Text, primary_key=True),
    sa.Column("call_id", Key, primary_key=True),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("marked_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Index(None, "batch", "state"),
    comment="Which batch has taken which call: none takes one twice.",
)

observations = sa.Table(
    "observations",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("width", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("begun_at", UtcTime, primary_key=True),
    sa.Column("operation", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("observed", sa.JSON, nullable=False),
    sa.Column("reported_at", UtcTime, nullable=False),
    sa.Index(None, "width", "begun_at"),
    comment="What one worker has observed of an operation, for `width` seconds.",
)

quota_reports = sa.Table(
    "quota_reports",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("tenant", Key, primary_key=True),
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("report", sa.JSON, nullable=False),
    sa.Column("reported_at", UtcTime, nullable=False),
    comment="What one worker knows of the quota of a provider that has rejected requests.",
)

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("tenant", Key, primary_key=True),
    sa.Column("status", sa.JSON, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    comment="The rates that providers turned out to accept, as they are now.",
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("holder", Key, primary_key=True),
    sa.Column("tenant", Key, nullable=False),
    sa.Column("call_id", Key, nullable=False),
    sa.Column("waits_since", UtcTime, nullable=False),
    sa.Column("acquired_at", UtcTime),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Index(None, "provider", "acquired_at", "waits_since"),
    comment="Requests that are in flight, and those that wait (`acquired_at` is null), where a"
    " provider limits how many there are at once.",
)

controls = sa.Table(
    "controls",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Column("snapshot", sa.JSON, nullable=False),
    comment="Copies of the controls' snapshots, for workers that cannot ask the engine.",
)
