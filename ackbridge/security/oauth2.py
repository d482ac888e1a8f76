"""OAuth 2 client credentials: one token for everybody, renewed once and in time."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from ackbridge.clock import Clock
from ackbridge.errors import SecretError, UnavailableError
from ackbridge.http.client import cap, client_options

from .secrets import Secrets
from .specs import OAuth2Auth

with warnings.catch_warnings():
    from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]

    # Authlib announces its move from httpx to httpx2; see docs/decisions/0005. It is imported in
    # here because importing it makes its warnings louder for the whole process.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]
        AsyncOAuth2Client,
        OAuthError,
    )

TOKEN_TIMEOUT = timedelta(seconds=10)
MAX_TOKEN_BYTES = 64 * 1024
MAX_REFUSAL_BYTES = 1024 * 1024
LONGEST_LIFE = timedelta(days=365)

# Only these are repeated: a description, or a made-up code, may quote what we sent.
_KNOWN_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
        "server_error",
        "temporarily_unavailable",
    }
)


class TokenError(UnavailableError):
    """The token endpoint gave us no token; the text says why, without secrets."""


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: datetime | None


class ClientCredentials(httpx.Auth):
    """Authenticates requests with a bearer token; asynchronous clients only.

    The token is kept until `leeway` before its expiry, or until a request is answered with 401,
    which is repeated once with a new token. However many requests need one, one token request is
    in flight, and it goes on when the request that began it is given up.

    Raises in the request:
        TokenError: there is no token.
        SecretError: a reference does not resolve.
    """

    def __init__(
        self,
        spec: OAuth2Auth,
        secrets: Secrets,
        clock: Clock,
        *,
        token_timeout: timedelta = TOKEN_TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._spec = spec
        self._secrets = secrets
        self._clock = clock
        self._token_timeout = token_timeout
        self._transport = transport
        self._held: _Token | None = None
        self._renewing: asyncio.Task[_Token] | None = None

    @property
    def token(self) -> str | None:
        """The token in use, if there is one: what has to be kept from view."""
        return None if self._held is None else self._held.value

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send with the token at hand, and once more with a new one after a 401."""
        token = await self._token()
        response = yield _bearing(request, token)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # httpx reads this answer whole before it goes on.
            cap(response, MAX_REFUSAL_BYTES)
            yield _bearing(request, await self._token(refused=token))

    def sync_auth_flow(
        self,
        request: httpx.Request,  # noqa: ARG002 -- httpx's signature
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Refuse: a token is shared between tasks of one event loop."""
        raise RuntimeError("OAuth 2 authentication needs an asynchronous client")

    async def _token(self, refused: str | None = None) -> str:
        held = self._held
        if held is not None and held.value != refused and not self._is_due(held):
            return held.value
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
            self._renewing.add_done_callback(self._renewed)
        renewed = await asyncio.shield(self._renewing)
        return renewed.value

    def _is_due(self, token: _Token) -> bool:
        return token.renew_at is not None and self._clock() >= token.renew_at

    def _renewed(self, task: asyncio.Task[_Token]) -> None:
        self._renewing = None
        # Asked for even when nobody waits any more, or asyncio logs the failure itself.
        if not task.cancelled() and task.exception() is None:
            self._held = task.result()

    async def _renew(self) -> _Token:
        asked_at = self._clock()
        seconds = self._token_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask()
            return self._read(answer, asked_at)
        except (SecretError, TokenError):
            raise
        except TimeoutError:
            raise self._refused(f"did not answer within {seconds:g} s") from None
        except OAuthError as error:
            code = error.error if error.error in _KNOWN_ERRORS else "an error we do not know"
            raise self._refused(f"answered {code}") from None
        except httpx.HTTPStatusError as error:
            raise self._refused(f"answered with status {error.response.status_code}") from None
        except Exception as error:
            # Whatever else the libraries raise may quote what was sent or received.
            raise self._refused(f"gave no token: {type(error).__name__}") from None

    async def _ask(self) -> Mapping[str, Any]:
        spec = self._spec
        options = client_options(
            base_timeout=self._token_timeout,
            max_connections=1,
            transport=None if self._transport is None else _Borrowed(self._transport),
        )
        extra = {} if spec.audience is None else {"audience": spec.audience}
        async with AsyncOAuth2Client(
            client_id=self._secrets.text(spec.client_id),
            client_secret=self._secrets.resolve(spec.client_secret),
            token_endpoint_auth_method=spec.auth_method,
            scope=spec.scope,
            event_hooks={"response": [_cap_token]},
            **options,
        ) as client:
            answer: Mapping[str, Any] = await client.fetch_token(
                spec.token_url, grant_type="client_credentials", **extra
            )
        return answer

    def _read(self, answer: Mapping[str, Any], asked_at: datetime) -> _Token:
        value = answer.get("access_token")
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
            raise self._refused("answered without a usable access_token")
        if str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise self._refused("answered with a token that is not a bearer token")
        life = answer.get("expires_in")
        if life is None:
            return _Token(value, None)
        # A short-lived token is used for half its life at least, whatever the leeway.
        lasts = timedelta(seconds=min(float(life), LONGEST_LIFE.total_seconds()))
        return _Token(value, asked_at + lasts - min(self._spec.leeway, lasts / 2))

    def _refused(self, what: str) -> TokenError:
        url = urlsplit(self._spec.token_url)
        return TokenError(f"token endpoint {url.scheme}://{url.netloc}{url.path} {what}")


class _Borrowed(httpx.AsyncBaseTransport):
    """Keeps a client that is closed after one token from closing a transport that is not its."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


def _bearing(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


async def _cap_token(response: httpx.Response) -> None:
    cap(response, MAX_TOKEN_BYTES)
