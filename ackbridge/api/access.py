"""Who makes a request, and the parts that routes work with."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Request
from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog
from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.client.recorded import recorded_status
from ackbridge.clock import Clock
from ackbridge.contracts.audit import AuditOrigin, AuditRequest
from ackbridge.contracts.calls import CallStatus
from ackbridge.contracts.identity import Identity, Role
from ackbridge.errors import CallNotFoundError, EngineUnavailableError, LedgerUnavailableError
from ackbridge.ledger.calls import CallRow
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.http_auth import HttpAuth

from .event_streams import Streams

STATUS_TIMEOUT: Final = timedelta(seconds=3)
"""Of asking a worker for a status; after it, the ledger answers."""


@dataclass(frozen=True)
class ApiParts:
    """What the routes work with.

    Attributes:
        client: of Temporal.
        calls: the typed client over it.
        catalog: the integrations, for their names and what is sensitive.
        environment: the environment whose flags are shown and set.
        streams: of events, for pages; None: there are none.
    """

    client: Client
    calls: AckbridgeClient
    ledger: Ledger
    catalog: Catalog
    auth: HttpAuth
    clock: Clock
    environment: str
    streams: Streams | None = None

    async def recorded(self, call_id: str) -> CallRow | None:
        """What the ledger has recorded; None also while it does not answer."""
        try:
            return await self.ledger.calls.get(call_id)
        except LedgerUnavailableError:
            return None

    async def record(self, action: str, subject: str, by: Requester, reason: str) -> None:
        """Record in the audit log what a request is about to do without a workflow."""
        entry = AuditRequest(
            id=uuid.uuid4().hex,
            at=self.clock(),
            origin=AuditOrigin.HTTP,
            action=action,
            subject=subject,
            by=by.by,
            reason=reason,
        )
        await self.ledger.audit.append(entry, client=self.client.identity)

    async def status(self, call: Call) -> CallStatus:
        """The status of a call: from the ledger once it has closed, or while no worker answers.

        Raises:
            CallNotFoundError: neither the engine nor the ledger knows it.
            EngineUnavailableError: the engine does not answer, and the ledger does not know it.
        """
        row = await self.recorded(call.id)
        if row is not None and row.outcome is not None and row.stage.is_final:
            return recorded_status(row)
        try:
            async with asyncio.timeout(STATUS_TIMEOUT.total_seconds()):
                return await call.status()
        except TimeoutError:
            if row is None:
                raise EngineUnavailableError(f"{call.id}: no worker answers") from None
        except (CallNotFoundError, EngineUnavailableError):
            if row is None:
                raise
        return recorded_status(row)


class Requester:
    """Who makes a request, and what it may do."""

    def __init__(self, request: Request, identity: Identity, auth: HttpAuth) -> None:
        self._request = request
        self._identity = identity
        self._auth = auth

    @property
    def by(self) -> str:
        """The name for histories and the audit log, with how it is known."""
        return self._identity.label

    def may(self, role: Role, provider: str) -> bool:
        return self._identity.may(role, provider)

    def readable(self) -> tuple[str, ...] | None:
        """The providers whose calls it may see; None: all."""
        if self._identity.may(Role.READ):
            return None
        named = {one.partition(":")[2] for one in self._identity.roles}
        return tuple(sorted(name for name in named if name))

    def require(self, role: Role, provider: str | None = None) -> None:
        """Answer 403 without a role for a provider; None: for every provider."""
        self._auth.check(self._request, self._identity, role, provider)

    def shown(self, status: CallStatus) -> CallStatus:
        """A status, with what is sensitive for callers only."""
        provider = status.call_id.partition(".")[0]
        return status if self.may(Role.START, provider) else status.masked()


# Dependencies are coroutines, also those that wait for nothing: FastAPI runs others in threads.
async def _parts(request: Request) -> ApiParts:
    parts: ApiParts = request.app.state.parts
    return parts


Parts = Annotated[ApiParts, Depends(_parts)]


async def authenticate(request: Request) -> Requester:
    """Find out who makes a request; answers 401 without a valid credential."""
    known: Requester | None = getattr(request.state, "requester", None)
    if known is None:
        parts = await _parts(request)
        known = Requester(request, await parts.auth.identify(request), parts.auth)
        request.state.requester = known
    return known


By = Annotated[Requester, Depends(authenticate)]
"""Who makes a request; without a valid credential the answer is 401."""
