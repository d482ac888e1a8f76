"""Large bodies of providers: stored in the ledger, and passed by reference."""

from __future__ import annotations

import base64
from typing import Any, Final

from pydantic_core import to_json

from ackbridge.contracts.bodies import BodyRef
from ackbridge.contracts.limits import LARGE_BODY_BYTES
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.wire import read_json

from .dependencies import Dependencies

BINARY: Final = "$binary"
"""The one key of a JSON object that has the content type and the bytes of a binary body."""

_JSON: Final = "application/json"


def binary(content_type: str, body: bytes) -> dict[str, Any]:
    """A binary body as JSON."""
    return {BINARY: {"content_type": content_type, "base64": base64.b64encode(body).decode()}}


async def store_if_large(deps: Dependencies, call_id: str, name: str, data: Any) -> Any:
    """The data of a message, or a reference to it if it is large.

    Args:
        name: what it is, such as the event key of its message.

    Raises:
        LedgerUnavailableError: it is large, and could not be stored.
    """
    body = to_json(data)
    # What a provider has sent is never taken for a reference of ours.
    if len(body) <= LARGE_BODY_BYTES and BodyRef.of_data(data) is None:
        return data
    content_type = _JSON
    if (found := _binary_of(data)) is not None:
        content_type, body = found
    ref = await deps.ledger.bodies.store(call_id, name, content_type, body)
    return ref.as_data()


def _binary_of(data: Any) -> tuple[str, bytes] | None:
    if not isinstance(data, dict) or data.keys() != {BINARY}:
        return None
    match data[BINARY]:
        case {"content_type": str(content_type), "base64": str(text)} if content_type != _JSON:
            try:
                return content_type, base64.b64decode(text, validate=True)
            except ValueError:
                return None
    return None


async def bounded(deps: Dependencies, call_id: str, message: ProviderMessage) -> ProviderMessage:
    """The message, with a reference in place of data that is large; raises as `store_if_large`."""
    data = await store_if_large(deps, call_id, message.event_key, message.data)
    return message if data is message.data else message.model_copy(update={"data": data})


async def load(deps: Dependencies, data: Any) -> Any:
    """The data that a reference refers to; any other data as it is. None once it is deleted."""
    ref = BodyRef.of_data(data)
    if ref is None:
        return data
    body = await deps.ledger.bodies.read(ref.id)
    if body is None:
        return None
    return read_json(body) if ref.content_type == _JSON else binary(ref.content_type, body)
