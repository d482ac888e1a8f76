"""Statistics of providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
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


def downgrade() -> None:
    op.drop_table("observations")
