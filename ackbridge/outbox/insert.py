"""Insert a request into the outbox, in the transaction of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import InvalidRequestError

from .table import OUTBOX

if TYPE_CHECKING:
    # A service uses one of them at most, and importing each takes a while.
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

_COLUMNS = {"provider", "operation", "key", "payload"}


def enqueue(connection: sa.Connection | Session, request: CallRequest) -> str:
    """Insert a request; the call is started once the caller's transaction is committed.

    The same request twice is one call. The caller commits, or rolls back.

    Returns:
        The call id.

    Raises:
        InvalidRequestError: the request is too large, or is not JSON; nothing was inserted.
    """
    connection.execute(sa.insert(OUTBOX), _row(request))
    return request.call_id


async def enqueue_async(connection: AsyncConnection | AsyncSession, request: CallRequest) -> str:
    """As `enqueue`, for SQLAlchemy's asynchronous connections and sessions."""
    await connection.execute(sa.insert(OUTBOX), _row(request))
    return request.call_id


def _row(request: CallRequest) -> dict[str, Any]:
    try:
        request.check_size()
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    fields = request.model_dump(mode="json", exclude_defaults=True)
    options = {name: value for name, value in fields.items() if name not in _COLUMNS}
    return {
        "provider": request.provider,
        "operation": request.operation,
        "key": request.key,
        "payload": fields.get("payload"),
        "options": options,
    }
