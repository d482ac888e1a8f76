"""The table that a service has in its own database, next to what its calls are about."""

from __future__ import annotations

from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from ackbridge.contracts.limits import MAX_KEY_LENGTH, MAX_NAME_LENGTH, MAX_REQUEST_BYTES

PENDING: Final = "pending"
STARTED: Final = "started"
REJECTED: Final = "rejected"


def _checks() -> tuple[sa.CheckConstraint, ...]:
    """What a plain INSERT is checked for, too; the relay checks everything else."""
    names = ("provider", "operation")
    on_postgresql = [f"{name} ~ '^[a-z0-9_-]{{1,{MAX_NAME_LENGTH}}}$'" for name in names] + [
        f"char_length(key) BETWEEN 1 AND {MAX_KEY_LENGTH}",
        f"octet_length(payload::text) <= {MAX_REQUEST_BYTES}",
        "json_typeof(options) = 'object'",
    ]
    on_sqlite = [
        f"length({name}) BETWEEN 1 AND {MAX_NAME_LENGTH} AND {name} NOT GLOB '*[^a-z0-9_-]*'"
        for name in names
    ] + [
        f"length(key) BETWEEN 1 AND {MAX_KEY_LENGTH}",
        f"json_valid(payload) AND length(payload) <= {MAX_REQUEST_BYTES}",
        "json_valid(options) AND json_type(options) = 'object'",
    ]
    subjects = (*names, "key", "payload", "options")
    return tuple(
        sa.CheckConstraint(text, name=f"ck_ackbridge_outbox_{subject}").ddl_if(dialect=dialect)
        for dialect, texts in (("postgresql", on_postgresql), ("sqlite", on_sqlite))
        for subject, text in zip(subjects, texts, strict=True)
    )


def _index(name: str, column: str, state: str) -> sa.Index:
    where = sa.text(f"state = '{state}'")
    index_name = f"ix_ackbridge_outbox_{name}"
    return sa.Index(index_name, column, postgresql_where=where, sqlite_where=where)


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """Add the table to a service's own metadata, so that Alembic knows it.

    A service writes `provider`, `operation`, `key`, `payload` and `options`, which has the other
    fields of a `CallRequest`. The rest is the relay's: `due_at` is the end of a lease, or of the
    pause after an attempt that failed (null: at once), `reason` the last error.
    """
    time = sa.DateTime(timezone=True)
    return sa.Table(
        "ackbridge_outbox",
        metadata,
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(),
            primary_key=True,
        ),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False, server_default="null"),
        sa.Column("options", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("created_at", time, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("state", sa.Text, nullable=False, server_default=PENDING),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", time),
        sa.Column("ended_at", time),
        sa.Column("reason", sa.Text),
        sa.CheckConstraint(
            f"state IN ('{PENDING}', '{STARTED}', '{REJECTED}')", name="ck_ackbridge_outbox_state"
        ),
        *_checks(),
        _index("pending", "id", PENDING),
        _index("rejected", "id", REJECTED),
        _index("started", "ended_at", STARTED),
        sqlite_autoincrement=True,
    )


OUTBOX: Final = outbox_table(sa.MetaData())


def create(connection: sa.Connection) -> None:
    """Create the table where it is missing; in an Alembic migration `create(op.get_bind())`."""
    OUTBOX.create(connection, checkfirst=True)


def ddl(dialect: Literal["postgresql", "sqlite"]) -> str:
    """The same as SQL."""
    spoken = sa.create_mock_engine(f"{dialect}://", _ignore).dialect
    indexes = sorted(OUTBOX.indexes, key=lambda one: str(one.name))
    statements: list[DDLElement] = [CreateTable(OUTBOX), *map(CreateIndex, indexes)]
    texts = [str(one.compile(dialect=spoken)).strip() for one in statements]
    return "\n\n".join(f"{text.replace(chr(9), '    ')};" for text in texts) + "\n"


def _ignore(*_: object) -> None:
    pass
