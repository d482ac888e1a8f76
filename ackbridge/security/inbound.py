"""Verification of what providers send us, over the raw bytes and before anything is parsed."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from typing import Protocol

from ackbridge.clock import Clock
from ackbridge.errors import SecretError, SignatureError

from .schemes import (
    GenericScheme,
    Scheme,
    StandardWebhooksScheme,
    StripeScheme,
    header,
)
from .secrets import Secrets
from .specs import BasicVerify, HeaderVerify, HmacVerify, VerifySpec


class Verifier(Protocol):
    """Tells a provider's own callbacks from all others."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Pass silently, or refuse.

        Args:
            headers: by lower-case name.
            body: the raw bytes, as they came.

        Raises:
            SignatureError: not the provider's, or not now; the text is safe for logs and replies.
            SecretError: it cannot be told, because a secret does not resolve.
        """


def build_verifier(spec: VerifySpec | None, secrets: Secrets, clock: Clock) -> Verifier:
    """The verifier of one integration; without a spec, one that refuses everything.

    Secrets are resolved for every callback, so that a rotated one counts at once.
    """
    match spec:
        case None:
            return _Nobody()
        case HmacVerify():
            return _Signature(spec, secrets, clock)
        case HeaderVerify():
            return _SecretHeader(spec, secrets)
        case _:
            return _BasicCredentials(spec, secrets)


class _Nobody:
    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- a `Verifier` is given both, whatever it makes of them
        raise SignatureError("this provider has no callback verification")


class _Signature:
    def __init__(self, spec: HmacVerify, secrets: Secrets, clock: Clock) -> None:
        self._spec = spec
        self._secrets = secrets
        self._clock = clock
        self._scheme = _scheme(spec)

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        signed = self._scheme.read(headers, body)

        def is_signed_with(ref: str) -> bool:
            expected = self._scheme.sign(ref, self._secrets.resolve(ref), signed)
            return any(hmac.compare_digest(expected, given) for given in signed.signatures)

        if not _any_secret(self._spec.secrets, is_signed_with):
            raise SignatureError("signature does not match")
        if signed.timestamp is not None:
            self._refuse_replay(signed.timestamp)

    def _refuse_replay(self, timestamp: int) -> None:
        age = self._clock().timestamp() - timestamp
        tolerance = self._spec.tolerance.total_seconds()
        if abs(age) > tolerance:
            side = "old" if age > 0 else "in the future"
            raise SignatureError(
                f"timestamp is {abs(age):.0f} s {side}, tolerance is {tolerance:g} s"
            )


class _SecretHeader:
    def __init__(self, spec: HeaderVerify, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- a `Verifier` is given the body, and this kind does not cover it
        given = header(headers, self._spec.name).encode()

        def is_it(ref: str) -> bool:
            expected = self._spec.prefix + self._secrets.resolve(ref)
            return hmac.compare_digest(expected.encode(), given)

        if not _any_secret(self._spec.secrets, is_it):
            raise SignatureError(f"secret in header {self._spec.name} does not match")


class _BasicCredentials:
    def __init__(self, spec: BasicVerify, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- a `Verifier` is given the body, and this kind does not cover it
        given = _basic_credentials(header(headers, "Authorization"))
        username = self._secrets.text(self._spec.username)

        def is_it(ref: str) -> bool:
            expected = f"{username}:{self._secrets.resolve(ref)}"
            return hmac.compare_digest(expected.encode(), given)

        if not _any_secret(self._spec.passwords, is_it):
            raise SignatureError("basic credentials do not match")


def _scheme(spec: HmacVerify) -> Scheme:
    match spec.preset:
        case "stripe":
            return StripeScheme()
        case "standard-webhooks":
            return StandardWebhooksScheme()
        case None:
            return GenericScheme(spec)


def _any_secret(refs: tuple[str, ...], matches: Callable[[str], bool]) -> bool:
    """Try every secret; one that does not resolve matters only when no other one matches."""
    matched = False
    unresolved: SecretError | None = None
    for ref in refs:
        try:
            matched |= matches(ref)
        except SecretError as error:
            unresolved = error
    if not matched and unresolved is not None:
        raise unresolved
    return matched


def _basic_credentials(value: str) -> bytes:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        raise SignatureError("header Authorization is not basic authentication")
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("header Authorization is not basic authentication") from None
