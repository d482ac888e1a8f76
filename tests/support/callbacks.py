"""Verifiers over made-up secrets at a made-up time, for tests of callbacks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ackbridge.errors import SignatureError
from ackbridge.sandbox import signing
from ackbridge.security.inbound import Verifier, build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import VerifySpec

SPEC: TypeAdapter[VerifySpec] = TypeAdapter(VerifySpec)
ENVIRON = {
    "OLD": "old-secret",
    "NEW": "new-secret",
    "GITHUB": "It's a Secret to Everybody",
    "SLACK": "8f742231b10e8888abcd99yyyzzz85a5",
    "STANDARD": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "NOT_STANDARD": "whsec_",
}
NOW = 1_700_000_000
BODY = b'{"id": "evt_1"}'


def verifier(spec: dict[str, Any] | None, now: int = NOW) -> Verifier:
    """A verifier over made-up secrets, at a given time."""
    parsed = None if spec is None else SPEC.validate_python(spec)
    secrets = Secrets(ENVIRON, Path("/nowhere"))
    return build_verifier(parsed, secrets, lambda: datetime.fromtimestamp(now, UTC))


def refusal(of: Verifier, headers: Mapping[str, str], body: bytes = BODY) -> str:
    """Why a callback is refused."""
    with pytest.raises(SignatureError) as refused:
        of.verify(headers, body)
    return str(refused.value)


def signature_by(secret: str, text: bytes, algorithm: str = "sha256") -> str:
    """A signature computed independently of what is tested."""
    return hmac.new(ENVIRON[secret].encode(), text, getattr(hashlib, algorithm)).hexdigest()


def stripe(secret: str, at: int = NOW, body: bytes = BODY) -> dict[str, str]:
    """Headers as Stripe sends them."""
    return signing.stripe(ENVIRON[secret].encode(), body, "", datetime.fromtimestamp(at, UTC))


STRIPE = {"type": "hmac", "preset": "stripe", "secrets": ["env:OLD", "env:NEW"]}
