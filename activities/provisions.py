"""What every activity is given: nobody reads settings or builds a client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from ackbridge.catalog import Catalog
from ackbridge.clock import Clock
from ackbridge.contracts import CallRequest, names
from ackbridge.ledger import Ledger


@dataclass(frozen=True)
class Provisions:
    """Shared by the activities of one worker.

    Attributes:
        catalog: the integrations this worker knows.
        ledger: where responses are written exactly once.
        client: the one HTTP client.
        auths: by provider, how its requests are authenticated.
        clock: of what is written down; deadlines are the workflow's business.
        public_url: where providers reach the gateway.
        environment: which flags apply.
        indexed: whether our search attributes are registered with the engine.
    """

    catalog: Catalog
    ledger: Ledger
    client: httpx.AsyncClient
    auths: Mapping[str, httpx.Auth | None]
    clock: Clock
    public_url: str
    environment: str
    indexed: bool

    def context(self, request: CallRequest, cycle: int) -> dict[str, object]:
        """What the templates of an integration file can refer to."""
        return {
            "payload": request.payload,
            "metadata": dict(request.metadata),
            "call": {
                "id": request.call_id,
                "provider": request.provider,
                "operation": request.operation,
                "key": request.key,
                "cycle": cycle,
                "idempotency_key": names.idempotency_key(request.call_id, cycle),
            },
            "callback_url": f"{self.public_url.rstrip('/')}/callbacks/{request.provider}",
            "reference": None,
            "response": None,
            "reason": None,
        }
