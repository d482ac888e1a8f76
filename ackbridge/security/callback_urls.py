"""Callback URLs that prove themselves: one for each call, for providers that sign nothing.

A URL ends in a token, the call id and a MAC over it. Whoever has the URL may speak for its call and
for no other one, so it is a secret: it is removed from what providers send back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH
from ackbridge.errors import SecretError, SignatureError

from .secrets import CALLBACK_TOKEN, CALLBACK_TOKEN_PREFIX, Secrets
from .specs import UrlVerify, VerifySpec

_MAC_BYTES = 16
_MAX_LENGTH = 4 * MAX_CALL_ID_LENGTH
_PURPOSE = b"ackbridge callback url"
"""Keeps the MAC apart from everything else that is signed with the same secret."""


class CallbackUrls:
    """Makes and checks the tokens of one provider; any of its secrets may have made one."""

    def __init__(self, spec: UrlVerify, provider: str, secrets: Secrets) -> None:
        self._refs = spec.secrets
        self._provider = provider
        self._secrets = secrets

    def token(self, call_id: str) -> str:
        """The token of a call, by the first secret; raises `SecretError`."""
        return self._token(self._refs[0], call_id)

    def call_of(self, token: str) -> str:
        """The call that a token is for.

        Raises:
            SignatureError: it is none of ours; safe to log and reply.
            SecretError: a secret does not resolve, and no other one matches.
        """
        call_id = _call_id_in(token)
        unresolved: SecretError | None = None
        for ref in self._refs:
            try:
                if hmac.compare_digest(self._token(ref, call_id), token):
                    return call_id
            except SecretError as error:
                unresolved = error
        raise unresolved or SignatureError("the token in the URL does not match")

    def _token(self, ref: str, call_id: str) -> str:
        signed = b"\0".join((_PURPOSE, self._provider.encode(), call_id.encode()))
        key = self._secrets.resolve(ref).encode()
        mac = hmac.digest(key, signed, hashlib.sha256)[:_MAC_BYTES]
        return f"{CALLBACK_TOKEN_PREFIX}{_encode(call_id.encode())}.{_encode(mac)}"


def _call_id_in(token: str) -> str:
    if len(token) <= _MAX_LENGTH and CALLBACK_TOKEN.fullmatch(token):
        encoded = token.removeprefix(CALLBACK_TOKEN_PREFIX).partition(".")[0]
        try:
            return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except ValueError:
            pass
    raise SignatureError("the URL has no token of a call")


def callback_urls(spec: VerifySpec | None, provider: str, secrets: Secrets) -> CallbackUrls | None:
    """The URLs of a provider; None where something else verifies its callbacks."""
    return CallbackUrls(spec, provider, secrets) if isinstance(spec, UrlVerify) else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
