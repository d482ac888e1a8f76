"""Our verifiers accept the signatures of the simulated provider, and reject its forgeries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.sandbox.signing import build_signer
from ackbridge.security.secrets import Secrets
from tests.support.callbacks import BODY, ENVIRON, NOW, SPEC, STRIPE, refusal, verifier

AT = datetime.fromtimestamp(NOW, UTC)
EVERY_KIND: list[dict[str, Any]] = [
    STRIPE,
    {"type": "hmac", "preset": "standard-webhooks", "secrets": ["env:STANDARD"]},
    {"type": "hmac", "secrets": ["env:NEW"], "header": "X-Signature", "prefix": "sha256="},
    {
        "type": "hmac",
        "secrets": ["env:NEW", "env:OLD"],
        "header": "X-Nd-Digest",
        "prefix": "v1=",
        "algorithm": "sha512",
        "encoding": "base64",
        "signed": "{id}|{timestamp}|{body}",
        "id_header": "X-Nd-Id",
        "timestamp_header": "X-Nd-Time",
    },
    {"type": "header", "name": "X-Token", "secrets": ["env:NEW"], "prefix": "Token "},
    {"type": "basic", "username": "hook", "passwords": ["env:NEW"]},
]


@pytest.mark.parametrize("spec", EVERY_KIND)
def test_signed_callbacks_pass(spec: dict[str, Any]) -> None:
    """For every kind of verification."""
    signer = build_signer(SPEC.validate_python(spec), Secrets(ENVIRON, Path("/nowhere")))
    verifier(spec).verify(signer.sign(BODY, "msg-1", AT), BODY)


@pytest.mark.parametrize("spec", EVERY_KIND)
def test_forged_callbacks_are_rejected(spec: dict[str, Any]) -> None:
    """With another secret and, where time is signed, a correct signature of yesterday."""
    signer = build_signer(SPEC.validate_python(spec), Secrets(ENVIRON, Path("/nowhere")))
    assert "match" in refusal(verifier(spec), signer.forge(BODY, "msg-1", AT))
    stale = signer.sign(BODY, "msg-1", AT - timedelta(days=1))
    if signer.signs_time:
        assert "timestamp is 86400 s old" in refusal(verifier(spec), stale)
    else:
        verifier(spec).verify(stale, BODY)
