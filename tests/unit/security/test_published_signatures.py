"""Signatures that providers have published, verified by the shipped files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.errors import SignatureError
from ackbridge.security.inbound import Verifier, build_verifier
from ackbridge.security.secrets import Secrets
from tests.support.catalog_files import ROOT

GITHUB = (
    "github",
    {"GITHUB_WEBHOOK_SECRET": "It's a Secret to Everybody"},
    0,
    {
        "x-hub-signature-256": "sha256="
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    },
    b"Hello, World!",
)
"""docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""

SLACK = (
    "slack",
    {"SLACK_SIGNING_SECRET": "8f742231b10e8888abcd99yyyzzz85a5"},
    1531420618,
    {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    },
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
    b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
)
"""docs.slack.dev/authentication/verifying-requests-from-slack"""

OPENAI = (
    "openai",
    {"OPENAI_WEBHOOK_SECRET": "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="},
    1750861210,
    {
        "webhook-id": "wh_685c059ae39c8190af8c71ed1022a24d",
        "webhook-timestamp": "1750861210",
        "webhook-signature": "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
    },
    b'{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event",'
    b' "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}',
)
"""The tests of OpenAI's own clients."""


def verifier(provider: str, environ: dict[str, str], at: int) -> Verifier:
    """The verifier of a shipped file, at a time."""
    callbacks = load_integration(ROOT / "integrations" / f"{provider}.yaml", {}).callbacks
    assert callbacks is not None
    moment = datetime.fromtimestamp(at, UTC)
    return build_verifier(callbacks.verify, Secrets(environ, Path()), lambda: moment)


@pytest.mark.parametrize(
    ("provider", "environ", "at", "headers", "body"),
    [GITHUB, SLACK, OPENAI],
    ids=["github", "slack", "openai"],
)
def test_published_signatures_are_verified(
    provider: str, environ: dict[str, str], at: int, headers: dict[str, str], body: bytes
) -> None:
    """As it is published, and not with another body, or later where the time is signed."""
    verifier(provider, environ, at).verify(headers, body)
    with pytest.raises(SignatureError, match="signature does not match"):
        verifier(provider, environ, at).verify(headers, body + b".")
    if at:
        with pytest.raises(SignatureError, match="timestamp is 301 s old"):
            verifier(provider, environ, at + 301).verify(headers, body)
