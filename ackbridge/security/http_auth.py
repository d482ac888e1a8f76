"""Authentication of HTTP clients, and their roles: JSON Web Tokens and API keys.

Every HTTP route but health and callbacks depends on `HttpAuth.require`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpx
from fastapi import HTTPException, Request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from pydantic import ValidationError

from ackbridge.clock import Clock
from ackbridge.contracts.identity import (
    API_KEY_PREFIX,
    API_KEYS,
    ApiKey,
    AuthSettings,
    Grant,
    Identity,
    IdentitySource,
    Role,
    is_grant,
)
from ackbridge.contracts.limits import MAX_ACTOR_LENGTH
from ackbridge.contracts.wire import describe_validation_error
from ackbridge.errors import AckbridgeError, ConfigurationError, UnavailableError
from ackbridge.http.client import build_client, exchange

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""Asymmetric ones only: a public key must never be taken for the secret of an HMAC."""

MAX_TOKEN_LENGTH: Final = 16 * 1024
"""Characters."""

LEEWAY: Final = timedelta(seconds=30)
"""By which the clock of the issuer may differ."""

JWKS_LIFETIME: Final = timedelta(minutes=10)
JWKS_PAUSE: Final = timedelta(seconds=30)
"""Between two requests for keys, however many tokens name an unknown key."""

JWKS_TIMEOUT: Final = timedelta(seconds=5)
MAX_JWKS_BYTES: Final = 256 * 1024

UNAUTHENTICATED: Final = "unauthenticated"
FORBIDDEN: Final = "forbidden"

OnRefused: TypeAlias = Callable[[str, str, str], None]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class AuthenticationError(AckbridgeError):
    """No valid credential; the text does not repeat it."""


