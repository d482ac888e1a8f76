"""Sign requests to providers: by an HMAC over a template, or by HTTP message signatures (RFC 9421).

The outgoing counterpart of `ackbridge.security.inbound`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import Generator, Mapping
from datetime import datetime

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPSignatureKeyResolver,
    algorithms,
)

from ackbridge.clock import Clock
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import SecretError

from .secrets import Secrets
from .specs import HTTP_SIGNATURE_HMAC, SIGNED_REQUEST_PART, SignAuth

_USUAL_ALPHABET = str.maketrans("-_", "+/")

LABEL = "sig1"
"""Of our signature, among those of a message."""

_ALGORITHMS: Mapping[str, type[algorithms.HTTPSignatureAlgorithm]] = {
    HTTP_SIGNATURE_HMAC: algorithms.HMAC_SHA256,
    "ed25519": algorithms.ED25519,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "ecdsa-p384-sha384": algorithms.ECDSA_P384_SHA384,
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "rsa-v1_5-sha256": algorithms.RSA_V1_5_SHA256,
}


class RequestSigner(httpx.Auth):
    """Signs requests as they are sent; what it covers must not change afterwards."""

    def __init__(self, spec: SignAuth, secrets: Secrets, clock: Clock) -> None:
        self._spec = spec
        self._secrets = secrets
        self._clock = clock
        self._loaded: tuple[str, object] = ("", None)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request; raises as `sign`."""
        yield self.sign(request)

    def sign(self, request: httpx.Request) -> httpx.Request:
        """Add the headers with the signature.

        Raises:
            SecretError: the key does not resolve, or is none; nothing was sent.
            InvalidInputError: the request has not what the signature covers.
        """
        if self._spec.scheme == "hmac":
            self._sign_by_hmac(request)
        else:
            self._sign_message(request)
        return request

    def _sign_by_hmac(self, request: httpx.Request) -> None:
        spec = self._spec
        values = self._values(request)
        if spec.timestamp_header is not None:
            request.headers[spec.timestamp_header] = values["timestamp"].decode()
        if spec.nonce_header is not None:
            request.headers[spec.nonce_header] = values["nonce"].decode()
        signed = b"".join(
            _value(part, values, request.headers) for part in SIGNED_REQUEST_PART.split(spec.signed)
        )
        digest = hmac.digest(self._shared_key(), signed, spec.algorithm)
        hexadecimal = digest.hex()
        text = hexadecimal if spec.encoding == "hex" else base64.b64encode(digest).decode()
        values["signature"] = text.encode()
        request.headers[spec.header or ""] = b"".join(
            _value(part, values, request.headers) for part in SIGNED_REQUEST_PART.split(spec.value)
        ).decode()

    def _values(self, request: httpx.Request) -> dict[str, bytes]:
        target = request.url.raw_path
        path, _, query = target.partition(b"?")
        body = request.content
        return {
            "timestamp": _timestamp(self._clock(), self._spec.timestamp_unit).encode(),
            "nonce": uuid.uuid4().hex.encode(),
            "method": request.method.encode(),
            "target": target,
            "path": path,
            "query": query,
            "host": request.url.netloc,
            "url": str(request.url).encode(),
            "body": body,
            "body_sha256": hashlib.sha256(body).hexdigest().encode(),
            "key_id": self._secrets.text(self._spec.key_id or "").encode(),
        }

    def _sign_message(self, request: httpx.Request) -> None:
        spec = self._spec
        signer = HTTPMessageSigner(
            signature_algorithm=_ALGORITHMS[spec.algorithm], key_resolver=_OneKey(self._key())
        )
        # Of an earlier attempt with the same request.
        for name in ("content-digest", "signature", "signature-input"):
            request.headers.pop(name, None)
        now = self._clock()
        try:
            signer.sign(
                request,
                key_id=self._secrets.text(spec.key_id or ""),
                created=now,
                expires=now + spec.expires if spec.expires is not None else None,
                nonce=uuid.uuid4().hex if spec.nonce else None,
                label=LABEL,
                tag=spec.tag,
                covered_component_ids=spec.covered,
                body=request.content if spec.digest else None,
            )
        except HTTPMessageSignaturesException as error:
            raise InvalidInputError(f"auth: the request cannot be signed: {error}") from None

    def _key(self) -> object:
        if self._spec.algorithm == HTTP_SIGNATURE_HMAC:
            return self._shared_key()
        text = self._secrets.resolve(self._spec.key)
        if self._loaded[0] != text:
            self._loaded = (text, private_key(self._spec.key, text))
        return self._loaded[1]

    def _shared_key(self) -> bytes:
        text = self._secrets.resolve(self._spec.key)
        try:
            match self._spec.key_encoding:
                case "hex":
                    return bytes.fromhex(text.strip())
                case "base64":
                    return base64.b64decode(text.strip().translate(_USUAL_ALPHABET) + "==")
        except ValueError:
            problem = f"{self._spec.key}: is not in {self._spec.key_encoding}"
            raise SecretError(problem) from None
        return text.encode()


class _OneKey(HTTPSignatureKeyResolver):
    def __init__(self, key: object) -> None:
        self._key = key

    def resolve_private_key(self, key_id: str) -> object:  # noqa: ARG002 -- the library's signature
        return self._key


def private_key(ref: str, pem: str) -> object:
    """A private key in PEM; raises `SecretError` without any of it."""
    try:
        return load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SecretError(f"{ref}: is not a private key in PEM without a password") from None


def _value(part: str, values: Mapping[str, bytes], headers: httpx.Headers) -> bytes:
    """The value of a `{part}` of a template, or a literal text."""
    if SIGNED_REQUEST_PART.fullmatch(part) is None:
        return part.encode()
    name = part[1:-1]
    kind, _, header = name.partition(":")
    return headers.get(header, "").encode() if kind == "header" else values[name]


def _timestamp(now: datetime, unit: str) -> str:
    if unit == "iso":
        return now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(int(now.timestamp() * (1000 if unit == "ms" else 1)))
