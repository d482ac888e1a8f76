"""The tables of the first release."""

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
    _coverage()
    _acknowledgements()
    _log()
    _notices()
    _parked()
    _observations()
    _quotas()
    _leases()
    _controls()
    _audit()


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
        sa.Column("effect", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("provider_code", sa.Text),
        sa.Column("amount", sa.Text),
        sa.Column("unknown_since", _TIME),
        sa.Column("settled_by", sa.Text),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("event_number", sa.Integer, nullable=False, server_default="0"),
        sa.Column("event", sa.Text),
        sa.Column("event_at", _TIME),
        sa.Column("notice", sa.JSON),
        sa.Column("host", sa.Text),
        sa.Column("taken_over", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("call_id", name="pk_calls"),
    )
    op.create_index("ix_calls_stage_provider", "calls", ["stage", "provider"])
    op.create_index(
        "ix_calls_provider_claimed_at_call_id", "calls", ["provider", "claimed_at", "call_id"]
    )
    is_unknown = sa.text("unknown_since IS NOT NULL")
    op.create_index(
        "ix_calls_unknown_since",
        "calls",
        ["unknown_since"],
        postgresql_where=is_unknown,
        sqlite_where=is_unknown,
    )


def _messages() -> None:
    op.create_table(
        "correlations",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "reference", name="pk_correlations"),
    )
    op.create_index("ix_correlations_call_id", "correlations", ["call_id"])
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
    op.create_table(
        "bodies",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", _TIME, nullable=False),
        sa.Column("location", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_bodies"),
        comment="Bodies that are too large for the engine, which messages refer to.",
    )
    op.create_index("ix_bodies_call_id", "bodies", ["call_id"])


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
        sa.Column("event", sa.Text),
        sa.Column("object", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
        sa.UniqueConstraint("provider", "event_key", name="uq_inbox_provider_event_key"),
    )
    op.create_index("ix_inbox_provider_call_id", "inbox", ["provider", "call_id"])
    op.create_index("ix_inbox_provider_reference", "inbox", ["provider", "reference"])
    op.create_index("ix_inbox_state_next_try_at", "inbox", ["state", "next_try_at"])
    op.create_index(
        "ix_inbox_provider_object",
        "inbox",
        ["provider", "object"],
        postgresql_where=sa.text("object IS NOT NULL"),
        sqlite_where=sa.text("object IS NOT NULL"),
    )


def _coverage() -> None:
    op.create_table(
        "coverage",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("covered_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_coverage"),
        comment="Until when a gateway was there for the callbacks of a provider that lists its"
        " events.",
    )


def _acknowledgements() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("cycle", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("is_owed", sa.Boolean, nullable=False),
        sa.Column("refused", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("owed_at", _TIME),
        sa.Column("acknowledged_at", _TIME),
        sa.Column("written_off_by", sa.Text),
        sa.Column("written_off_reason", sa.Text),
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


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("subscriber", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("happened_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.PrimaryKeyConstraint("event_id", name="pk_notices"),
    )
    op.create_index("ix_notices_state_subscriber", "notices", ["state", "subscriber"])
    op.create_index("ix_notices_call_id", "notices", ["call_id"])


def _parked() -> None:
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
        sa.Column("failures", sa.Integer, nullable=False),
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


def _observations() -> None:
    op.create_table(
        "observations",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("width", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("begun_at", _TIME, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("observed", sa.JSON, nullable=False),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            *("provider", "width", "begun_at", "operation", "worker"), name="pk_observations"
        ),
        comment="What one worker has observed of an operation, for `width` seconds.",
    )
    op.create_index("ix_observations_width_begun_at", "observations", ["width", "begun_at"])


def _quotas() -> None:
    op.create_table(
        "quota_reports",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "tenant", "worker", name="pk_quota_reports"),
        comment="What one worker knows of the quota of a provider that has rejected requests.",
    )
    op.create_table(
        "quotas",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("status", sa.JSON, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "tenant", name="pk_quotas"),
        comment="The rates that providers turned out to accept, as they are now.",
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("waits_since", _TIME, nullable=False),
        sa.Column("acquired_at", _TIME),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "holder", name="pk_leases"),
        comment="Requests that are in flight, and those that wait (`acquired_at` is null), where a"
        " provider limits how many there are at once.",
    )
    op.create_index(
        "ix_leases_provider_acquired_at_waits_since",
        "leases",
        ["provider", "acquired_at", "waits_since"],
    )


def _controls() -> None:
    op.create_table(
        "controls",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("snapshot", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_controls"),
        comment="Copies of the controls' snapshots, for workers that cannot ask the engine.",
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sa.UniqueConstraint("request_id", name="uq_audit_request_id"),
        comment="What operators did: canonical JSON with the hash of the entry before, and its"
        " hash.",
    )
