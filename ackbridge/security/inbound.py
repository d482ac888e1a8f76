"""Verify callbacks, over the raw bytes and before anything is parsed."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

from ackbridge.clock import Clock
from ackbridge.errors import SecretError, SignatureError

from .secrets import Secrets
from .specs import BasicVerify, HeaderVerify, HmacVerify, UrlVerify, VerifySpec, split_signed

MAX_SIGNATURES = 16
"""In one header: a rotation needs a few, and each one costs a comparison."""

_MILLISECOND_DIGITS = 13
_ISO_8601 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[,;\s]+")
"""Between the items of a header; no encoding of a signature has it."""
_FRACTION = re.compile(r"\d{9,10}\.\d{1,9}", re.ASCII)
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


class Verifier(Protocol):
    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Return if the callback is the provider's; headers by lower-case name, the body raw.

        Raises:
            SignatureError: it is not, or its timestamp is out of tolerance; safe to log and reply.
            SecretError: a secret does not resolve, and no other one matches.
        """


def build_verifier(spec: VerifySpec | None, secrets: Secrets, clock: Clock) -> Verifier:
    """Build the verifier of one integration; without a spec, it refuses everything.

    Callbacks whose URL proves them are verified by `CallbackUrls`.

    Secrets are resolved for every callback, so that a rotation takes effect at once.
    """
    match spec:
        case None:
            return _RefuseAll()
        case HmacVerify():
            return _HmacVerifier(spec, secrets, clock)
        case HeaderVerify():
            return _HeaderVerifier(spec, secrets)
        case BasicVerify():
            return _BasicVerifier(spec, secrets)
        case UrlVerify():
            return _RefuseAll("callbacks of this provider are verified by their URL")


class _RefuseAll:
    def __init__(self, reason: str = "this provider has no callback verification") -> None:
        self._reason = reason

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- the signature is the protocol's
        raise SignatureError(self._reason)


