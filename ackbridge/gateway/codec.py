"""The codec endpoint, `/codec/encode` and `/codec/decode`, for the Temporal UI and other SDKs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from fastapi import Depends, FastAPI, HTTPException, Request
from google.protobuf import json_format
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import ExternalStorage, PayloadCodec

from ackbridge.contracts.calls import masked_names
from ackbridge.contracts.identity import Role
from ackbridge.errors import DecryptionError, UnavailableError
from ackbridge.security.http_auth import HttpAuth
from ackbridge.temporal.external_storage import retrieve

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of a request: some payloads of the engine's largest size, in base64."""

_Run = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


def build_codec_app(
    codec: PayloadCodec,
    auth: HttpAuth,
    origins: Sequence[str],
    sensitive: Sequence[str] = (),
    storage: ExternalStorage | None = None,
) -> FastAPI:
    """The endpoint, to be mounted at `/codec`.

    Decoding needs the role `read`, encoding `steer`: what it makes can start and signal calls. Who
    may not start calls is no caller, and is shown no sensitive fields.

    Args:
        origins: of the Temporal UIs whose pages may use it, such as `https://temporal.example`.
        sensitive: the sensitive fields of all operations.
        storage: of large payloads: decoding returns them in place of their references.
    """
    names = _names(sensitive)
    authorize = auth.require(Role.READ)

    def check_origin(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            raise HTTPException(403, "this origin is not in ACKBRIDGE_CODEC_ORIGINS")

    app = FastAPI(
        title="Ackbridge codec",
        dependencies=[Depends(check_origin)],
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )

    @app.post("/encode", dependencies=[Depends(auth.require(Role.STEER))])
    async def encode(request: Request) -> Response:
        return await _answer(request, codec.encode)

    @app.post("/decode")
    async def decode(request: Request) -> Response:
        identity = await authorize(request)

        async def run(payloads: Sequence[Payload]) -> list[Payload]:
            complete = await retrieve(storage, payloads) if storage else payloads
            decoded = await codec.decode(complete)
            if identity.may(Role.START):
                return decoded
            return [_masked(payload, names) for payload in decoded]

        return await _answer(request, run)

    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["POST"],
        allow_headers=["authorization", "content-type", "x-namespace"],
    )
    return app


def _names(sensitive: Sequence[str]) -> frozenset[str]:
    names = frozenset(path.rpartition(".")[2] for path in sensitive)
    # A response is the data of its message.
    return names | {"data"} if "response" in names else names


def _masked(payload: Payload, names: AbstractSet[str]) -> Payload:
    """A payload in JSON without what is sensitive; others as they are."""
    try:
        value = json.loads(payload.data)
    except ValueError:
        return payload
    shown = masked_names(value, names)
    if shown == value:
        return payload
    return Payload(metadata=payload.metadata, data=json.dumps(shown).encode())


async def _answer(request: Request, run: _Run) -> Response:
    try:
        payloads = json_format.Parse(await _body(request), Payloads(), max_recursion_depth=10)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "expected the JSON of temporal.api.common.v1.Payloads") from None
    try:
        done = await run(payloads.payloads)
    except DecryptionError as error:
        raise HTTPException(422, str(error)) from None
    except UnavailableError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from None
    text = json_format.MessageToJson(Payloads(payloads=done), indent=None)
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, f"a request may have {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the request is incomplete") from None
    return bytes(body)
