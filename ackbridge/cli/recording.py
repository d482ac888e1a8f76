"""try, record: messages of real providers, and what integration files make of them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import typer
import uvicorn

from ackbridge.catalog.catalog import Catalog, build_redactors, check_payload, connection_pool
from ackbridge.catalog.loading import (
    integration_files,
    load_catalog,
    load_examples,
    load_integration,
)
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import (
    OutboundRequest,
    render_acknowledgement,
    render_request,
    render_status,
)
from ackbridge.clock import utc_now
from ackbridge.conformance.readings import UnreadableExampleError
from ackbridge.conformance.recorder import Recorder, kind_of
from ackbridge.conformance.recording import (
    Exchanged,
    Redaction,
    example_of_exchange,
    path_of,
    readings_of,
)
from ackbridge.conformance.template_context import template_context
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import (
    IntegrationFileError,
    UnavailableError,
    UnknownNameError,
    unknown_name,
)
from ackbridge.http.client import Pool, build_client, exchange, network_problem
from ackbridge.http.egress import ANYWHERE
from ackbridge.security.outbound import build_auth
from ackbridge.security.private_files import make_private_folder, open_private
from ackbridge.security.secrets import Secrets
from ackbridge.settings import Settings, environment, integrations_folder, load_settings
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import report

from .examples import describe
from .options import Json, Operation, Payload, Provider, read_json

MAX_BYTES = 4 * 1024 * 1024
"""Of an answer."""

Asked = Literal["request", "status", "success", "failed"]


def try_operation(
    provider: Provider,
    operation: Operation,
    key: Annotated[str, typer.Option(help="The call's key; part of idempotency keys.")],
    payload: Payload = "null",
    send: Annotated[
        Asked, typer.Option(help="Which request: status and acknowledgements need --reference.")
    ] = "request",
    reference: Annotated[
        str | None, typer.Option(help="The provider's own id of its work.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the exchange as an example.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show bodies as they are, whatever secrets are in them.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Send one real request, and show what the file makes of the answer.

    The request is the one that a call would send, and it is really sent: the provider may do its
    work. No call is made: nothing is recorded, retried, awaited or acknowledged. Request and answer
    are shown as they are on the wire, but for credentials, and redacted, as an example.
    """
    settings, environ = load_settings(), environment()
    catalog = load_catalog(integrations_folder(settings.integrations), environ)
    secrets = Secrets(environ, settings.secrets_root)
    secrets.use_in_task()
    call = CallRequest(
        provider=provider, operation=operation, key=key, payload=read_json("payload", payload)
    )
    outbound = _render(catalog, settings, call, send, reference)
    pool = connection_pool(catalog.integration(provider), secrets, settings.egress_allow)
    done = asyncio.run(_exchange(catalog, secrets, provider, outbound, pool))
    redaction = Redaction(
        catalog.integration(provider), build_redactors(catalog, secrets)[provider]
    )
    source = f"recorded with `ackbridge try` on {utc_now():%Y-%m-%d}, redacted"
    integration = catalog.integration(provider)
    example = example_of_exchange(integration, redaction, operation, send, done, source)
    shown = _shown(done, redaction, raw=raw)
    if json_output:
        output.print_json({**shown, "example": example})
    else:
        _print(shown, example)
        _print_meaning(catalog, provider, example)
    if save is not None:
        _write(save, example)


def _render(
    catalog: Catalog, settings: Settings, call: CallRequest, send: Asked, reference: str | None
) -> OutboundRequest:
    integration = catalog.integration(call.provider)
    operation = catalog.operation(call.provider, call.operation)
    callback_url = f"{settings.public_url.rstrip('/')}/callbacks/{call.provider}"
    context = {**template_context(call, 1, callback_url), "reference": reference}
    context |= {"reason": "tried by hand"}
    if send == "request":
        check_payload(operation, call.payload)
        return render_request(integration, operation, context)
    if send == "status":
        outbound = render_status(integration, operation, context)
    else:
        outbound = render_acknowledgement(integration, operation, send, context)
    if outbound is None:
        raise InvalidInputError(f"--send {send}: operation {call.operation} sends none")
    return outbound


