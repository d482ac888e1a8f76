"""Connections of a command to Temporal and to the ledger, closed when it ends."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.waiting import is_polled
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.audit import AuditEntry, AuditOrigin, AuditRequest
from ackbridge.contracts.identity import IdentitySource
from ackbridge.errors import AckbridgeError, LedgerUnavailableError, WorkerUnavailableError
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.ledger import Ledger
from ackbridge.objects.s3 import open_bucket
from ackbridge.security.encryption import load_encryption
from ackbridge.settings import environment, load_settings
from ackbridge.telemetry.trace_export import export_traces
from ackbridge.temporal.connect import connect
from ackbridge.terminal.exit_codes import report

from .options import operator

T = TypeVar("T")

CONNECT_WITHIN: Final = timedelta(seconds=3)
"""How long the server may take to answer; a person waits."""

SILENT_FOR: Final = timedelta(seconds=2)
"""After which a command says what it waits for, or stops waiting where no worker runs."""


def with_client(act: Callable[[AckbridgeClient], Coroutine[Any, Any, T]], **options: bool) -> T:
    """Run something with a client of ours, connected as `TEMPORAL_*` say; see `with_temporal`."""
    with export_traces("ackbridge", environment()):
        return with_temporal(lambda client: act(AckbridgeClient(client)), **options)


def with_temporal(
    act: Callable[[Client], Coroutine[Any, Any, T]], *, waits_by_itself: bool = False
) -> T:
    """Run something with a plain Temporal client, connected as `TEMPORAL_*` say.

    Args:
        waits_by_itself: it was asked to wait, and handles a missing worker.

    Raises:
        WorkerUnavailableError: it needs a worker, and none runs.
    """

    async def run() -> T:
        client = await connect_quickly()
        work = act(client)
        return await (work if waits_by_itself else _while_workers_run(client, work))

    return asyncio.run(run())


async def connect_quickly() -> Client:
    """Connect as `TEMPORAL_*` say; raises `EngineUnavailableError` after a few seconds."""
    return await connect(environment(), within=CONNECT_WITHIN, identity=_client_identity())


def _client_identity() -> str:
    """What the histories say about who sent a request."""
    who = operator()
    is_stated = who.source is IdentitySource.STATED
    return f"{who.name}@{socket.gethostname()}" if is_stated else who.label


def record_command(
    ledger: Ledger, action: str, subject: str, by: str, reason: str = "", **details: str
) -> Coroutine[Any, Any, AuditEntry]:
    """Record in the audit log what a command is about to do without a workflow."""
    request = AuditRequest(
        id=uuid.uuid4().hex,
        at=utc_now(),
        origin=AuditOrigin.COMMAND,
        action=action,
        subject=subject,
        by=by,
        reason=reason,
        details=details,
    )
    return ledger.audit.append(request, client=_client_identity())


def record_if_possible(action: str, subject: str, **details: str) -> None:
    """As `record_command`, for commands that do not need the ledger otherwise."""
    try:
        with_ledger(
            lambda ledger: record_command(ledger, action, subject, operator().label, **details)
        )
    except AckbridgeError as error:
        report(f"not in the audit log: {error}")


def with_ledger(act: Callable[[Ledger], Coroutine[Any, Any, T]]) -> T:
    """Run something with the ledger of `ACKBRIDGE_LEDGER_URL`."""

    async def run() -> T:
        async with opened_ledger() as ledger:
            return await act(ledger)

    return asyncio.run(run())


def open_ledger() -> Ledger:
    """The ledger of `ACKBRIDGE_LEDGER_URL`, with the keys of `ACKBRIDGE_ENCRYPTION_KEYS`."""
    environ = environment()
    encryption, objects = load_encryption(environ), open_bucket(environ)
    url = load_settings().ledger_url
    return Ledger.open(url, utc_now, encryption=encryption, objects=objects)


@asynccontextmanager
async def opened_ledger() -> AsyncIterator[Ledger]:
    """As `open_ledger`, closed at the end; errors name the database and the setting."""
    ledger = open_ledger()
    try:
        with naming_database(load_settings().ledger_url, "ACKBRIDGE_LEDGER_URL"):
            yield ledger
    finally:
        await ledger.close()


@contextmanager
def naming_database(url: str, setting: str) -> Iterator[None]:
    """Add the database, without the password, and its setting to errors of it."""
    try:
        yield
    except LedgerUnavailableError as error:
        if setting in str(error):
            raise
        where = parse_url(url).render_as_string()
        raise LedgerUnavailableError(f"{error}: {where} ({setting})") from None


async def _while_workers_run(client: Client, work: Coroutine[Any, Any, T]) -> T:
    """Await something that may need a worker; give up once none polls the main queue."""
    task = asyncio.create_task(work)
    has_said = False
    while not (await asyncio.wait([task], timeout=SILENT_FOR.total_seconds()))[0]:
        if not await is_polled(client, names.TASK_QUEUE):
            task.cancel()
            raise WorkerUnavailableError(
                f"no worker polls the queue {names.TASK_QUEUE} in namespace {client.namespace};"
                " start one: ackbridge worker"
            )
        if not has_said:
            report("waiting for a worker or the engine to answer")
            has_said = True
    return task.result()
