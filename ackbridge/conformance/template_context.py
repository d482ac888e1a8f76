"""What templates of an integration file can read of a call in a conformance run."""

from __future__ import annotations

from typing import Any

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest


def template_context(
    request: CallRequest, cycle: int = 1, callback_url: str | None = None
) -> dict[str, Any]:
    """As an activity has it, without what becomes known later.

    Args:
        callback_url: the gateway's address for this provider; left out: a made-up one.
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
        "callback_url": callback_url or f"http://127.0.0.1/callbacks/{request.provider}",
        "reference": None,
        "kept": {},
        "response": None,
        "reason": None,
    }
