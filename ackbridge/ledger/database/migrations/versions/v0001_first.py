"""Calls, responses, messages, acknowledgements and the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _calls()
    _messages()
    _inbox()
    _acknowledgements()
    _log()


def downgrade() -> None:
    for table in (
        "log",
        "acknowledgements",
        "inbox",
        "event_keys",
        "responses",
        "correlations",
        "calls",
    ):
        op.drop_table(table)


def _calls() -> None:
    op.create_table(
        "calls",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("run_chain", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("outcome", sa.JSON),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_calls"),
    )
    op.create_index("ix_calls_stage_provider", "calls", ["stage", "provider"])


def _messages() -> None:
    op.create_table(
        "correlations",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "reference", name="pk_correlations"),
    )
    op.create_table(
        "responses",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("cycle", sa.Integer, nullable=False),
        sa.Column("event_key", sa.Text, nullable=False),
        sa.Column("data", sa.JSON),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("received_at", _TIME),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_responses"),
    )
    op.create_table(
        "event_keys",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("event_key", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "event_key", name="pk_event_keys"),
        comment="The duplicate index: which call has applied which event.",
    )


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("event_key", sa.Text, nullable=False),
        sa.Column("operation", sa.Text),
        sa.Column("call_id", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("message", sa.JSON),
        sa.Column("document", sa.JSON),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
        sa.UniqueConstraint("provider", "event_key", name="uq_inbox_provider_event_key"),
    )
    op.create_index("ix_inbox_provider_call_id", "inbox", ["provider", "call_id"])
    op.create_index("ix_inbox_provider_reference", "inbox", ["provider", "reference"])
    op.create_index("ix_inbox_state_next_try_at", "inbox", ["state", "next_try_at"])


def _acknowledgements() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("cycle", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("is_owed", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("owed_at", _TIME),
        sa.Column("acknowledged_at", _TIME),
        sa.PrimaryKeyConstraint("call_id", "cycle", "kind", name="pk_acknowledgements"),
    )
    op.create_index("ix_acknowledgements_is_owed", "acknowledgements", ["is_owed"])


def _log() -> None:
    op.create_table(
        "log",
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("first_at", _TIME, nullable=False),
        sa.Column("last_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_log"),
        comment="What was not applied, and why; `subject` is the event key or the reference.",
    )
    op.create_index("ix_log_call_id", "log", ["call_id"])
