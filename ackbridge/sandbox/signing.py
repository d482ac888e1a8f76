"""How a provider signs its callbacks: the other side of `ackbridge.security.inbound`.

Computed on its own, from what the schemes say and not from our code that verifies them, so that
each is a check of the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import BasicVerify, HeaderVerify, HmacVerify, VerifySpec

Headers = dict[str, str]
Sign = Callable[[bytes, bytes, str, datetime], Headers]
"""From secret, body, message id and time to headers."""


class Signer(Protocol):
    """Signs for one provider."""

    knows_time: bool
    """Whether an old callback can be told from a new one."""

    def sign(self, body: bytes, message_id: str, at: datetime) -> Headers:
        """The headers of a true callback, by lower-case name."""

    def forge(self, body: bytes, message_id: str, at: datetime) -> Headers:
        """The headers of somebody who does not know the secret."""


def build_signer(spec: VerifySpec, secrets: Secrets) -> Signer:
    """The signer that a verifier of this kind accepts.

    Args:
        secrets: what the references stand for; the first one of several signs.
    """
    match spec:
        case HmacVerify():
            ref, sign = spec.secrets[0], _SIGNATURES.get(spec.preset or "") or _spelled_out(spec)
            return _Signer(sign, secrets.resolve(ref), knows_time=_knows_time(spec))
        case HeaderVerify():
            name, prefix = spec.name.lower(), spec.prefix
            return _Signer(
                lambda secret, _body, _id, _at: {name: prefix + secret.decode()},
                secrets.resolve(spec.secrets[0]),
            )
        case BasicVerify():
            username = secrets.text(spec.username)
            return _Signer(
                lambda secret, _body, _id, _at: basic(username, secret.decode()),
                secrets.resolve(spec.passwords[0]),
            )


def basic(username: str, password: str) -> Headers:
    """HTTP Basic credentials."""
    credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"authorization": f"Basic {credentials}"}


class _Signer:
    def __init__(self, sign: Sign, secret: str, *, knows_time: bool = False) -> None:
        self._sign = sign
        self._secret = secret
        self.knows_time = knows_time

    def sign(self, body: bytes, message_id: str, at: datetime) -> Headers:
        return self._sign(self._secret.encode(), body, message_id, at)

    def forge(self, body: bytes, message_id: str, at: datetime) -> Headers:
        # Another text of the same form: libraries refuse to sign with others.
        start = "whsec_" if self._secret.startswith("whsec_") else ""
        other = start + self._secret.removeprefix(start)[::-1]
        return self._sign(other.encode(), body, message_id, at)


def _knows_time(spec: HmacVerify) -> bool:
    return spec.preset is not None or spec.timestamp_header is not None


def stripe(secret: bytes, body: bytes, _message_id: str, at: datetime) -> Headers:
    """As Stripe signs, a second version included that nobody needs to know."""
    time = str(int(at.timestamp()))
    signature = hmac.new(secret, f"{time}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={time},v1={signature},v0=ab"}


def standard_webhooks(secret: bytes, body: bytes, message_id: str, at: datetime) -> Headers:
    """As standardwebhooks.com has it; the secret is base64 behind `whsec_`."""
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    time = str(int(at.timestamp()))
    signature = hmac.new(key, f"{message_id}.{time}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": time,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _spelled_out(spec: HmacVerify) -> Sign:
    def sign(secret: bytes, body: bytes, message_id: str, at: datetime) -> Headers:
        time = str(int(at.timestamp()))
        before, _, after = spec.signed.partition("{body}")
        known = {"{timestamp}": time, "{id}": message_id}
        # The body last: it may have braces of its own.
        text = body.join(_filled(part, known).encode() for part in (before, after))
        digest = hmac.new(secret, text, spec.algorithm).digest()
        encoded = digest.hex() if spec.encoding == "hex" else base64.b64encode(digest).decode()
        headers = {(spec.header or "").lower(): spec.prefix + encoded}
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