class _HeaderVerifier:
    def __init__(self, spec: HeaderVerify, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- a shared secret does not cover the body
        given = _header(headers, self._spec.name).encode()

        def matches(ref: str) -> bool:
            expected = self._spec.prefix + self._secrets.resolve(ref)
            return hmac.compare_digest(expected.encode(), given)

        if not _any_secret(self._spec.secrets, matches):
            raise SignatureError(f"secret in header {self._spec.name} does not match")


class _BasicVerifier:
    def __init__(self, spec: BasicVerify, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 -- credentials do not cover the body
        given = _basic_credentials(_header(headers, "Authorization"))
        username = self._secrets.text(self._spec.username)

        def matches(ref: str) -> bool:
            expected = f"{username}:{self._secrets.resolve(ref)}"
            return hmac.compare_digest(expected.encode(), given)

        if not _any_secret(self._spec.passwords, matches):
            raise SignatureError("basic credentials do not match")


@dataclass(frozen=True, slots=True)
class SignedContent:
    """What a callback signs; one matching signature is enough. The timestamp is Unix time."""

    content: bytes = field(repr=False)
    signatures: tuple[bytes, ...] = field(repr=False)
    timestamp: float | None


class _HmacVerifier:
    def __init__(self, spec: HmacVerify, secrets: Secrets, clock: Clock) -> None:
        self._secrets = spec.secrets
        self._tolerance = spec.tolerance.total_seconds()
        self._algorithm = spec.algorithm
        self._clock = clock
        self._read: Callable[[Mapping[str, str], bytes], SignedContent]
        self._key: Callable[[str], bytes] = lambda ref: secrets.resolve(ref).encode()
        match spec.preset:
            case "stripe":
                self._read = _read_stripe
            case "standard-webhooks":
                self._read = _read_standard_webhooks
                self._key = secrets.webhook_key
            case None:
                self._read = partial(_read_generic, spec, spec.headers, split_signed(spec.signed))

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        signed = self._read(headers, body)

        def matches(ref: str) -> bool:
            expected = hmac.digest(self._key(ref), signed.content, self._algorithm)
            return any(hmac.compare_digest(expected, given) for given in signed.signatures)

        if not _any_secret(self._secrets, matches):
            raise SignatureError("signature does not match")
        if signed.timestamp is not None:
            age = self._clock().timestamp() - signed.timestamp
            if abs(age) > self._tolerance:
                side = "old" if age > 0 else "in the future"
                raise SignatureError(
                    f"timestamp is {abs(age):.0f} s {side}, tolerance is {self._tolerance:g} s"
                )


def _read_generic(
    spec: HmacVerify,
    names: tuple[str, ...],
    parts: tuple[str, ...],
    headers: Mapping[str, str],
    body: bytes,
) -> SignedContent:
    signatures = _generic_signatures(spec, names, headers)
    timestamp = _header(headers, spec.timestamp_header) if spec.timestamp_header else ""
    message_id = _header(headers, spec.id_header) if spec.id_header else ""
    if _is_ambiguous(message_id, parts):
        raise SignatureError(f"header {spec.id_header} has the text that ends it")
    values = {"{timestamp}": timestamp.encode(), "{id}": message_id.encode(), "{body}": body}
    return SignedContent(
        content=b"".join(values.get(part, part.encode()) for part in parts),
        signatures=signatures,
        timestamp=_moment(timestamp) if timestamp else None,
    )


def _is_ambiguous(message_id: str, parts: tuple[str, ...]) -> bool:
    """Whether what is signed could be another id with another timestamp or body behind it."""
    if not message_id or "{id}" not in parts:
        return False
    after = parts.index("{id}") + 1
    return after < len(parts) and not parts[after].startswith("{") and parts[after] in message_id


def _generic_signatures(
    spec: HmacVerify, names: tuple[str, ...], headers: Mapping[str, str]
) -> tuple[bytes, ...]:
    """The signatures in those of the named headers that are there."""
    present = [name for name in names if headers.get(name.lower(), "").strip()] or names[:1]
    found = [one for name in present for one in _in_header(spec, name, _header(headers, name))]
    if len(found) > MAX_SIGNATURES:
        raise SignatureError(f"more than {MAX_SIGNATURES} signatures")
    return tuple(_decode(one, spec.encoding) for one in found)


def _in_header(spec: HmacVerify, name: str, given: str) -> list[str]:
    """The signatures in one header, which may have those of several secrets or versions."""
    is_list = _SEPARATOR.search(spec.prefix) is None
    items = _SEPARATOR.split(given) if is_list else [given]
    found = [one.removeprefix(spec.prefix) for one in items if one.startswith(spec.prefix)]
    if not found:
        raise SignatureError(f"signature in header {name} does not start with {spec.prefix!r}")
    return found


def _read_stripe(headers: Mapping[str, str], body: bytes) -> SignedContent:
    """`Stripe-Signature: t=<time>,v1=<hex>[,v1=<hex>]`; Stripe asks to ignore other versions."""
    name = "Stripe-Signature"
    items = [item.strip().partition("=") for item in _header(headers, name).split(",")]
    timestamps = [value for key, _, value in items if key == "t"]
    signatures = [value for key, _, value in items if key == "v1"]
    if len(timestamps) != 1 or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise SignatureError(f"header {name} is not of the form t=...,v1=...")
    return SignedContent(
        content=timestamps[0].encode() + b"." + body,
        signatures=tuple(_decode(signature, "hex") for signature in signatures),
        timestamp=_seconds(timestamps[0]),
    )


def _read_standard_webhooks(headers: Mapping[str, str], body: bytes) -> SignedContent:
    """standardwebhooks.com: `webhook-signature: v1,<base64>[ v1,<base64>]`; v1a is ignored.

    Svix, where the standard comes from, names the headers `svix-id` and so on.
    """
    prefix = "webhook" if "webhook-signature" in headers else "svix"
    if f"{prefix}-signature" not in headers:
        raise SignatureError("header webhook-signature is missing")
    message_id = _header(headers, f"{prefix}-id")
    timestamp = _header(headers, f"{prefix}-timestamp")
    items = [item.partition(",") for item in _header(headers, f"{prefix}-signature").split()]
    signatures = [value for version, _, value in items if version == "v1"]
    if "." in message_id:
        # Dots separate what is signed: an id with one could be another id and another time.
        raise SignatureError(f"header {prefix}-id has a dot")
    seconds = _seconds(timestamp)
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise SignatureError(f"header {prefix}-signature is not of the form v1,...")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise SignatureError("body is not UTF-8 text") from None
    return SignedContent(
        content=f"{message_id}.{timestamp}.".encode() + body,
        signatures=tuple(_decode(signature, "base64") for signature in signatures),
        timestamp=seconds,
    )


def _any_secret(refs: tuple[str, ...], matches: Callable[[str], bool]) -> bool:
    """Try every secret; one that does not resolve matters only if no other one matches."""
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


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name.lower(), "").strip()
    if not value:
        raise SignatureError(f"header {name} is missing")
    return value


def _basic_credentials(value: str) -> bytes:
    scheme, _, encoded = value.partition(" ")
    try:
        if scheme.lower() == "basic":
            return base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        pass
    raise SignatureError("header Authorization is not basic authentication")


def _moment(timestamp: str) -> float:
    """Unix time of a timestamp, whichever way it is written."""
    if _ISO_8601.fullmatch(timestamp):
        return _iso_time(timestamp)
    if _FRACTION.fullmatch(timestamp):
        return float(timestamp)
    if len(timestamp) == _MILLISECOND_DIGITS and timestamp.isascii() and timestamp.isdigit():
        return int(timestamp) / 1000
    return _seconds(timestamp)


def _iso_time(timestamp: str) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        raise SignatureError("timestamp is no valid date and time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _seconds(timestamp: str) -> int:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _MILLISECOND_DIGITS):
        raise SignatureError("timestamp is not Unix time in seconds")
    if len(timestamp) == _MILLISECOND_DIGITS:
        raise SignatureError("timestamp is in milliseconds, not seconds")
    return int(timestamp)


def _decode(signature: str, encoding: Literal["hex", "base64"]) -> bytes:
    """Decode a signature; a malformed one becomes empty, which matches nothing."""
    try:
        if encoding == "hex":
            return binascii.unhexlify(signature.strip())
        standard = signature.strip().rstrip("=").translate(_STANDARD_ALPHABET)
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except ValueError:
        return b""
