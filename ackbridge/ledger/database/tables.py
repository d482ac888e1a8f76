"""The ledger's tables. Each change here needs a revision in `migrations/versions`; a test compares.

There are no foreign keys: several processes write the rows of one call in any order, and a message
is stored even when its call is not known.

What callers and providers have written is in encrypted columns: payloads, responses, messages,
notices, and reasons, which quote providers. Ids, keys, references, codes and times are plain:
they are searched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ackbridge.errors import ConfigurationError
from ackbridge.security.encryption import Encryption

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


# How encrypted values are told from plain ones, which a provider may have written.
_SEALED: Final = "$sealed"
_PLAIN: Final = "$plain"
_SEALED_TEXT: Final = "\\e"
_SEALED_BYTES: Final = b"\x00E"
_PLAIN_BYTES: Final = b"\x00P"

_encryptions: WeakKeyDictionary[sa.Dialect, Encryption] = WeakKeyDictionary()


def encrypt_columns(dialect: sa.Dialect, encryption: Encryption | None) -> None:
    """Encrypt what is written to encrypted columns through the engine of this dialect.

    Without an encryption it is written as it is. Plain values are read in either case.
    """
    if encryption is not None:
        _encryptions[dialect] = encryption


def _encrypt(plain: bytes, context: str, encryption: Encryption) -> bytes:
    if not encryption.is_ready():
        _fetch_key(encryption, None)
    return encryption.encrypt(plain, context)


def _decrypt(sealed: bytes, context: str, dialect: sa.Dialect) -> bytes:
    encryption = _encryptions.get(dialect)
    if encryption is None:
        raise ConfigurationError(
            f"{context} of the ledger is encrypted, and this process has no keys:"
            " set ACKBRIDGE_ENCRYPTION_KEYS as for the workers"
        )
    if not encryption.is_ready(sealed):
        _fetch_key(encryption, sealed)
    return encryption.decrypt(sealed, context)


def _fetch_key(encryption: Encryption, sealed: bytes | None) -> None:
    """Ask the key service for a data key, outside the event loop."""
    if in_greenlet():
        await_only(asyncio.to_thread(encryption.fetch_key, sealed))
    else:
        encryption.fetch_key(sealed)


class Encrypted:
    """A column type that encrypts."""

    def stored_as(self) -> sa.types.TypeEngine[Any]:
        """The type of what is in the database."""
        raise NotImplementedError

    def sealed_in(self, stored: Any) -> bytes | None:
        """The encrypted bytes in a value as it is stored; None: it is plain."""
        raise NotImplementedError


def is_current(column_type: Encrypted, stored: Any, dialect: sa.Dialect) -> bool:
    """Whether a value as it is stored is encrypted with the key that encrypts now, or NULL."""
    encryption, sealed = _encryptions.get(dialect), column_type.sealed_in(stored)
    if stored is None or encryption is None:
        return True
    return sealed is not None and encryption.is_current(sealed)


class EncryptedJson(Encrypted, TypeDecorator[Any]):
    """A JSON value. Its context is its table and column, which are authenticated with it."""

    impl = sa.JSON
    cache_ok = True

    def __init__(self, context: str, *, none_as_null: bool = False) -> None:
        super().__init__(none_as_null=none_as_null)
        self.context = context
        self.none_as_null = none_as_null

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if encryption := _encryptions.get(dialect):
            sealed = _encrypt(json_text(value).encode(), self.context, encryption)
            return {_SEALED: base64.b64encode(sealed).decode()}
        return {_PLAIN: value} if _is_marked(value) else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        if not _is_marked(value):
            return value
        if _PLAIN in value:
            return value[_PLAIN]
        return json.loads(_decrypt(base64.b64decode(value[_SEALED]), self.context, dialect))

    def stored_as(self) -> sa.types.TypeEngine[Any]:
        return sa.JSON()

    def sealed_in(self, stored: Any) -> bytes | None:
        is_sealed = isinstance(stored, dict) and stored.keys() == {_SEALED}
        return base64.b64decode(stored[_SEALED]) if is_sealed else None


class EncryptedText(Encrypted, Key):
    """A text that is only shown, as `EncryptedJson`."""

    cache_ok = True

    def __init__(self, context: str) -> None:
        super().__init__()
        self.context = context

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        escaped = super().process_bind_param(value, dialect)
        encryption = _encryptions.get(dialect)
        if escaped is None or encryption is None:
            return escaped
        sealed = _encrypt(escaped.encode(), self.context, encryption)
        # No escaped text begins so: a backslash of the text itself is doubled.
        return _SEALED_TEXT + base64.b64encode(sealed).decode()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is not None and value.startswith(_SEALED_TEXT):
            sealed = base64.b64decode(value.removeprefix(_SEALED_TEXT))
            value = _decrypt(sealed, self.context, dialect).decode()
        return super().process_result_value(value, dialect)

    def stored_as(self) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def sealed_in(self, stored: Any) -> bytes | None:
        is_sealed = stored is not None and stored.startswith(_SEALED_TEXT)
        return base64.b64decode(stored.removeprefix(_SEALED_TEXT)) if is_sealed else None


class EncryptedBytes(Encrypted, TypeDecorator[bytes]):
    """Bytes, as `EncryptedJson`."""

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, context: str) -> None:
        super().__init__()
        self.context = context

    def process_bind_param(self, value: bytes | None, dialect: sa.Dialect) -> bytes | None:
        if value is None:
            return None
        if encryption := _encryptions.get(dialect):
            return _SEALED_BYTES + _encrypt(value, self.context, encryption)
        return _PLAIN_BYTES + value if value.startswith((_SEALED_BYTES, _PLAIN_BYTES)) else value

    def process_result_value(self, value: bytes | None, dialect: sa.Dialect) -> bytes | None:
        if value is None or not value.startswith((_SEALED_BYTES, _PLAIN_BYTES)):
            return value
        if value.startswith(_PLAIN_BYTES):
            return value.removeprefix(_PLAIN_BYTES)
        return _decrypt(value.removeprefix(_SEALED_BYTES), self.context, dialect)

    def stored_as(self) -> sa.types.TypeEngine[Any]:
        return sa.LargeBinary()

    def sealed_in(self, stored: Any) -> bytes | None:
        is_sealed = stored is not None and stored.startswith(_SEALED_BYTES)
        return bytes(stored.removeprefix(_SEALED_BYTES)) if is_sealed else None


def _is_marked(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() in ({_SEALED}, {_PLAIN})


def json_text(value: Any) -> str:
    """JSON that both databases take: ASCII only, NaN and infinities as null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


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
    # Who knows the rest of a payload could find a short secret in it by its digest.
    sa.Column("request_digest", EncryptedText("calls.request_digest"), nullable=False),
    sa.Column("run_chain", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("reason", EncryptedText("calls.reason")),
    sa.Column("outcome", EncryptedJson("calls.outcome", none_as_null=True)),
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
    # What a page shows of the call: how often that has changed, what it is, since when, and the
    # text that is not in the outcome.
    sa.Column("event_number", sa.Integer, nullable=False, server_default="0"),
    sa.Column("event", sa.Text),
    sa.Column("event_at", UtcTime),
    sa.Column("notice", EncryptedJson("calls.notice", none_as_null=True)),
    # The workflow that has claimed it, if that is not its own.
    sa.Column("host", sa.Text),
    # Whether it was claimed before by a run chain that has ended without an outcome.
    sa.Column("taken_over", sa.Boolean, nullable=False, server_default=sa.false()),
    # Statistics count parked calls by it.
    sa.Index(None, "stage", "provider"),
    # Lists are read in its order.
    sa.Index(None, "provider", "claimed_at", "call_id"),
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
    sa.Column("data", EncryptedJson("responses.data")),
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
    sa.Column("sha256", EncryptedText("bodies.sha256"), nullable=False),
    sa.Column("body", EncryptedBytes("bodies.body"), nullable=False),
    sa.Column("stored_at", UtcTime, nullable=False),
    # Where the body is, if it is not in `body`: the key of an object.
    sa.Column("location", sa.Text),
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
    sa.Column("message", EncryptedJson("inbox.message", none_as_null=True)),
    sa.Column("document", EncryptedJson("inbox.document", none_as_null=True)),
    sa.Column("received_at", UtcTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", EncryptedText("inbox.reason")),
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
    sa.Column("reason", EncryptedText("acknowledgements.reason")),
    sa.Column("owed_at", UtcTime),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("written_off_by", Key),
    sa.Column("written_off_reason", EncryptedText("acknowledgements.written_off_reason")),
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
    sa.Column("reason", EncryptedText("log.reason"), nullable=False),
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
    sa.Column("body", EncryptedJson("notices.body"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", EncryptedText("notices.reason")),
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
    sa.Column("snapshot", EncryptedJson("controls.snapshot"), nullable=False),
    comment="Copies of the controls' snapshots, for workers that cannot ask the engine.",
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("request_id", Key, nullable=False, unique=True),
    sa.Column("entry", EncryptedText("audit.entry"), nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    comment="What operators did: canonical JSON with the hash of the entry before, and its hash.",
)