class HttpAuth:
    """Authenticates requests by `Authorization: Bearer`; close it with `aclose`."""

    def __init__(
        self, settings: AuthSettings, clock: Clock, on_refused: OnRefused | None = None
    ) -> None:
        """Read the settings.

        Args:
            on_refused: told of every refused request: the address of its sender, what it lacks,
                and why, without anything of the request.

        Raises:
            ConfigurationError: the keys are to be fetched without TLS, or a file is not valid.
        """
        self._on_refused = on_refused
        self._keys = None if settings.api_keys is None else ApiKeyFile(settings.api_keys, clock)
        self._tokens = None if settings.jwks is None else TokenVerifier(settings, clock)

    async def aclose(self) -> None:
        if self._tokens is not None:
            await self._tokens.aclose()

    async def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Return who sends a request.

        Args:
            headers: by lower-case name.

        Raises:
            AuthenticationError: without a valid credential.
            UnavailableError: the issuer's keys cannot be fetched.
        """
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise AuthenticationError("Authorization: Bearer is required")
        if credential.startswith(f"{API_KEY_PREFIX}_"):
            if self._keys is None:
                raise AuthenticationError("API keys are not accepted")
            return self._keys.authenticate(credential)
        if self._tokens is None:
            raise AuthenticationError("tokens are not accepted")
        return await self._tokens.authenticate(credential)

    def require(self, role: Role) -> Callable[[Request], Awaitable[Identity]]:
        """Make a dependency of FastAPI that returns the identity, or answers 401, 403 or 503."""

        async def authorize(request: Request) -> Identity:
            identity = await self.identify(request)
            self.check(request, identity, role)
            return identity

        return authorize

    async def identify(self, request: Request) -> Identity:
        """Return the identity of a request, whatever its roles, or answer 401 or 503."""
        try:
            return await self.authenticate(request.headers)
        except AuthenticationError as error:
            self._refused(request, UNAUTHENTICATED, str(error))
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise HTTPException(401, str(error), headers) from None
        except UnavailableError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from None

    def check(
        self, request: Request, identity: Identity, role: Role, provider: str | None = None
    ) -> None:
        """Answer 403 unless an identity has a role for a provider; None: for every provider."""
        if identity.may(role, provider):
            return
        needed = f"needs the role {role}" + (f" for {provider}" if provider else "")
        self._refused(request, FORBIDDEN, needed)
        text = f'Bearer error="insufficient_scope", scope="{role}"'
        raise HTTPException(403, needed, {"WWW-Authenticate": text})

    def _refused(self, request: Request, status: str, reason: str) -> None:
        if self._on_refused is not None:
            self._on_refused(request.client.host if request.client else "", status, reason)


def open_http_auth(
    settings: AuthSettings, clock: Clock, on_refused: OnRefused | None = None
) -> HttpAuth | None:
    """As configured; None: routes that need a role are not served. See `HttpAuth`."""
    return HttpAuth(settings, clock, on_refused) if settings.is_configured else None


class ApiKeyFile:
    """The file of API keys, which is read again when it has changed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._version: tuple[int, int] | None = None
        self._keys: Mapping[str, ApiKey] = {}
        self._reload()

    def authenticate(self, credential: str) -> Identity:
        """Return the identity of a key; raises `AuthenticationError`."""
        self._reload_if_changed()
        parts = credential.split("_", 2)
        known = self._keys.get(parts[1]) if len(parts) == 3 else None
        expected = known.sha256 if known else "0" * 64
        if not hmac.compare_digest(hash_key(credential), expected) or known is None:
            raise AuthenticationError("the API key is not valid")
        if not known.is_valid(self._clock()):
            raise AuthenticationError("the API key has expired")
        return Identity(name=known.name, source=IdentitySource.API_KEY, roles=known.roles)

    def _reload_if_changed(self) -> None:
        try:
            if self._current_version() != self._version:
                self._reload()
        except (ConfigurationError, OSError) as error:
            # A file that is being replaced must not lock everybody out.
            log.warning("API keys are kept as they were: %s", error)

    def _reload(self) -> None:
        try:
            version = self._current_version()
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from None
        keys = read_api_keys(self._path)
        self._version, self._keys = version, {key.id: key for key in keys}

    def _current_version(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino


def new_api_key(
    key_id: str, name: str, roles: frozenset[Grant], expires_at: datetime
) -> tuple[str, ApiKey]:
    """Make a key, and its entry in the file."""
    key = f"{API_KEY_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    entry = ApiKey(id=key_id, name=name, sha256=hash_key(key), roles=roles, expires_at=expires_at)
    return key, entry


def read_api_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read the file; raises `ConfigurationError`."""
    try:
        return API_KEYS.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {describe_validation_error(error)}") from None


def write_api_keys(path: Path, keys: tuple[ApiKey, ...]) -> None:
    """Replace the file in one step; only its owner can read it."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(API_KEYS.dump_json(keys, indent=2) + b"\n")
    draft.replace(path)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class TokenVerifier:
    """Verifies JSON Web Tokens of one issuer."""

    def __init__(self, settings: AuthSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._jwks = Jwks(settings.jwks or "", clock)
        required: dict[str, Any] = {
            "iss": {"essential": True, "value": settings.issuer or ""},
            settings.audience_claim: {"essential": True, "value": settings.audience or ""},
            "exp": {"essential": True},
        }
        self._registry = jwt.JWTClaimsRegistry(
            now=lambda: int(clock().timestamp()),
            leeway=int(LEEWAY.total_seconds()),
            **required,
        )

    async def aclose(self) -> None:
        await self._jwks.aclose()

    async def authenticate(self, credential: str) -> Identity:
        """Return the identity of a token; raises as `HttpAuth.authenticate`."""
        if len(credential) > MAX_TOKEN_LENGTH:
            raise AuthenticationError("the token is too long")
        try:
            keys = await self._jwks.for_key(_key_id(credential))
            claims = jwt.decode(credential, keys, algorithms=ALGORITHMS).claims
            self._registry.validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            # The text of the error is not repeated: it may quote the token.
            raise AuthenticationError(f"the token is not valid: {type(error).__name__}") from None
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        name = claims.get(self._settings.name_claim)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_ACTOR_LENGTH:
            raise AuthenticationError(f"the token has no {self._settings.name_claim}")
        value: Any = claims
        for part in self._settings.roles_claim.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        given = value.split() if isinstance(value, str) else value
        prefix = self._settings.role_prefix
        texts = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
        named = (one.removeprefix(prefix) for one in texts if one.startswith(prefix))
        roles = frozenset(one for one in named if is_grant(one))
        return Identity(name=name, source=IdentitySource.TOKEN, roles=roles)


def _key_id(token: str) -> str | None:
    header = extract_compact(token.encode("ascii", "replace")).headers()
    found = header.get("kid")
    return found if isinstance(found, str) else None


class Jwks:
    """The public keys of an issuer; fetched again when they are old or a key is missing."""

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._keys: dict[str | None, KeySet] = {}
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._lock = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None
        url = urlsplit(source)
        self._is_url = url.scheme in ("http", "https")
        if url.scheme == "http" and url.hostname not in _LOOPBACK:
            raise ConfigurationError("ACKBRIDGE_AUTH_JWKS: keys are fetched by https:// only")

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def for_key(self, key_id: str | None) -> KeySet:
        """The set with the one key of a token.

        Raises:
            AuthenticationError: the issuer has no such key, or several and the token names none.
            UnavailableError: no keys could be fetched yet.
        """
        if key_id not in self._keys or self._is_due(self._fetched_at, JWKS_LIFETIME):
            async with self._lock:
                if self._is_due(self._tried_at, JWKS_PAUSE):
                    await self._refresh()
        if self._fetched_at is None:
            raise UnavailableError("the issuer's keys could not be fetched")
        if key_id not in self._keys:
            raise AuthenticationError("the issuer has no such key")
        return self._keys[key_id]

    def _is_due(self, since: datetime | None, after: timedelta) -> bool:
        return since is None or self._clock() - since >= after

    async def _refresh(self) -> None:
        self._tried_at = self._clock()
        try:
            document = json.loads(await self._read())
            keys = KeySet.import_key_set(document).keys
        except (OSError, httpx.HTTPError, AckbridgeError, JoseError) as error:
            log.warning("the keys of the issuer could not be read: %s", type(error).__name__)
            return
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("the keys of the issuer could not be read: not a JSON Web Key Set")
            return
        found: dict[str | None, KeySet] = {key.kid: KeySet([key]) for key in keys if key.kid}
        if len(keys) == 1:
            found[None] = KeySet(keys)
        self._keys, self._fetched_at = found, self._clock()

    async def _read(self) -> bytes:
        if not self._is_url:
            return await asyncio.to_thread(Path(self._source).read_bytes)
        if self._client is None:
            self._client = build_client(connect_timeout=JWKS_TIMEOUT, max_connections=1)
        answer = await exchange(
            self._client,
            method="GET",
            url=self._source,
            headers={},
            content=None,
            auth=None,
            timeout=JWKS_TIMEOUT,
            max_bytes=MAX_JWKS_BYTES,
        )
        if answer.status != httpx.codes.OK or answer.problem:
            raise UnavailableError(f"the issuer answered {answer.status}")
        return answer.body
