"""call, status, list, cancel, force-ack: one call at a time."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from rich.live import Live

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallRequest, CallStatus
from ackbridge.contracts.wire import (
    Duration,
    InvalidInputError,
    describe_validation_error,
    parse_argument,
)
from ackbridge.settings import environment
from ackbridge.telemetry.trace_export import export_traces
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
CallId = Annotated[str, typer.Argument(metavar="ID", help="The call id: PROVIDER.OPERATION.KEY.")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the call's history.")]
By = Annotated[str, typer.Option(help="Who.", default_factory=getpass.getuser, show_default="you")]
WATCH_EVERY = 0.5
"""Seconds between two looks of `status --watch`."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(call))
    app.command()(exits_with_its_answer(status))
    app.command("list")(exits_with_its_answer(list_calls))
    app.command()(exits_with_its_answer(cancel))
    app.command("force-ack")(exits_with_its_answer(force_ack))


def call(
    provider: Annotated[str, typer.Argument(help="Which integration, such as `stripe`.")],
    operation: Annotated[str, typer.Argument(help="What it shall do: `create_payment`.")],
    key: Annotated[str, typer.Option(help="Your idempotency key: the same key is the same call.")],
    payload: Annotated[
        str, typer.Option(help="JSON, or `@file`, or `-` for standard input.")
    ] = "null",
    wait: Annotated[
        str, typer.Option(help="How long to wait for the outcome: `5s`, `2m`; `0s` not at all.")
    ] = "5s",
    audience: Annotated[
        str | None, typer.Option(help="Who it is for, such as `internal`, for flags.")
    ] = None,
    reply_to: Annotated[
        str | None,
        typer.Option(metavar="SUBSCRIBER", help="Who is told what becomes of it; configured."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of the notices, such as `de` or `en-US`.")
    ] = None,
    json_output: Json = False,
) -> int:
    """Make a call, and wait a little for its outcome.

    Calling again with the same key and payload finds the same call; with another payload it is
    refused. Nothing is ever sent twice.
    """
    request = parse_argument(
        CallRequest,
        (
            {
                "provider": provider,
                "operation": operation,
                "key": key,
                "payload": _read_json("payload", payload),
                "audience": audience,
                "reply_to": reply_to,
                "language": language,
            },
        ),
    )
    patience = duration("wait", wait)

    async def make(calls: AckbridgeClient) -> CallStatus:
        return await calls.start_and_wait(request, patience)

    return _print_status(with_client(make), json_output)


def status(
    call_id: CallId,
    watch: Annotated[bool, typer.Option(help="Keep looking until the call is over.")] = False,
    json_output: Json = False,
) -> int:
    """Show where a call is."""

    async def look(calls: AckbridgeClient) -> CallStatus:
        found = calls.call(call_id)
        seen = await found.status()
        if not watch:
            return seen
        with Live(output.status(seen), console=output.console, transient=True) as live:
            while not seen.stage.is_final:
                await asyncio.sleep(WATCH_EVERY)
                seen = await found.status()
                live.update(output.status(seen))
        return seen

    return _print_status(with_client(look), json_output)


def list_calls(
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only these: `in_flight`, `parked`.")] = None,
    owed: Annotated[
        bool, typer.Option("--owed", help="Only those that owe the provider an acknowledgement.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 50,
    json_output: Json = False,
) -> int:
    """List calls, the newest first."""

    async def find(calls: AckbridgeClient) -> list[Any]:
        return [
            row async for row in calls.list(provider=provider, stage=stage, owed=owed, limit=limit)
        ]

    rows = with_client(find)
    if json_output:
        output.as_json([vars(row) for row in rows])
    else:
        cells = [(row.call_id, row.state.lower(), row.stage or "", row.started_at) for row in rows]
        output.console.print(
            output.table(f"{len(rows)} calls", ("call", "workflow", "stage", "started"), cells)
        )
    return Exit.COMPLETED


def cancel(call_id: CallId, reason: Reason, by: By, json_output: Json = False) -> int:
    """Cancel a call. The provider is told; a captured response wins over the cancel."""
    return _steer(call_id, lambda found: found.cancel(by=by, reason=reason), json_output)


def force_ack(
    call_id: CallId,
    reason: Reason,
    by: By,
    response: Annotated[
        str, typer.Option(help="The response to record: JSON, `@file` or `-`.")
    ] = "null",
    json_output: Json = False,
) -> int:
    """End a call's waiting by your word, with a response or without."""
    answer = _read_json("response", response)
    return _steer(
        call_id,
        lambda found: found.force_ack(by=by, reason=reason, response=answer),
        json_output,
    )


def reprocess_one(call_id: str, by: str, json_output: bool) -> int:
    """Take one parked call up again, and show it."""
    return _steer(call_id, lambda found: found.reprocess(by=by), json_output)


def _steer(call_id: str, act: Callable[[Call], Awaitable[None]], json_output: bool) -> int:
    """Give an order, and show the call. How it ends is not what the command is about."""

    async def steer(calls: AckbridgeClient) -> CallStatus:
        found = calls.call(call_id)
        await act(found)
        return await found.status()

    _print_status(with_client(steer), json_output)
    return Exit.COMPLETED


def with_client(act: Callable[[AckbridgeClient], Coroutine[Any, Any, T]]) -> T:
    """Do something with a client of the engine that `TEMPORAL_*` says."""
    environ = environment()

    async def run() -> T:
        return await act(await AckbridgeClient.connect(environ))

    with export_traces("ackbridge", environ):
        return asyncio.run(run())


def _print_status(seen: CallStatus, json_output: bool) -> int:
    if json_output:
        output.as_json(seen)
    else:
        output.console.print(output.status(seen))
        if Exit.of(seen) is Exit.PENDING:
            output.console.print(f"Still pending: ackbridge status {seen.call_id} --watch")
    return Exit.of(seen)


def _read_json(option: str, text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except OSError as error:
            raise InvalidInputError(f"--{option}: {text[1:]}: {error.strerror}") from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"--{option}: not JSON: {error}") from None


def duration(option: str, text: str) -> timedelta:
    """Read a duration such as `5s`.

    Raises:
        InvalidInputError: naming the option.
    """
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise InvalidInputError(f"--{option}: {describe_validation_error(error)}") from None
