"""Large bodies of providers, which messages refer to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import sqlalchemy as sa
from pydantic_core import to_json

from ackbridge.clock import Clock
from ackbridge.contracts.limits import LARGE_BODY_BYTES
from ackbridge.contracts.messages import BodyRef
from ackbridge.errors import LedgerUnavailableError, UnavailableError
from ackbridge.security.encryption import Encryption

from .database.engines import Database, Store, insert_new, reads, writes
from .database.tables import bodies

BINARY: Final = "$binary"
"""The one key of a JSON object that has the content type and the bytes of a binary body."""

JSON_TYPE: Final = "application/json"


PREFIX: Final = "bodies/"
"""Of the keys of bodies in an object store."""


class ObjectStore(Protocol):
    """Where bodies are kept instead of in the database; requests raise `UnavailableError`."""

    async def put(self, key: str, data: bytes) -> None: ...

    async def get(self, key: str) -> bytes | None: ...

    async def delete(self, keys: Sequence[str]) -> None: ...

    async def aclose(self) -> None: ...


class BodyStore(Store):
    """Bodies of calls, in the database or in an object store; deleted with their call."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        objects: ObjectStore | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        """Use a database.

        Args:
            objects: where new bodies are stored; None: in the database.
            encryption: of the bodies in `objects`; the database has its own.
        """
        super().__init__(database, clock)
        self._objects = objects
        self._encryption = encryption

    async def store(self, call_id: str, name: str, content_type: str, body: bytes) -> BodyRef:
        """Store a body; the same one of the same call is stored once.

        Args:
            name: what it is, such as the event key of its message.

        Raises:
            LedgerUnavailableError: also if the object store does not answer.
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
        if self._objects is not None:
            row |= {"body": b"", "location": await self._put(self._objects, own, body)}
        await self._insert(row)
        return BodyRef(id=own, bytes=len(body), content_type=content_type, sha256=sha256)

    async def read(self, body_id: str) -> bytes | None:
        """The body with this id; None once it is deleted.

        Raises:
            LedgerUnavailableError: also if the object store does not answer.
        """
        body, location = await self._select(body_id)
        return body if location is None else await self._get(body_id, location)

    async def _put(self, objects: ObjectStore, body_id: str, body: bytes) -> str:
        key = f"{PREFIX}{body_id}"
        with object_errors():
            if (encryption := self._encryption) is not None:
                body = await asyncio.to_thread(encryption.encrypt, body, _context(body_id))
            await objects.put(key, body)
        return key

    async def _get(self, body_id: str, key: str) -> bytes | None:
        if self._objects is None:
            raise LedgerUnavailableError(
                f"the body {key} is in an object store, and ACKBRIDGE_LARGE_PAYLOADS is not set"
            )
        with object_errors():
            body = await self._objects.get(key)
            encryption = self._encryption
            if body is None or encryption is None or not encryption.sealed(body):
                return body
            return await asyncio.to_thread(encryption.decrypt, body, _context(body_id))

    @writes
    def _insert(self, connection: sa.Connection, row: Mapping[str, Any]) -> None:
        insert_new(connection, bodies, row)

    @reads
    def _select(self, connection: sa.Connection, body_id: str) -> tuple[bytes | None, str | None]:
        """The body, and its location; neither, if there is no such body."""
        query = sa.select(bodies.c.body, bodies.c.location).where(bodies.c.id == body_id)
        row = connection.execute(query).one_or_none()
        return (row.body, row.location) if row else (None, None)


def _context(body_id: str) -> str:
    return f"{PREFIX}{body_id}"


@contextmanager
def object_errors() -> Iterator[None]:
    """Raise the errors of an object store as `LedgerUnavailableError`."""
    try:
        yield
    except LedgerUnavailableError:
        raise
    except UnavailableError as error:
        raise LedgerUnavailableError(str(error)) from None


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
