"""Event tokens: what a backend gives its page, so that the page can follow one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from ackbridge.clock import Clock
from ackbridge.errors import ConfigurationError
from ackbridge.security.http_auth import MAX_TOKEN_LENGTH, AuthenticationError

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "ackbridge-events"
MIN_SECRET_LENGTH: Final = 32
"""Characters."""


@dataclass(frozen=True)
class EventAccess:
    """What an event token allows: to follow one call.

    Attributes:
        language: of the built-in texts, a tag such as `de`.
    """

    call_id: str
    language: str | None
    expires_at: datetime


class EventTokens:
    """Signs and verifies event tokens: JSON Web Tokens that only this program reads."""

    def __init__(self, secrets: Sequence[str], lifetime: timedelta, clock: Clock) -> None:
        """Read the secrets; the first signs, all verify.

        Raises:
            ConfigurationError: one is too short.
        """
        if not secrets or min(map(len, secrets)) < MIN_SECRET_LENGTH:
            raise ConfigurationError(
                f"ACKBRIDGE_STREAMS_SECRETS: a secret has {MIN_SECRET_LENGTH} characters or more"
            )
        self._keys = [OctKey.import_key(secret) for secret in secrets]
        self._lifetime = lifetime
        self._clock = clock
        self._registry = jwt.JWTClaimsRegistry(
            now=lambda: int(clock().timestamp()),
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )

    def mint(self, call_id: str, language: str | None = None) -> tuple[str, datetime]:
        """Make a token of a call.

        Returns:
            The token, and when it expires.
        """
        # In whole seconds, as the token says it.
        expires_at = self._clock().replace(microsecond=0) + self._lifetime
        claims = {"aud": AUDIENCE, "sub": call_id, "exp": int(expires_at.timestamp())}
        if language is not None:
            claims["lang"] = language
        return jwt.encode({"alg": ALGORITHM}, claims, self._keys[0]), expires_at

    def verify(self, token: str, call_id: str) -> EventAccess:
        """What a token allows.

        Raises:
            AuthenticationError: it is not valid, has expired, or is for another call.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise AuthenticationError("the event token is too long")
        claims = None
        for key in self._keys:
            try:
                claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
                self._registry.validate(claims)
                break
            except (JoseError, ValueError, TypeError, RecursionError):
                claims = None
        if claims is None:
            raise AuthenticationError("the event token is not valid, or has expired")
        if claims.get("sub") != call_id:
            raise AuthenticationError("the event token is for another call")
        expires_at = datetime.fromtimestamp(claims["exp"], self._clock().tzinfo)
        return EventAccess(call_id, claims.get("lang"), expires_at)
