"""A service and a relay that kill or stop themselves at one step, in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ackbridge import cli
from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest
from ackbridge.ledger.database.engines import writes
from ackbridge.outbox import enqueue
from ackbridge.outbox.rows import OutboxRow, OutboxStore

from .shop import ORDERS, open_shop, order_request

SERVICE_STEPS = ("begun", "ordered", "enqueued", "committed")
RELAY_STEPS = ("leasing", "leased", "starting", "started", "storing", "stored")
"""The first and the fifth are in a transaction, before it is committed."""


class Victim:
    """Reaches its steps, and gets a signal at one of them, the first time."""

    def __init__(self, step: str, number: signal.Signals) -> None:
        self._step: str | None = step
        self._number = number

    def reach(self, step: str) -> None:
        """Kill or stop this process, if it is the step."""
        if step == self._step:
            self._step = None
            os.kill(os.getpid(), self._number)

    def order(self, number: str) -> None:
        """Commit an order with its request, as a service."""
        with open_shop(os.environ["ACKBRIDGE_OUTBOX_URL"]).begin() as connection:
            self.reach("begun")
            connection.execute(sa.insert(ORDERS), {"number": number})
            self.reach("ordered")
            enqueue(connection, order_request(number))
            self.reach("enqueued")
        self.reach("committed")

    def patch_relay(self) -> None:
        """Wrap what a relay does."""
        self._patch_lease()
        self._patch_start()
        self._patch_store()

    def _patch_lease(self) -> None:
        raw: Any = OutboxStore.lease.__wrapped__  # type: ignore[attr-defined]  # of functools.wraps

        @writes
        def lease(store: OutboxStore, connection: sa.Connection, limit: int) -> list[OutboxRow]:
            rows: list[OutboxRow] = raw(store, connection, limit)
            self.reach("leasing" if rows else "")
            return rows

        async def leased(store: OutboxStore, limit: int) -> list[OutboxRow]:
            rows = await lease(store, limit)
            self.reach("leased" if rows else "")
            return rows

        OutboxStore.lease = leased  # type: ignore[method-assign]  # what the test is about

    def _patch_start(self) -> None:
        inner = AckbridgeClient.start

        async def start(client: AckbridgeClient, request: CallRequest) -> Any:
            self.reach("starting")
            call = await inner(client, request)
            self.reach("started")
            return call

        AckbridgeClient.start = start  # type: ignore[method-assign,assignment]  # what the test is about

    def _patch_store(self) -> None:
        raw: Any = OutboxStore.store.__wrapped__  # type: ignore[attr-defined]  # of functools.wraps

        @writes
        def store(self_: OutboxStore, connection: sa.Connection, *results: Any) -> None:
            raw(self_, connection, *results)
            self.reach("storing")

        async def stored(self_: OutboxStore, *results: Any) -> None:
            await store(self_, *results)
            self.reach("stored")

        OutboxStore.store = stored  # type: ignore[assignment]  # what the test is about


def main(arguments: Sequence[str]) -> int:
    """`service STEP SIGNAL NUMBER`, or `relay STEP SIGNAL`."""
    role, step, number, *more = arguments
    victim = Victim(step, signal.Signals[number])
    if role == "service":
        victim.order(*more)
        return 0
    victim.patch_relay()
    return cli.main(["relay"])
