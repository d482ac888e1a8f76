"""Signed notices, verified with the Standard Webhooks library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ackbridge.errors import SecretError
from ackbridge.security.outbound import sign_notice
from ackbridge.security.secrets import Secrets

OLD = "whsec_b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZA=="
NEW = "whsec_bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldw=="
OTHER = "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
SECRETS = Secrets({"OLD": OLD, "NEW": NEW, "BAD": "whsec_%%%", "EMPTY": " "}, Path())
BODY = '{"type": "call.failed", "text": "Zoë — ✓"}'


def signed(*refs: str, at: datetime | None = None) -> dict[str, str]:
    """The headers of a signed notice."""
    return sign_notice(SECRETS, refs, "a.b.c:1.failed", at or datetime.now(UTC), BODY)


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_each_of_two_secrets_verifies(secret: str) -> None:
    """During a rotation, subscribers may verify with either secret."""
    headers = signed("env:OLD", "env:NEW")
    assert Webhook(secret).verify(BODY.encode(), headers)["type"] == "call.failed"
    assert headers["webhook-id"] == "a.b.c:1.failed"


def test_a_changed_secret_body_id_or_time_does_not_verify() -> None:
    """Every part is covered by the signature."""
    headers = signed("env:OLD")
    changed = [
        (OTHER, BODY, headers),
        (OLD, BODY + " ", headers),
        (OLD, BODY, {**headers, "webhook-id": "a.b.c:2.failed"}),
        (OLD, BODY, signed("env:OLD", at=datetime.now(UTC) - timedelta(minutes=6))),
    ]
    for secret, body, given in changed:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body.encode(), given)


@pytest.mark.parametrize("ref", ["env:NOWHERE", "env:EMPTY", "env:BAD"])
def test_invalid_secrets_are_named(ref: str) -> None:
    """The error names the reference."""
    with pytest.raises(SecretError, match=ref):
        signed("env:OLD", ref)
