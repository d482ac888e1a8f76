"""Connections of a command to Temporal and to the ledger, closed when it ends."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.audit import AuditEntry, AuditOrigin, AuditRequest
from ackbridge.contracts.identity import IdentitySource
from ackbridge.errors import AckbridgeError
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.encryption import load_encryption
from ackbridge.settings import environment, load_settings
from ackbridge.telemetry.trace_export import export_traces
from ackbridge.temporal.connect import connect

from .options import operator

T = TypeVar("T")


def with_client(act: Callable[[AckbridgeClient], Coroutine[Any, Any, T]]) -> T:
    """Run something with a client of ours, connected as `TEMPORAL_*` say."""
    with export_traces("ackbridge", environment()):
        return with_temporal(lambda client: act(AckbridgeClient(client)))


def with_temporal(act: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run something with a plain Temporal client, connected as `TEMPORAL_*` say."""

    async def run() -> T:
        return await act(await connect(environment(), identity=_client_identity()))

    return asyncio.run(run())


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
        typer.echo(f"not in the audit log: {error}", err=True)


def open_ledger() -> Ledger:
    """The ledger of `ACKBRIDGE_LEDGER_URL`, with the keys of `ACKBRIDGE_ENCRYPTION_KEYS`."""
    encryption = load_encryption(environment())
    return Ledger.open(load_settings().ledger_url, utc_now, encryption=encryption)


def with_ledger(act: Callable[[Ledger], Coroutine[Any, Any, T]]) -> T:
    """Run something with the ledger of `ACKBRIDGE_LEDGER_URL`."""

    async def run() -> T:
        ledger = open_ledger()
        try:
            return await act(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())
