"""Signing of callbacks by a provider: the counterpart of `ackbridge.security.inbound`.

Implemented from the specifications of the schemes, independently of the code that verifies them, so
that each tests the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime

from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import BasicVerify, HeaderVerify, HmacVerify, UrlVerify, VerifySpec

Headers = dict[str, str]
Sign = Callable[[bytes, bytes, str, datetime], Headers]
"""(secret, body, message id, time) to headers."""


class Signer:
    """Signs the callbacks of one provider; if `signs_time`, a receiver can detect old ones."""

    def __init__(self, sign: Sign, secret: str, *, signs_time: bool = False) -> None:
        self._sign = sign
        self._secret = secret
        self.signs_time = signs_time

    def sign(self, body: bytes, message_id: str, at: datetime) -> Headers:
        """The headers of an authentic callback, by lower-case name."""
        return self._sign(self._secret.encode(), body, message_id, at)

    def forge(self, body: bytes, message_id: str, at: datetime) -> Headers:
        """The headers of a callback that is signed with another secret."""
        # Keeps the form of the secret: libraries refuse to sign with other forms.
        prefix = "whsec_" if self._secret.startswith("whsec_") else ""
        other = prefix + self._secret.removeprefix(prefix)[::-1]
        return self._sign(other.encode(), body, message_id, at)


def build_signer(spec: VerifySpec, secrets: Secrets) -> Signer:
    """A signer whose signatures a verifier accepts; of several secrets, the first one signs."""
    match spec:
        case HmacVerify():
            sign = _SIGNATURES.get(spec.preset or "") or _custom_signature(spec)
            signs_time = spec.preset is not None or spec.timestamp_header is not None
            return Signer(sign, secrets.resolve(spec.secrets[0]), signs_time=signs_time)
        case HeaderVerify():
            name, prefix = spec.name.lower(), spec.prefix
            return Signer(
                lambda secret, _body, _id, _at: {name: prefix + secret.decode()},
                secrets.resolve(spec.secrets[0]),
            )
        case UrlVerify():
            return Signer(lambda *_: {}, secrets.resolve(spec.secrets[0]))
        case BasicVerify():
            username = secrets.text(spec.username)
            return Signer(
                lambda secret, _body, _id, _at: basic(username, secret.decode()),
                secrets.resolve(spec.passwords[0]),
            )


def basic(username: str, password: str) -> Headers:
    credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"authorization": f"Basic {credentials}"}


def stripe(secret: bytes, body: bytes, _message_id: str, at: datetime) -> Headers:
    """Stripe's scheme, with a second version that receivers ignore."""
    time = str(int(at.timestamp()))
    signature = hmac.new(secret, f"{time}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={time},v1={signature},v0=ab"}


def standard_webhooks(secret: bytes, body: bytes, message_id: str, at: datetime) -> Headers:
    """The scheme of standardwebhooks.com; the secret is `whsec_` and base64."""
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    time = str(int(at.timestamp()))
    signature = hmac.new(key, f"{message_id}.{time}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": time,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _custom_signature(spec: HmacVerify) -> Sign:
    def sign(secret: bytes, body: bytes, message_id: str, at: datetime) -> Headers:
        time = str(int(at.timestamp()))
        before, _, after = spec.signed.partition("{body}")
        known = {"{timestamp}": time, "{id}": message_id}
        # The body is inserted last: it may contain braces.
        text = body.join(_filled(part, known).encode() for part in (before, after))
        digest = hmac.new(secret, text, spec.algorithm).digest()
        encoded = digest.hex() if spec.encoding == "hex" else base64.b64encode(digest).decode()
        headers = {spec.headers[0].lower(): spec.prefix + encoded}
        if spec.timestamp_header:
            headers[spec.timestamp_header.lower()] = time
        if spec.id_header:
            headers[spec.id_header.lower()] = message_id
        return headers

    return sign


def _filled(template: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        template = template.replace(name, value)
    return template


_SIGNATURES: Mapping[str, Sign] = {"stripe": stripe, "standard-webhooks": standard_webhooks}
