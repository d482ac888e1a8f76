"""Large bodies of providers, which messages refer to."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from ackbridge.contracts.messages import BodyRef

from .database.engines import Store, insert_new, reads, writes
from .database.tables import bodies


class BodyStore(Store):
    """Bodies of calls, deleted with their call."""

    @writes
    def store(
        self, connection: sa.Connection, call_id: str, name: str, content_type: str, body: bytes
    ) -> BodyRef:
        """Store a body; the same one of the same call is stored once.

        Args:
            name: what it is, such as the event key of its message.
        """
        sha256 = hashlib.sha256(body).hexdigest()
        # Derived from the content, so that a repeated step refers to the same row.
        own = hashlib.sha256(repr((call_id, name, content_type, sha256)).encode()).hexdigest()
        row = {
            "id": own,
            "call_id": call_id,
            "name": name,
            "content_type": content_type,
            "sha256": sha256,
            "body": body,
            "stored_at": self.clock(),
        }
        insert_new(connection, bodies, row)
        return BodyRef(id=own, bytes=len(body), content_type=content_type, sha256=sha256)

    @reads
    def read(self, connection: sa.Connection, body_id: str) -> bytes | None:
        """The body with this id; None once it is deleted."""
        query = sa.select(bodies.c.body).where(bodies.c.id == body_id)
        return connection.execute(query).scalar_one_or_none()
