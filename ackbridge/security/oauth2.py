"""OAuth 2 client credentials: requests share one token, which is renewed before it expires."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import httpx
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from ackbridge.clock import Clock
from ackbridge.errors import SecretError, UnavailableError
from ackbridge.http.client import (
    AiohttpTransport,
    BoundedTransport,
    client_options,
    discard_body,
)
from ackbridge.http.retry_after import parse_retry_after

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
MAX_UNAUTHORIZED_BYTES = 64 * 1024
"""Of a 401 that are received, so that its connection can be used again."""

MAX_LIFETIME = timedelta(days=365)
ASSERTION_LIFETIME = timedelta(minutes=1)
MAX_TOKENS = 4
"""Of those that are remembered: an answer may be about a request with the one before."""

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


_FORM_FIELDS = frozenset({"access_token", "error"})
"""One of them is in every answer."""

# Other types are names of bearer tokens, or typing errors; these need a proof with each request.
_NOT_BEARER = frozenset({"mac", "dpop", "pop"})


_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_KEY_TYPES: Mapping[str, Literal["RSA", "EC"]] = {
    "RS": "RSA",
    "PS": "RSA",
    "ES": "EC",
}


class TokenError(UnavailableError):
    """The token endpoint issued no token; the text contains no secrets.

    Attributes:
        retry_after: the delay that the endpoint asked for.
    """

    def __init__(self, text: str, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: datetime | None


class ClientCredentials(httpx.Auth):
    """Authenticates requests with a bearer token; for asynchronous clients.

    The token is used until `leeway` before its expiry, or until a 401, after which the request is
    sent once more with a new token. At most one token request is in flight, and it continues when
    the request that started it is cancelled. None is sent while the endpoint's Retry-After lasts.

    Attributes:
        tokens: the last ones that were issued, for redaction.

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
        pool: str = "",
    ) -> None:
        """Request tokens through `transport`, as requests of `pool`, or else by an own client."""
        self._spec = spec
        self._secrets = secrets
        self._clock = clock
        self._token_timeout = token_timeout
        self._transport = transport
        self._pool = pool
        self._current: _Token | None = None
        self.tokens: deque[str] = deque(maxlen=MAX_TOKENS)
        self._renewal: asyncio.Task[_Token] | None = None
        self._paused_until: datetime | None = None

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self._token()
        response = yield _with_token(request, token)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # httpx reads and decodes this response completely before it continues.
            discard_body(response, MAX_UNAUTHORIZED_BYTES)
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
            self._require_no_pause()
            self._renewal = asyncio.create_task(self._fetch())
            self._renewal.add_done_callback(self._on_fetched)
        return (await asyncio.shield(self._renewal)).value

    def _require_no_pause(self) -> None:
        left = self._paused_until - self._clock() if self._paused_until else timedelta(0)
        if left > timedelta(0):
            raise self._error("asked to be left alone for a time", left)

    def _on_fetched(self, task: asyncio.Task[_Token]) -> None:
        self._renewal = None
        # asyncio would log an exception that is never retrieved.
        if not task.cancelled() and task.exception() is None:
            self._current = task.result()
            self.tokens.append(self._current.value)

    async def _fetch(self) -> _Token:
        requested_at = self._clock()
        seconds = self._token_timeout.total_seconds()
        self._paused_until = None
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
        client_id = self._secrets.text(spec.client_id)
        extra = {} if spec.audience is None else {"audience": spec.audience}
        secret: str | None = None
        method: str = spec.auth_method
        if spec.client_secret is not None:
            secret = self._secrets.resolve(spec.client_secret)
        elif spec.private_key is not None:
            pem = self._secrets.resolve(spec.private_key)
            extra |= _assertion(spec, client_id, spec.private_key, pem, self._clock())
            method = "none"
        options = client_options(self._token_timeout, max_connections=1)
        async with (
            self._open_transport(options["limits"]) as transport,
            _TokenClient(
                client_id=client_id,
                client_secret=secret,
                token_endpoint_auth_method=method,
                scope=spec.scope,
                event_hooks={"response": [self._on_token_response]},
                transport=BoundedTransport(transport, MAX_TOKEN_BYTES, self._pool),
                **options,
            ) as client,
        ):
            answer: Mapping[str, Any] = await client.fetch_token(
                spec.token_url, grant_type="client_credentials", **extra
            )
        return answer

    @asynccontextmanager
    async def _open_transport(
        self, limits: httpx.Limits
    ) -> AsyncIterator[httpx.AsyncBaseTransport]:
        if self._transport is not None:
            yield self._transport
            return
        async with AiohttpTransport(limits, {}) as own:
            yield own

    def _read(self, answer: Mapping[str, Any], requested_at: datetime) -> _Token:
        value = answer.get("access_token")
        value = value.strip() if isinstance(value, str) else ""
        if not (value and value.isascii() and value.isprintable()):
            raise self._error("answered without a usable access_token")
        if str(answer.get("token_type")).strip().lower() in _NOT_BEARER:
            raise self._error("answered with a token that is not a bearer token")
        lifetime = _lifetime(answer.get("expires_in"))
        if lifetime is None:
            return _Token(value, None)
        return _Token(value, requested_at + lifetime - min(self._spec.leeway, lifetime / 2))

    async def _on_token_response(self, response: httpx.Response) -> None:
        if not response.is_success:
            now = self._clock()
            wait = parse_retry_after(response.headers.get("retry-after"), now)
            self._paused_until = now + wait if wait else None

    def _error(self, what: str, retry_after: timedelta | None = None) -> TokenError:
        if retry_after is None and self._paused_until is not None:
            retry_after = self._paused_until - self._clock()
        url = urlsplit(self._spec.token_url)
        text = f"token endpoint {url.scheme}://{url.netloc}{url.path} {what}"
        return TokenError(text, retry_after)


