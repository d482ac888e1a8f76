"""call-many: the calls of a file, many in one workflow, with their results in another file."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ackbridge.client.bulk import BulkOutcome
from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import EngineUnavailableError, InvalidRequestError, KeyReusedError
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode, report

from .call_files import REFUSED, UNFINISHED, RequestFile, ResultFile
from .connections import with_client
from .options import Json, Operation, Provider, parse_duration

RESULTS = ".results"
"""How the name of the file of results ends, beside that of the requests."""


def call_many(
    provider: Provider,
    operation: Operation,
    requests: Annotated[
        str,
        typer.Argument(
            metavar="@FILE",
            help='One call a line: `{"key": …, "payload": …}`, with any other field of a request.',
        ),
    ],
    results: Annotated[
        Path | None,
        typer.Option(help="Where the results are added, one a line.", show_default="FILE.results"),
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Calls in flight at the most.")] = 1000,
    wait: Annotated[
        str, typer.Option(help="End when no call has ended for this long; the rest is pending.")
    ] = "5m",
    json_output: Json = False,
) -> int:
    """Make the calls of a file, and write their results to another.

    Interrupted, or with calls pending, run it again: calls with a result in the file are left out,
    and the same key is the same call, so that no request is sent twice. All lines are checked
    before the first call is started.
    """
    if not requests.startswith("@") or requests == "@":
        raise InvalidInputError(f"@FILE: {requests}: write @ before the name of the file")
    source = Path(requests[1:])
    file = RequestFile(source, {"provider": provider, "operation": operation})
    patience = parse_duration("wait", wait)
    total = file.check()
    target = results or source.with_name(source.name + RESULTS)
    began = time.monotonic()
    with ResultFile(target) as written:
        written.check(file)
        ended = with_client(
            lambda calls: _run(calls, file, written, total, in_flight, patience, not json_output),
            waits_by_itself=True,
        )
        statuses = {request.key: written.status(request) for request in file}
    counts = Counter(statuses.values())
    _show(counts, ended, time.monotonic() - began, target, json_output)
    return _exit_code(counts)


async def _run(
    calls: AckbridgeClient,
    file: RequestFile,
    results: ResultFile,
    total: int,
    in_flight: int,
    patience: timedelta,
    shows_progress: bool,
) -> int:
    """Make the calls that have no result yet; gives how many ended."""
    started: dict[str, CallRequest] = {}
    ended = 0
    with output.call_progress(
        disable=not (shows_progress and output.console.is_terminal), transient=True
    ) as progress:
        done = len({request.key for request in file if results.is_finished(request)})
        bar = progress.add_task("calls", total=total, completed=done)
        outcomes = calls.call_many(_unfinished(file, results, started), in_flight=in_flight)
        async for one in _while_they_end(outcomes, patience):
            _add(results, one)
            ended += 1
            del started[one.request.key]
            progress.advance(bar)
    for request in started.values():
        results.add(request, UNFINISHED, {})
    return ended


def _unfinished(
    file: RequestFile, results: ResultFile, started: dict[str, CallRequest]
) -> Iterator[CallRequest]:
    for request in file:
        if not results.is_finished(request) and request.key not in started:
            started[request.key] = request
            yield request


async def _while_they_end(
    outcomes: AsyncIterator[BulkOutcome], patience: timedelta
) -> AsyncIterator[BulkOutcome]:
    """The outcomes, until none comes for as long as somebody waits."""
    async with aclosing(outcomes):  # type: ignore[type-var]  # an asynchronous generator
        while True:
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    one = await anext(outcomes)
            except (StopAsyncIteration, TimeoutError):
                return
            yield one


def _add(results: ResultFile, one: BulkOutcome) -> None:
    """Write a result, as anybody may see it.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    request, error = one.request, one.error
    if isinstance(error, EngineUnavailableError):
        raise error
    if one.outcome is None:
        is_refused = isinstance(error, InvalidRequestError | KeyReusedError)
        status = REFUSED if is_refused else UNFINISHED
        results.add(request, status, {"error": str(error)})
    else:
        document = one.outcome.masked().model_dump(mode="json", exclude_none=True)
        results.add(request, str(document.pop("status")), document)


def _show(
    counts: Counter[str], ended: int, seconds: float, target: Path, json_output: bool
) -> None:
    document: dict[str, Any] = {
        "calls": counts.total(),
        **counts,
        "ended_now": ended,
        "seconds": round(seconds, 3),
        "results": str(target),
    }
    if json_output:
        output.print_json(document)
        return
    named = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    output.say(f"{counts.total()} calls: {named or 'none'}")
    if ended:
        output.say(f"{ended} ended now, {ended / max(seconds, 0.001):.0f} per second")
    output.say(f"Results: {target}")
    if counts[UNFINISHED]:
        report("run the same command again for the calls that are pending")


def _exit_code(counts: Counter[str]) -> ExitCode:
    if counts[UNFINISHED]:
        return ExitCode.PENDING
    return ExitCode.COMPLETED if counts.total() == counts["completed"] else ExitCode.FAILED
