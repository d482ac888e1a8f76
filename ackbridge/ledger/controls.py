"""The copy of every control's snapshot, for workers that cannot ask the engine."""

from __future__ import annotations

import sqlalchemy as sa

from ackbridge.contracts.control import ControlSnapshot

from .database.engines import Store, reads, upsert, writes
from .database.tables import controls


class ControlStore(Store):
    """One row for each provider, which its control writes."""

    @writes
    def store(self, connection: sa.Connection, snapshot: ControlSnapshot) -> None:
        """Store a snapshot, unless a newer one is there."""
        row = {
            "provider": snapshot.provider,
            "version": snapshot.version,
            "changed_at": snapshot.at,
            "snapshot": snapshot.model_dump(mode="json"),
        }
        statement = upsert(connection.dialect.name, controls).values(row)
        new = statement.excluded
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[controls.c.provider],
                set_={name: new[name] for name in row},
                where=controls.c.changed_at <= new.changed_at,
            )
        )

    @reads
    def latest(self, connection: sa.Connection, provider: str) -> ControlSnapshot | None:
        """The last stored snapshot; None: the control has never stored one."""
        query = sa.select(controls.c.snapshot).where(controls.c.provider == provider)
        row = connection.execute(query).first()
        return None if row is None else ControlSnapshot.model_validate(row.snapshot)
