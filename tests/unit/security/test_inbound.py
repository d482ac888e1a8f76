"""Verification by shared secrets, and rules for all kinds of verification."""

from __future__ import annotations

import base64

import pytest

from ackbridge.errors import SecretError
from tests.support.callbacks import BODY, STRIPE, refusal, stripe, verifier


def test_a_secret_header_passes_with_either_secret() -> None:
    """A shared secret in a header with a prefix, during a rotation."""
    shared = verifier(
        {
            "type": "header",
            "name": "Authorization",
            "prefix": "Bearer ",
            "secrets": ["env:OLD", "env:NEW"],
        }
    )

    shared.verify({"authorization": "Bearer old-secret"}, BODY)
    shared.verify({"authorization": "Bearer new-secret"}, BODY)
    assert refusal(shared, {}) == "header Authorization is missing"
    for wrong in ("Bearer ", "new-secret", "Bearer new-secret2", "Bearer ünd"):
        assert (
            refusal(shared, {"authorization": wrong})
            == "secret in header Authorization does not match"
        )


def basic(credentials: bytes) -> dict[str, str]:
    """An Authorization header for credentials."""
    return {"authorization": f"Basic {base64.b64encode(credentials).decode()}"}


def test_basic_credentials_pass_with_either_password() -> None:
    """Basic authentication by the provider, during a rotation."""
    hook = verifier({"type": "basic", "username": "hook", "passwords": ["env:OLD", "env:NEW"]})

    hook.verify(basic(b"hook:old-secret"), BODY)
    hook.verify(basic(b"hook:new-secret"), BODY)
    for wrong in (b"hook:other", b"other:new-secret", b"hook", b"", b"\xff:\xff"):
        assert refusal(hook, basic(wrong)) == "basic credentials do not match"
    for malformed in ("Bearer x", "Basic ***", "Basic é"):
        message = refusal(hook, {"authorization": malformed})
        assert message == "header Authorization is not basic authentication"


def test_a_missing_secret_is_not_a_signature_error() -> None:
    """An unresolved secret raises SecretError, unless another one matches."""
    half = verifier({**STRIPE, "secrets": ["env:ABSENT", "env:NEW"]})

    half.verify(stripe("NEW"), BODY)
    with pytest.raises(SecretError, match="env:ABSENT: is not set"):
        half.verify(stripe("OLD"), BODY)


def test_without_a_spec_everything_is_refused() -> None:
    """Callbacks of a provider without verification are refused."""
    assert refusal(verifier(None), {}) == "this provider has no callback verification"
