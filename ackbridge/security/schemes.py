"""How signatures travel: where each scheme puts them, and what exactly is signed."""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from standardwebhooks import Webhook

from ackbridge.errors import SecretError, SignatureError

from .specs import HmacVerify, split_signed

MOST_SIGNATURES = 16
"""More in one header is not a rotation but somebody having us compute."""

_TIMESTAMP_DIGITS = 11


@dataclass(frozen=True)
class Signed:
    """What came, taken apart.

    Attributes:
        text: the signed bytes (for Standard Webhooks: the body).
        signatures: decoded; any of them may be the right one.
        timestamp: Unix time in seconds, when there is one.
        message_id: the provider's id of the message, where the scheme signs one.
    """

    text: bytes = field(repr=False)
    signatures: tuple[bytes, ...] = field(repr=False)
    timestamp: int | None = None
    message_id: str = ""


class Scheme(Protocol):
    """Reads a callback, and computes the signature it should have."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Signed:
        """Take the callback apart; raises `SignatureError` when something is missing or
        malformed."""

    def sign(self, ref: str, secret: str, signed: Signed) -> bytes:
        """The signature by one secret; raises `SecretError` naming `ref` if it is none."""


class GenericScheme:
    """HMAC over a template, as the integration file spells it out."""

    def __init__(self, spec: HmacVerify) -> None:
        self._spec = spec
        self._parts = split_signed(spec.signed)

    def read(self, headers: Mapping[str, str], body: bytes) -> Signed:
        """The signature from its header, and the template filled in."""
        spec = self._spec
        name = spec.header or ""
        given = header(headers, name)
        if not given.startswith(spec.prefix):
            raise SignatureError(f"signature in header {name} does not start with {spec.prefix!r}")
        signature = _decode(given.removeprefix(spec.prefix), spec.encoding)
        stamp = header(headers, spec.timestamp_header) if spec.timestamp_header else None
        message_id = header(headers, spec.id_header) if spec.id_header else ""
        timestamp = None if stamp is None else _timestamp(stamp)
        values = {
            "{timestamp}": (stamp or "").encode(),
            "{id}": message_id.encode(),
            "{body}": body,
        }
        text = b"".join(values.get(part, part.encode()) for part in self._parts)
        return Signed(text, (signature,), timestamp, message_id)

    def sign(self, ref: str, secret: str, signed: Signed) -> bytes:  # noqa: ARG002 -- any text is a key here, so there is nothing to complain about
        """HMAC with the text of the secret as the key."""
        return hmac.digest(secret.encode(), signed.text, self._spec.algorithm)


class StripeScheme:
    """`Stripe-Signature: t=<time>,v1=<hex>[,v1=<hex>]` over `<time>.<body>`, SHA-256."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Signed:
        """Time and v1 signatures; other versions are ignored, as Stripe asks for."""
        name = "Stripe-Signature"
        items = [item.strip().partition("=") for item in header(headers, name).split(",")]
        stamps = [value for key, _, value in items if key == "t"]
        signatures = [value for key, _, value in items if key == "v1"]
        if len(stamps) != 1 or not 0 < len(signatures) <= MOST_SIGNATURES:
            raise SignatureError(f"header {name} is not of the form t=...,v1=...")
        return Signed(
            text=stamps[0].encode() + b"." + body,
            signatures=tuple(_decode(signature, "hex") for signature in signatures),
            timestamp=_timestamp(stamps[0]),
        )

    def sign(self, ref: str, secret: str, signed: Signed) -> bytes:  # noqa: ARG002 -- any text is a key here, so there is nothing to complain about
        """HMAC with the whole secret as the key, its `whsec_` included."""
        return hmac.digest(secret.encode(), signed.text, "sha256")


class StandardWebhooksScheme:
    """standardwebhooks.com: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

    The library signs; its own `verify` reads the wall clock and knows one fixed tolerance.
    """

    def read(self, headers: Mapping[str, str], body: bytes) -> Signed:
        """Id, time and v1 signatures; asymmetric ones (v1a) are ignored."""
        message_id = header(headers, "webhook-id")
        timestamp = _timestamp(header(headers, "webhook-timestamp"))
        given = [item.partition(",") for item in header(headers, "webhook-signature").split()]
        signatures = [value for version, _, value in given if version == "v1"]
        if not 0 < len(signatures) <= MOST_SIGNATURES:
            raise SignatureError("header webhook-signature is not of the form v1,...")
        decoded = tuple(_decode(signature, "base64") for signature in signatures)
        return Signed(body, decoded, timestamp, message_id)

    def sign(self, ref: str, secret: str, signed: Signed) -> bytes:
        """The library's signature, by a `whsec_` secret in base64."""
        try:
            text = signed.text.decode()
        except UnicodeDecodeError:
            raise SignatureError("body is not UTF-8 text") from None
        try:
            webhook = Webhook(secret)
        except Exception:
            # The library lets whatever base64 raises through.
            raise SecretError(f"{ref}: is not a Standard Webhooks secret (whsec_...)") from None
        at = datetime.fromtimestamp(signed.timestamp or 0, UTC)
        _, _, signature = webhook.sign(signed.message_id, at, text).partition(",")
        return binascii.a2b_base64(signature)


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value; an absent or empty one raises `SignatureError`."""
    value = headers.get(name.lower(), "").strip()
    if not value:
        raise SignatureError(f"header {name} is missing")
    return value


def _timestamp(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _TIMESTAMP_DIGITS):
        raise SignatureError("timestamp is not Unix time in seconds")
    return int(text)


def _decode(text: str, encoding: Literal["hex", "base64"]) -> bytes:
    """The bytes of a signature; one that does not decode matches nothing."""
    try:
        if encoding == "hex":
            return binascii.unhexlify(text.strip())
        standard = text.strip().rstrip("=").translate(_STANDARD_ALPHABET)
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except ValueError:
        return b""


_STANDARD_ALPHABET = str.maketrans("-_", "+/")
