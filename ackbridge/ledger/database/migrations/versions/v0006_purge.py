"""An index for deleting the references of a call."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("ix_correlations_call_id", "correlations", ["call_id"])


def downgrade() -> None:
    op.drop_index("ix_correlations_call_id", "correlations")
