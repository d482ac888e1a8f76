"""relay, outbox: start the calls that a service commits to an outbox in its own database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal, TypeVar

import typer
import uvloop

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.outbox.relay import Relay
from ackbridge.outbox.rows import OutboxStore, open_outbox
from ackbridge.outbox.table import PENDING, REJECTED, ddl
from ackbridge.settings import environment, load_settings
from ackbridge.telemetry.logs import log_to_stderr
from ackbridge.telemetry.metrics.export import TOTALS_INTERVAL, Metrics, export_telemetry
from ackbridge.telemetry.metrics.gauges import OutboxGauges
from ackbridge.temporal.connect import connect
from ackbridge.temporal.external_storage import bucket_of
from ackbridge.terminal import output
from ackbridge.terminal.shutdown import shutdown_signal

from .connections import naming_database, record_if_possible
from .options import Json, Limit

T = TypeVar("T")

RELAY_READY = "relay ready"
"""The line that `relay` prints when it begins."""

log = logging.getLogger(__name__)


def relay() -> None:
    """Start the calls in the outbox of `ACKBRIDGE_OUTBOX_URL`, until SIGTERM.

    Several relays may share an outbox. Rows wait while Temporal or the database is away; a row that
    cannot be a call is set aside (`ackbridge outbox list`).
    """
    uvloop.run(_relay())


def list_rows(
    state: Annotated[
        Literal["rejected", "pending", "started"] | None,
        typer.Option(help="Only these; otherwise the rejected and the pending ones."),
    ] = None,
    limit: Limit = 50,
    json_output: Json = False,
) -> None:
    """List what is in the outbox, oldest first: the call, and why it was not started."""
    states = [state] if state else [REJECTED, PENDING]

    async def read(store: OutboxStore) -> list[dict[str, Any]]:
        return [
            {
                "id": row.id,
                "call_id": row.call_id,
                "state": row.state,
                "created_at": row.created_at.isoformat(timespec="seconds"),
                "attempts": row.attempts,
                "reason": row.reason,
            }
            for one in states
            for row in await store.listed(one, limit)
        ]

    rows = _with_outbox(read)[:limit]
    columns = ("id", "call", "state", "created", "attempts failed", "reason")
    output.print_rows(rows, f"Rows of the outbox: {len(rows)}", columns, as_json=json_output)


def retry(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", help="Of rejected rows.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All rejected rows.")] = False,
    json_output: Json = False,
) -> None:
    """Let the relay try rejected rows again, such as after a missing operation was deployed."""
    if bool(ids) == every:
        raise InvalidInputError("ID: give the ids of rows, or --all")
    record_if_possible("retry_outbox", ", ".join(map(str, ids)) if ids else "all")
    number = _with_outbox(lambda store: store.retry(ids))
    if json_output:
        output.print_json({"retried": number})
    else:
        output.say("1 row is pending again" if number == 1 else f"{number} rows are pending again")


def sql(
    dialect: Annotated[
        Literal["postgresql", "sqlite"], typer.Option(help="Of which database.")
    ] = "postgresql",
) -> None:
    """Print the definition of the outbox's table, for the service's own migrations."""
    print(ddl(dialect), end="")


def _with_outbox(act: Callable[[OutboxStore], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with _opened_outbox() as store:
            return await act(store)

    return asyncio.run(run())


@asynccontextmanager
async def _opened_outbox() -> AsyncIterator[OutboxStore]:
    url = load_settings().outbox_url
    if not url:
        raise ConfigurationError("ACKBRIDGE_OUTBOX_URL: not set; it is the service's own database")
    store = open_outbox(url, utc_now)
    try:
        with naming_database(url, "ACKBRIDGE_OUTBOX_URL"):
            yield store
    finally:
        await store.database.close()


async def _relay() -> None:
    settings, environ = load_settings(), environment()
    log_to_stderr(settings.log_level, settings.log_format)
    stopping = shutdown_signal()
    where = (settings.metrics_host, settings.metrics_port)
    with export_telemetry("ackbridge-relay", environ, *where) as metrics:
        async with _opened_outbox() as store:
            client = await connect(environ, lazy=True)
            running = Relay(store, AckbridgeClient(client).start, keep=settings.outbox_keep)
            measuring = asyncio.create_task(_measure(running, store, metrics))
            print(RELAY_READY, flush=True)
            try:
                await running.run(stopping)
            finally:
                measuring.cancel()
                with suppress(asyncio.CancelledError):
                    await measuring
                if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
                    await bucket.aclose()


async def _measure(running: Relay, store: OutboxStore, metrics: Metrics) -> None:
    """Keep the metrics of the outbox up to date."""
    if metrics.runtime is None:
        return
    while True:
        done = {"started": running.totals.started, "rejected": running.totals.rejected}
        try:
            depth = await store.depth()
        except LedgerUnavailableError:
            metrics.source.outbox = OutboxGauges(done)
        else:
            waiting = {PENDING: depth.pending, REJECTED: depth.rejected}
            metrics.source.outbox = OutboxGauges(done, waiting, depth.lag.total_seconds())
        await asyncio.sleep(TOTALS_INTERVAL.total_seconds())
