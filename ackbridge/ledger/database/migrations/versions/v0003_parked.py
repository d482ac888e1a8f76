"""Parked calls, and which batch has claimed which of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "parked",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("parked_at", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("batch", sa.Text),
        sa.Column("taken_at", _TIME),
        sa.PrimaryKeyConstraint("call_id", name="pk_parked"),
        comment="Calls that are parked, or were when they were taken up again and have not ended.",
    )
    op.create_index(
        "ix_parked_provider_state_parked_at_call_id",
        "parked",
        ["provider", "state", "parked_at", "call_id"],
    )
    op.create_table(
        "batch_calls",
        sa.Column("batch", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("marked_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.PrimaryKeyConstraint("batch", "call_id", name="pk_batch_calls"),
        comment="Which batch has taken which call: none takes one twice.",
    )
    op.create_index("ix_batch_calls_batch_state", "batch_calls", ["batch", "state"])
    _add_parked_calls()


def downgrade() -> None:
    op.drop_table("batch_calls")
    op.drop_table("parked")


def _add_parked_calls() -> None:
    """Their reason is not known as a name; the key is what follows provider and operation."""
    op.execute(
        "INSERT INTO parked (call_id, provider, operation, key, reason, times, parked_at, state)"
        " SELECT call_id, provider, operation,"
        " substr(call_id, length(provider) + length(operation) + 3),"
        " 'unknown', 1, updated_at, 'waiting' FROM calls WHERE stage = 'parked'"
    )
