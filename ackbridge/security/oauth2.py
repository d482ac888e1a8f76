"""OAuth 2 client credentials: requests share one token, which is renewed before it expires."""

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
from ackbridge.http.client import client_options, limit_body

from .secrets import Secrets
from .specs import OAuth2Auth

with warnings.catch_warnings():
    from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]

    # Authlib warns of its move from httpx to httpx2; see docs/decisions/0005. The import of its
    # warning class enables that warning for the whole process, hence inside this block.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]
        AsyncOAuth2Client,
        OAuthError,
    )

TOKEN_TIMEOUT = timedelta(seconds=10)
MAX_TOKEN_BYTES = 64 * 1024
MAX_UNAUTHORIZED_BYTES = 1024 * 1024
MAX_LIFETIME = timedelta(days=365)

# Other codes, and descriptions, are not repeated: they may quote what we sent.
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
    """The token endpoint issued no token; the text contains no secrets."""


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: datetime | None


class ClientCredentials(httpx.Auth):
    """Authenticates requests with a bearer token; for asynchronous clients.

    The token is used until `leeway` before its expiry, or until a 401, after which the request is
    sent once more with a new token. At most one token request is in flight, and it continues when
    the request that started it is cancelled.

    Requests raise `TokenError` without a token, and `SecretError` if a reference does not resolve.
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
        self._current: _Token | None = None
        self._renewal: asyncio.Task[_Token] | None = None

    @property
    def token(self) -> str | None:
        """The token in use, for redaction."""
        return None if self._current is None else self._current.value

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self._token()
        response = yield _with_token(request, token)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # httpx reads this response completely before it continues.
            limit_body(response, MAX_UNAUTHORIZED_BYTES)
            yield _with_token(request, await self._token(refused=token))

    def sync_auth_flow(
        self,
        request: httpx.Request,  # noqa: ARG002 -- httpx's signature
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Fail: the token is shared between the tasks of one event loop."""
        raise RuntimeError("OAuth 2 authentication needs an asynchronous client")

    async def _token(self, refused: str | None = None) -> str:
        current = self._current
        if (
            current is not None
            and current.value != refused
            and (current.renew_at is None or self._clock() < current.renew_at)
        ):
            return current.value
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._fetch())
            self._renewal.add_done_callback(self._on_fetched)
        return (await asyncio.shield(self._renewal)).value

    def _on_fetched(self, task: asyncio.Task[_Token]) -> None:
        self._renewal = None
        # asyncio would log an exception that is never retrieved.
        if not task.cancelled() and task.exception() is None:
            self._current = task.result()

    async def _fetch(self) -> _Token:
        requested_at = self._clock()
        seconds = self._token_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._request_token()
            return self._read(answer, requested_at)
        except (SecretError, TokenError):
            raise
        except TimeoutError:
            raise self._error(f"did not answer within {seconds:g} s") from None
        except OAuthError as error:
            code = error.error if error.error in _KNOWN_ERRORS else "an unknown error"
            raise self._error(f"answered {code}") from None
        except httpx.HTTPStatusError as error:
            raise self._error(f"answered with status {error.response.status_code}") from None
        except Exception as error:
            # The texts of other errors may quote what was sent or received.
            raise self._error(f"issued no token: {type(error).__name__}") from None

    async def _request_token(self) -> Mapping[str, Any]:
        spec = self._spec
        extra = {} if spec.audience is None else {"audience": spec.audience}
        async with AsyncOAuth2Client(
            client_id=self._secrets.text(spec.client_id),
            client_secret=self._secrets.resolve(spec.client_secret),
            token_endpoint_auth_method=spec.auth_method,
            scope=spec.scope,
            event_hooks={"response": [_limit_token_response]},
            transport=self._transport and _SharedTransport(self._transport),
            **client_options(self._token_timeout, max_connections=1),
        ) as client:
            answer: Mapping[str, Any] = await client.fetch_token(
                spec.token_url, grant_type="client_credentials", **extra
            )
        return answer

    def _read(self, answer: Mapping[str, Any], requested_at: datetime) -> _Token:
        value = answer.get("access_token")
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
            raise self._error("answered without a usable access_token")
        if str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise self._error("answered with a token that is not a bearer token")
        expires_in = answer.get("expires_in")
        if expires_in is None:
            return _Token(value, None)
        lifetime = timedelta(seconds=min(float(expires_in), MAX_LIFETIME.total_seconds()))
        return _Token(value, requested_at + lifetime - min(self._spec.leeway, lifetime / 2))

    def _error(self, what: str) -> TokenError:
        url = urlsplit(self._spec.token_url)
        return TokenError(f"token endpoint {url.scheme}://{url.netloc}{url.path} {what}")


class _SharedTransport(httpx.AsyncBaseTransport):
    """Stays open when the client of one token request is closed."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


def _with_token(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


async def _limit_token_response(response: httpx.Response) -> None:
    limit_body(response, MAX_TOKEN_BYTES)