def _assertion(
    spec: OAuth2Auth, client_id: str, ref: str, pem: str, now: datetime
) -> dict[str, str]:
    """The fields that authenticate the client by a signed token (RFC 7523)."""
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": spec.assertion_audience or spec.token_url,
        "jti": uuid.uuid4().hex,
        "iat": int(now.timestamp()),
        "exp": int((now + ASSERTION_LIFETIME).timestamp()),
    }
    header = {"alg": spec.assertion_algorithm} | ({"kid": spec.key_id} if spec.key_id else {})
    try:
        key = jwk.import_key(pem, _KEY_TYPES[spec.assertion_algorithm[:2]])
        token = jwt.encode(header, claims, key, [spec.assertion_algorithm])
    except (JoseError, ValueError):
        problem = f"{ref}: is not a private key in PEM for {spec.assertion_algorithm}"
        raise SecretError(problem) from None
    return {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": token}


def _lifetime(expires_in: object) -> timedelta | None:
    """The lifetime of a token; None where it is not said, or not in seconds."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, str | int | float):
        return None
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return None
    if math.isnan(seconds):
        return None
    return timedelta(seconds=min(max(seconds, 0), MAX_LIFETIME.total_seconds()))


def _json(response: httpx.Response) -> Any:
    """In UTF-8, or else in the charset that the headers declare."""
    try:
        return response.json()
    except UnicodeDecodeError:
        return json.loads(response.text)


def _form(response: httpx.Response) -> dict[str, str] | None:
    """A form, as tokens were issued before JSON was the rule, whatever it is declared to be."""
    fields = dict(parse_qsl(response.text))
    return fields if not fields.keys().isdisjoint(_FORM_FIELDS) else None


class _TokenClient(AsyncOAuth2Client):  # type: ignore[misc]  # Authlib has no types
    def parse_response_token(self, resp: httpx.Response) -> Mapping[str, Any]:
        """The answer as it is: Authlib refuses lifetimes that are not whole numbers."""
        try:
            answer = _json(resp)
        except ValueError:
            answer = _form(resp)
        if resp.is_server_error or not (resp.is_success or isinstance(answer, dict)):
            resp.raise_for_status()
        if not isinstance(answer, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 -- as Authlib's own
        # Some servers have all fields in every answer.
        if answer.get("error"):
            raise OAuthError(error=answer["error"])
        return answer


def _with_token(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
