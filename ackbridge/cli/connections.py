"""Connections of a command to Temporal and to the ledger, closed when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.encryption import load_encryption
from ackbridge.settings import environment, load_settings
from ackbridge.telemetry.trace_export import export_traces
from ackbridge.temporal.connect import connect

T = TypeVar("T")


def with_client(act: Callable[[AckbridgeClient], Coroutine[Any, Any, T]]) -> T:
    """Run something with a client of ours, connected as `TEMPORAL_*` say."""
    with export_traces("ackbridge", environment()):
        return with_temporal(lambda client: act(AckbridgeClient(client)))


def with_temporal(act: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run something with a plain Temporal client, connected as `TEMPORAL_*` say."""

    async def run() -> T:
        return await act(await connect(environment()))

    return asyncio.run(run())


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