@dataclass
class _Tap(httpx.AsyncBaseTransport):
    """Passes requests on, and keeps the last one as it was sent."""

    inner: httpx.AsyncBaseTransport
    sent: list[tuple[httpx.Request, bytes]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((request, await request.aread()))
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _exchange(
    catalog: Catalog, secrets: Secrets, provider: str, outbound: OutboundRequest, pool: Pool
) -> Exchanged:
    secrets.use_in_task()
    taps: list[_Tap] = []

    def around(transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        taps.append(_Tap(transport))
        return taps[0]

    async with build_client(around=around, others=pool) as client:
        auth = build_auth(catalog.integration(provider).auth, secrets, utc_now, client.transport)
        try:
            reply = await exchange(
                client,
                method=outbound.method,
                url=outbound.url,
                headers=outbound.headers,
                content=outbound.content,
                auth=None if outbound.is_open else auth,
                timeout=outbound.timeout,
                max_bytes=MAX_BYTES,
            )
        except (httpx.HTTPError, TimeoutError) as error:
            raise UnavailableError(
                f"{outbound.method} {outbound.url}: {network_problem(error)}"
            ) from None
    request, body = taps[0].sent[-1]
    sent = {name.lower(): value for name, value in request.headers.items()}
    return Exchanged(
        outbound.method, outbound.url, sent, body, reply.status, reply.headers, reply.body
    )


def _shown(done: Exchanged, redaction: Redaction, *, raw: bool) -> dict[str, Any]:
    """Request and answer as they are on the wire, but for credentials."""

    def body(content: bytes) -> str:
        text = content.decode("utf-8", "replace")
        return text if raw else redaction.masked(text)

    return {
        "request": {
            "line": f"{done.method} {path_of(done.url)}",
            "headers": redaction.shown(done.request_headers),
            "body": body(done.request_body),
        },
        "answer": {
            "line": str(done.status),
            "headers": redaction.shown(done.headers),
            "body": body(done.body),
        },
    }


def _print(shown: Mapping[str, Any], example: Mapping[str, Any]) -> None:
    for title, message in (("Request", shown["request"]), ("Answer", shown["answer"])):
        headers = (f"{name}: {value}" for name, value in message["headers"].items())
        print(title, "", message["line"], *headers, "", message["body"], "", sep="\n")
    print("As an example, redacted\n")
    print(json.dumps(example, indent=2, ensure_ascii=False))


def _print_meaning(catalog: Catalog, provider: str, example: Mapping[str, Any]) -> None:
    print("\nWhat the file makes of it\n")
    try:
        readings = readings_of(catalog.integration(provider), example)
    except UnreadableExampleError as error:
        print(f"nothing: {error}")
        return
    for line in describe(readings):
        print(line)


def _write(path: Path, example: Mapping[str, Any]) -> None:
    text = json.dumps(example, indent=2, ensure_ascii=False)
    try:
        make_private_folder(path.parent)
        with open(path, "x", encoding="utf-8", opener=open_private) as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise InvalidInputError(f"--save: {path}: {error.strerror}") from None
    print(f"written to {path}; read it before you keep it", file=sys.stderr)


def record(
    provider: Provider,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8800,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    gateway: Annotated[
        str, typer.Option(metavar="URL", help="Where callbacks are passed on to.")
    ] = "http://127.0.0.1:8080",
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Default: `examples/<provider>` beside the file."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Every message, not one of each kind.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Record examples from real traffic, until Ctrl-C.

    Passes the requests of workers on to the provider, and its callbacks to the gateway, and writes
    an example of each kind of message that the file's examples do not show yet. Secrets and
    personal details are replaced as far as they are recognised: read an example before you keep it.

    With `--json` it prints a line with an object for each file that it has written.
    """
    settings, environ = load_settings(), environment()
    file = find_file(integrations_folder(settings.integrations), environ, provider)
    integration = load_integration(file, environ)
    _require_other_address(integration, host, port)
    secrets = Secrets(environ, settings.secrets_root)
    secrets.use_in_task()
    catalog = Catalog({provider: integration})
    folder = into or file.parent / "examples" / provider
    source = f"recorded with `ackbridge record` on {utc_now():%Y-%m-%d}, redacted"
    client = build_client(others=Pool(egress=ANYWHERE))
    recorder = Recorder(
        integration,
        Redaction(integration, build_redactors(catalog, secrets)[provider]),
        client,
        gateway.rstrip("/"),
        folder,
        source,
        seen=_shown_kinds(file, integration),
        records_all=every,
        on_written=_print_path if json_output else lambda path: output.say(f"{path}"),
    )
    for line in _directions(file, integration, f"http://{host}:{port}"):
        if json_output:
            report(line)
        else:
            output.say(line)
    asyncio.run(_serve(recorder, host, port))


def _print_path(path: Path) -> None:
    print(json.dumps({"written": str(path)}), flush=True)


def find_file(folder: Path, environ: Mapping[str, str], provider: str) -> Path:
    """The integration file of a provider; raises `UnknownNameError`."""
    files = {load_integration(path, environ).provider: path for path in integration_files(folder)}
    if provider not in files:
        raise UnknownNameError(unknown_name("provider", provider, files))
    return files[provider]


def _require_other_address(integration: Integration, host: str, port: int) -> None:
    at = urlsplit(integration.base_url)
    if (at.hostname, at.port) == (host, port):
        raise InvalidInputError(
            f"base_url is {integration.base_url}, which is this recorder: here it has to be the"
            " provider's own address"
        )


def _shown_kinds(file: Path, integration: Integration) -> set[tuple[object, ...]]:
    """What the file's examples show already; it may have none, or name a folder that is empty."""
    try:
        examples = load_examples(file, integration)
    except IntegrationFileError:
        return set()
    return {kind_of(one.example.model_dump(mode="json", exclude_unset=True)) for one in examples}


def _directions(file: Path, integration: Integration, url: str) -> Iterator[str]:
    """How traffic gets here."""
    path = urlsplit(integration.base_url).path
    variable = re.search(r"^base_url:\s*[\"']?\$\{(\w+)", file.read_text("utf-8"), re.MULTILINE)
    if variable is not None:
        yield f"Start the worker with {variable[1]}={url}{path}"
    else:
        name = f"{integration.provider.upper().replace('-', '_')}_BASE_URL"
        yield f"{file}: base_url has no variable by which a worker could send its requests here."
        yield f"Write base_url: ${{{name}:-{integration.base_url}}}"
        yield f"and start the worker with {name}={url}{path}"
    if integration.callbacks is not None:
        yield f"Let the provider call back at {url}/callbacks/{integration.provider}"
    yield "Recording; Ctrl-C ends it."


async def _serve(recorder: Recorder, host: str, port: int) -> None:
    config = uvicorn.Config(recorder, host=host, port=port, log_level="warning", lifespan="off")
    async with recorder.client:
        with suppress(KeyboardInterrupt):
            await uvicorn.Server(config).serve()
