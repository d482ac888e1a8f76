"""What every route shares: reading requests strictly, preferences, and conditional responses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

from fastapi import Depends, Header, HTTPException, Path, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH, MAX_KEY_LENGTH
from ackbridge.contracts.names import split_call_id
from ackbridge.contracts.wire import InvalidInputError, Wire, read_json

from .access import authenticate
from .problems import NOT_FOUND, TOO_LARGE, UNREADABLE, ProblemError

MAX_BODY_BYTES: Final = 1280 * 1024
"""Of a request: a call's payload, or an operator's response, with what is around it."""

MAX_WAIT: Final = timedelta(seconds=60)
"""For which one request waits for an outcome, whatever it prefers."""

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)
_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\["\\])*"')


class StrictRoute(APIRoute):
    """A route whose JSON is read as everywhere else: bounded, finite numbers, whole texts.

    No body is read before the credential of its request is valid. Routes without a body have `By`,
    or another dependency that authenticates.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_strictly(request: Request) -> Response:
            if self.body_field is not None:
                await authenticate(request)
            return await handle(_StrictRequest(request.scope, request.receive))

        return read_strictly


class _StrictRequest(Request):
    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(
                        TOO_LARGE.status, f"a request may have {MAX_BODY_BYTES} bytes"
                    )
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        try:
            return read_json(await self.body())
        except InvalidInputError as error:
            raise HTTPException(UNREADABLE.status, str(error)) from None


async def _call_id(
    call_id: Annotated[
        str, Path(description="`<provider>.<operation>.<key>`, a slash in it as `%2F`.")
    ],
) -> str:
    try:
        decoded = unquote(call_id, errors="strict")
        split_call_id(decoded)
    except ValueError:
        raise ProblemError(NOT_FOUND, "not a call id: <provider>.<operation>.<key>") from None
    if len(decoded) > MAX_CALL_ID_LENGTH:
        raise ProblemError(NOT_FOUND, f"a call id has at most {MAX_CALL_ID_LENGTH} characters")
    return decoded


CallId = Annotated[str, Depends(_call_id)]


async def _idempotency_key(
    idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description="The key of the call: a new one for each piece of work, the same one for"
            " each repetition. Visible ASCII, as it is or as a quoted string; no personal data.",
            max_length=2 * MAX_KEY_LENGTH,
        ),
    ],
) -> str:
    key = idempotency_key.strip()
    if _QUOTED.fullmatch(key):
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not _KEY.fullmatch(key) or len(key) > MAX_KEY_LENGTH:
        raise InvalidInputError(
            f"header.idempotency-key: 1 to {MAX_KEY_LENGTH} characters of visible ASCII"
        )
    return key


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]


async def _wait(
    prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description="`wait=5` waits up to five seconds for the outcome (RFC 7240).",
            max_length=1024,
        ),
    ] = None,
) -> timedelta | None:
    found = _WAIT.search(prefer or "")
    return min(timedelta(seconds=int(found[1])), MAX_WAIT) if found else None


PreferWait = Annotated[timedelta | None, Depends(_wait)]


def documented_header(name: str, meaning: str) -> dict[str, Any]:
    """A header of a response, for the description of the API."""
    return {name: {"description": meaning, "schema": {"type": "string"}}}


LOCATION: Final = {"headers": documented_header("Location", "The path of the call.")}
ETAG: Final = {"headers": documented_header("ETag", "Identifies what was read.")}


def call_location(call_id: str, base: str = "/calls") -> str:
    return f"{base}/{quote(call_id, safe='')}"


def answer(
    content: Wire | BaseModel,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response with JSON that no cache may keep."""
    return Response(
        content.model_dump_json(by_alias=True),
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def conditional(
    request: Request, content: Wire, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with an entity tag; 304 without a body for a client that has the same content."""
    response = answer(content, headers=headers)
    tag = entity_tag(bytes(response.body))
    if tag in conditional_tags(request.headers.get("if-none-match") or ""):
        response = Response(status_code=304, headers={"Cache-Control": "no-store"})
    response.headers["ETag"] = tag
    return response


def entity_tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def conditional_tags(header: str) -> list[str]:
    """The entity tags of `If-Match` or `If-None-Match`."""
    return [one.strip().removeprefix("W/") for one in header.split(",")]
