"""References are found by their call: they go with it."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0004"


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_correlations_call_id", "correlations", ["call_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_correlations_call_id", "correlations")
