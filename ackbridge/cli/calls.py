"""call, status, list, cancel, force-ack: single calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.client.listing import RUNNING, UNKNOWN, ListedCall, ListFilter
from ackbridge.client.operator_requests import raise_if_too_late
from ackbridge.client.recorded import recorded_call, recorded_filter, recorded_status, with_record
from ackbridge.client.waiting import is_polled
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, CallStatus, Stage
from ackbridge.contracts.wire import parse_argument
from ackbridge.errors import (
    AckbridgeError,
    EngineUnavailableError,
    NamespaceNotFoundError,
)
from ackbridge.ledger.calls import CallRow
from ackbridge.settings import environment
from ackbridge.telemetry.trace_export import export_traces
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode, report

from .connections import with_client, with_ledger, with_temporal
from .options import By, Json, Limit, Operation, Payload, Provider, Watch, parse_duration, read_json

CallId = Annotated[str, typer.Argument(metavar="ID", help="The call id: PROVIDER.OPERATION.KEY.")]
Reason = Annotated[str, typer.Option(help="Why; recorded in the call's history.")]


def call(
    provider: Provider,
    operation: Operation,
    key: Annotated[str, typer.Option(help="Your idempotency key: the same key is the same call.")],
    payload: Payload = "null",
    wait: Annotated[
        str, typer.Option(help="How long to wait for the outcome: `5s`, `2m`; `0s` does not wait.")
    ] = "5s",
    audience: Annotated[
        str | None, typer.Option(help="The audience that flags are evaluated for: `internal`.")
    ] = None,
    reply_to: Annotated[
        str | None,
        typer.Option(metavar="SUBSCRIBER", help="The configured subscriber that gets notices."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="The language of notices, such as `de` or `en-US`.")
    ] = None,
    json_output: Json = False,
) -> int:
    """Start a call, and wait for its outcome.

    The same key and payload return the same call; the same key with another payload is refused.
    No request is sent twice.
    """
    fields = {
        "provider": provider,
        "operation": operation,
        "key": key,
        "payload": read_json("payload", payload),
        "audience": audience,
        "reply_to": reply_to,
        "language": language,
    }
    request = parse_argument(CallRequest, (fields,))
    timeout = parse_duration("wait", wait)

    async def start(client: Client) -> CallStatus:
        calls = AckbridgeClient(client)
        if await is_polled(client, names.TASK_QUEUE):
            return await calls.start_and_wait(request, timeout)
        return await calls.start_unserved(request)

    with export_traces("ackbridge", environment()):
        status = with_temporal(start, waits_by_itself=True)
    return print_status(status, json_output)


def status(call_id: CallId, watch: Watch = False, json_output: Json = False) -> int:
    """Show the state of a call; without a worker, what the ledger has recorded of it."""

    async def fetch(client: AckbridgeClient) -> CallStatus:
        found = client.call(call_id)
        if not watch:
            return await found.status()
        return await output.watch(
            found.status, output.call_status, lambda status: status.stage.is_final
        )

    try:
        return print_status(with_client(fetch, waits_by_itself=watch), json_output)
    except EngineUnavailableError as error:
        if isinstance(error, NamespaceNotFoundError):
            raise
        try:
            known = _recorded([call_id]).get(call_id)
        except AckbridgeError:
            known = None
        if known is None:
            raise
        report(f"{error}. This is what the ledger has recorded:")
        return print_status(recorded_status(known), json_output)


def list_calls(
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Only calls in this stage: `in_flight`, `parked`, `reconciling`."),
    ] = None,
    owed: Annotated[
        bool, typer.Option("--owed", help="Only calls with a pending acknowledgement.")
    ] = False,
    limit: Limit = 50,
    json_output: Json = False,
) -> int:
    """List calls, those that share a workflow included: open ones first, newest first.

    What the engine does not know about them comes from the ledger, where it can be read. Without
    the engine, the calls are those that the ledger has recorded, and the exit code is 4.
    """
    which = ListFilter(provider, stage, owed)

    async def fetch(client: AckbridgeClient) -> list[ListedCall]:
        found = client.list(provider=provider, stage=stage, owed=owed, limit=limit)
        return [row async for row in found]

    code = ExitCode.COMPLETED
    try:
        found = with_client(fetch, waits_by_itself=True)
    except EngineUnavailableError as error:
        if isinstance(error, NamespaceNotFoundError):
            raise
        found = _recorded_calls(which, limit, error)
        code = ExitCode.UNAVAILABLE
    _print_list(found, json_output)
    return code


def _recorded_calls(
    which: ListFilter, limit: int, error: EngineUnavailableError
) -> list[ListedCall]:
    """What the ledger has recorded; raises the error of the engine if it cannot be read either."""
    try:
        found = with_ledger(lambda ledger: ledger.calls.page(recorded_filter(which), limit=limit))
    except AckbridgeError:
        raise error from None
    report(
        f"{error}. These are the calls that the ledger has recorded: those that no worker has taken"
        " up yet are missing, and stages are as last recorded"
    )
    return [recorded_call(one) for one in found]


def _print_list(found: Sequence[ListedCall], json_output: bool) -> None:
    try:
        recorded = _recorded([row.call_id for row in found])
    except AckbridgeError as error:
        recorded = {}
        report(f"effect and code are missing, the ledger cannot be read: {error}")
    unanswered = sum(not row.answered and row.state == RUNNING for row in found)
    if unanswered:
        report(
            f"no worker has answered for the hosts of {output.counted(unanswered, 'call')}: their"
            " stages are as last recorded in the ledger"
        )
    rows = [_listed_row(row, recorded.get(row.call_id)) for row in found]
    if json_output:
        output.print_json(rows)
        return
    cells = [
        (
            row["call_id"],
            row["state"].lower(),
            row["stage"] or "",
            row["effect"] or "",
            output.code(row["code"], row["provider_code"]) or "",
            output.age(utc_now() - datetime.fromisoformat(row["started_at"])),
        )
        for row in rows
    ]
    columns = ("call", "workflow", "stage", "effect", "code", "age")
    output.console.print(output.table(output.counted(len(rows), "call"), columns, cells))


def cancel(call_id: CallId, reason: Reason, by: By, json_output: Json = False) -> int:
    """Cancel a call, with a failed acknowledgement to its provider.

    A response that was recorded before wins over the cancellation.
    """
    return signal_call(
        call_id,
        names.CANCEL,
        by,
        lambda call: call.cancel(by=by, reason=reason),
        json_output,
    )


def force_ack(
    call_id: CallId,
    reason: Reason,
    by: By,
    response: Annotated[
        str, typer.Option(help="The response to record: JSON, `@file` or `-`.")
    ] = "null",
    json_output: Json = False,
) -> int:
    """Complete a call that waits, with or without a response."""
    document = read_json("response", response)
    return signal_call(
        call_id,
        names.FORCE_ACK,
        by,
        lambda call: call.force_ack(by=by, reason=reason, response=document),
        json_output,
    )


def signal_call(
    call_id: str, name: str, by: str, act: Callable[[Call], Awaitable[None]], json_output: bool
) -> int:
    """Signal a call, and print its status. Its outcome does not decide the exit code.

    Args:
        name, by: of the signal.

    Raises:
        CallEndedError: it has ended, or it does not take the signal.
    """
    is_sent = False

    async def signal(client: AckbridgeClient) -> CallStatus:
        nonlocal is_sent
        found = client.call(call_id)
        await act(found)
        is_sent = True
        return await found.status()

    try:
        status = with_client(signal)
    except EngineUnavailableError as error:
        if not is_sent:
            raise
        report(f"{call_id}: the request is stored, and is carried out when a worker runs ({error})")
        return ExitCode.PENDING
    raise_if_too_late(status, name, by)
    print_status(status, json_output)
    return ExitCode.COMPLETED


def print_status(status: CallStatus, json_output: bool) -> int:
    """Print a status, as anybody may see it."""
    status = status.masked()
    code = ExitCode.for_call(status)
    if json_output:
        output.print_json(status)
    else:
        output.console.print(output.call_status(status))
        if code is ExitCode.PENDING:
            output.say(f"Still pending: ackbridge status {status.call_id} --watch")
    return code


def _recorded(call_ids: Sequence[str]) -> dict[str, CallRow]:
    """The rows of calls in the ledger."""
    return with_ledger(lambda ledger: ledger.calls.get_many(call_ids)) if call_ids else {}


def _listed_row(found: ListedCall, recorded: CallRow | None) -> dict[str, Any]:
    if recorded is not None and not found.answered:
        found = with_record(found, recorded.stage)
    if recorded is not None and not _is_current(found, recorded):
        recorded = None
    outcome = recorded and recorded.outcome
    return {
        **vars(found),
        "stage": recorded.stage if recorded else found.stage,
        "effect": recorded.effect if recorded else None,
        "code": recorded.code if recorded else None,
        "provider_code": recorded.provider_code if recorded else None,
        "disputed": outcome.disputed if outcome else None,
    }


def _is_current(found: ListedCall, recorded: CallRow) -> bool:
    """Whether the ledger's row can be shown: it is written at few steps of an open call."""
    if found.state not in (RUNNING, UNKNOWN):
        return recorded.stage.is_final
    return recorded.stage in (Stage.ACKNOWLEDGING, Stage.RECONCILING, found.stage)
