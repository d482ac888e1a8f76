"""Large bodies of providers, which messages refer to."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

import sqlalchemy as sa
from pydantic_core import to_json

from ackbridge.contracts.limits import LARGE_BODY_BYTES
from ackbridge.contracts.messages import BodyRef

from .database.engines import Store, insert_new, reads, writes
from .database.tables import bodies

BINARY: Final = "$binary"
"""The one key of a JSON object that has the content type and the bytes of a binary body."""

JSON_TYPE: Final = "application/json"


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


async def store_if_large(store: BodyStore, call_id: str, name: str, data: Any) -> Any:
    """The data of a message, or a reference to it if it is large as JSON.

    What arrived may have been much smaller: `1e15` is three times as long in JSON of ours.

    Args:
        name: what it is, such as the event key of its message.

    Raises:
        LedgerUnavailableError: it is large, and could not be stored.
    """
    body = to_json(data)
    # What a provider has sent is never taken for a reference of ours.
    if len(body) <= LARGE_BODY_BYTES and BodyRef.of_data(data) is None:
        return data
    content_type = JSON_TYPE
    if (found := _binary_of(data)) is not None:
        content_type, body = found
    ref = await store.store(call_id, name, content_type, body)
    return ref.as_data()


def binary(content_type: str, body: bytes) -> dict[str, Any]:
    """A binary body as JSON."""
    return {BINARY: {"content_type": content_type, "base64": base64.b64encode(body).decode()}}


def _binary_of(data: Any) -> tuple[str, bytes] | None:
    if not isinstance(data, dict) or data.keys() != {BINARY}:
        return None
    match data[BINARY]:
        case {"content_type": str(content_type), "base64": str(text)} if content_type != JSON_TYPE:
            try:
                return content_type, base64.b64decode(text, validate=True)
            except ValueError:
                return None
    return None
