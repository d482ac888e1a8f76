"""What every activity is given: nobody reads settings or builds a client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ackbridge.catalog.catalog import Catalog
from ackbridge.clock import Clock
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.stats.counters import Counters

_SHAPES_ONLY = Redactor()


@dataclass(frozen=True)
class Dependencies:
    """Shared by the activities of one worker.

    Attributes:
        catalog: the integrations this worker knows.
        ledger: where responses are written exactly once.
        client: the one HTTP client.
        auths: by provider, how its requests are authenticated.
        clock: of what is written down; deadlines are the workflow's business.
        public_url: where providers reach the gateway.
        control: what is known of the providers' controls.
        gate: whether a call may be sent now.
        indexed: whether our search attributes are registered with the engine.
        secrets: what the references of subscribers stand for at this moment.
        counters: what this worker observes of providers.
        redactors: by provider, what keeps secrets out of its words; for one that is not there,
            only what looks like a secret is.
    """

    catalog: Catalog
    ledger: Ledger
    client: httpx.AsyncClient
    auths: Mapping[str, httpx.Auth | None]
    clock: Clock
    public_url: str
    control: Snapshots
    gate: Admission
    indexed: bool
    secrets: Secrets = field(default_factory=lambda: Secrets({}, Path()))
    redactors: Mapping[str, Redactor] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    def redactor(self, provider: str) -> Redactor:
        """What keeps secrets out of a provider's words."""
        return self.redactors.get(provider, _SHAPES_ONLY)

    def context(self, request: CallRequest, cycle: int, **known: object) -> dict[str, object]:
        """What the templates of an integration file can refer to.

        Args:
            known: what is known besides the request: reference, response, reason.
        """
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
            **known,
        }
