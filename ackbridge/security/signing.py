"""Signing what we send to subscribers, by Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

from ackbridge.errors import SecretError

from .secrets import Secrets


def sign_notice(
    secrets: Secrets, refs: Sequence[str], event_id: str, at: datetime, body: str
) -> dict[str, str]:
    """The headers of a signed notice.

    Args:
        refs: where the secrets are, the ones that take their place included; every one signs.
        at: when it is sent, in UTC; whoever verifies refuses what is old.
        body: exactly as it is sent.

    Raises:
        SecretError: one does not resolve, or is no Standard Webhooks secret.
    """
    signatures = [_webhook(secrets, ref).sign(event_id, at, body) for ref in refs]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _webhook(secrets: Secrets, ref: str) -> Webhook:
    secret = secrets.resolve(ref)
    try:
        return Webhook(secret)
    except Exception:
        # The library lets whatever base64 raises through.
        raise SecretError(f"{ref}: is not a Standard Webhooks secret (whsec_...)") from None
