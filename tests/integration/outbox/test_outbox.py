"""From a service's transaction to the start of the call, on both databases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import (
    EngineUnavailableError,
    InvalidRequestError,
    KeyReusedError,
    UnavailableError,
)
from ackbridge.outbox import create, enqueue, enqueue_async
from ackbridge.outbox.relay import Relay
from ackbridge.outbox.rows import LEASE, OutboxStore, open_outbox
from tests.integration.ledger.samples import MovableClock

from .shop import ORDERS, order_request, orders

INSERT = sa.text(
    "INSERT INTO ackbridge_outbox (provider, operation, key, payload, options)"
    " VALUES (:provider, :operation, :key, :payload, :options)"
)
ROW = {
    "provider": "sandbox",
    "operation": "create_order",
    "key": "o-1",
    "payload": '{"amount": 5, "currency": "EUR"}',
    "options": "{}",
}


class Engine:
    """Plays the client: it may be away, or reject what it is given."""

    def __init__(self) -> None:
        self.started: list[CallRequest] = []
        self.raises: dict[str, Exception] = {}
        self.is_away = False

    async def start(self, request: CallRequest) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise EngineUnavailableError("no answer")
        if error := self.raises.get(request.key):
            raise error
        self.started.append(request)

    @property
    def keys(self) -> list[str]:
        """The keys of the calls that were started, sorted."""
        return sorted(request.key for request in self.started)


@pytest.fixture
def engine() -> Engine:
    """An engine that is there."""
    return Engine()


def relay_of(store: OutboxStore, engine: Engine, keep: timedelta = timedelta(days=1)) -> Relay:
    """A relay between the two."""
    return Relay(store, engine.start, keep=keep)


def commit(shop: sa.Engine, *numbers: str) -> None:
    """Commit orders with their requests."""
    for number in numbers:
        with shop.begin() as connection:
            connection.execute(sa.insert(ORDERS), {"number": number})
            enqueue(connection, order_request(number))


async def test_a_request_is_started_if_its_transaction_is_committed(
    shop: sa.Engine, store: OutboxStore, engine: Engine
) -> None:
    """As it was enqueued, with all its fields; one that was rolled back is not."""
    request = CallRequest(
        provider="sandbox",
        operation="create_order",
        key="o-1",
        payload={"amount": 1e-05, "text": "ü\u2028", "list": [None, True]},
        reply_to="shop",
        metadata={"tenant": "a"},
        language="de",
        expires_at=datetime(2031, 1, 1, tzinfo=UTC),
    )
    with Session(shop) as session, session.begin():
        session.execute(sa.insert(ORDERS), {"number": "o-1"})
        assert enqueue(session, request) == "sandbox.create_order.o-1"
    with shop.connect() as connection:
        enqueue(connection, order_request("o-2"))
        connection.rollback()
    relay = relay_of(store, engine)
    assert await relay.relay_batch() == 1
    assert engine.started == [request]
    assert engine.started[0].digest == request.digest
    assert await relay.relay_batch() == 0
    (row,) = await store.listed("started", 10)
    assert row.call_id == request.call_id
    assert orders(shop) == {"o-1"}


# No driver for asynchronous SQLite is installed.
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_asynchronous_sessions(url: str, store: OutboxStore, engine: Engine) -> None:
    """They insert as the synchronous ones do."""
    async_engine = create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    async with AsyncSession(async_engine) as session, session.begin():
        await enqueue_async(session, order_request("o-1"))
    async with async_engine.begin() as connection:
        await enqueue_async(connection, order_request("o-2"))
    await async_engine.dispose()
    await relay_of(store, engine).relay_batch()
    assert engine.keys == ["o-1", "o-2"]


async def test_what_is_no_json_or_too_large_is_refused_at_once(shop: sa.Engine) -> None:
    """The service learns of it before it commits."""
    for payload in ("x" * 600_000, "\ud800"):
        request = order_request("o-1").model_copy(update={"payload": payload})
        with shop.begin() as connection, pytest.raises(InvalidRequestError):
            enqueue(connection, request)


async def test_a_plain_insert_needs_no_library(
    shop: sa.Engine, store: OutboxStore, engine: Engine
) -> None:
    """The defaults are those of a request."""
    with shop.begin() as connection:
        connection.execute(INSERT, ROW)
        connection.exec_driver_sql(
            "INSERT INTO ackbridge_outbox (provider, operation, key)"
            " VALUES ('sandbox', 'create_order', 'o-2')"
        )
    await relay_of(store, engine).relay_batch()
    assert engine.started == [
        order_request("o-1"),
        CallRequest(provider="sandbox", operation="create_order", key="o-2"),
    ]


async def test_the_insert_of_the_page(shop: sa.Engine, store: OutboxStore, engine: Engine) -> None:
    """It works as it is written in docs/outbox.md."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "outbox.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?);\n```", page, re.DOTALL)
    with shop.begin() as connection:
        connection.exec_driver_sql(statement)
    await relay_of(store, engine).relay_batch()
    assert engine.started == [order_request("o-7")]


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "Sandbox"},
        {"operation": ""},
        {"operation": "x" * 65},
        {"key": ""},
        {"key": "x" * 513},
        {"payload": "{amount: 5}"},
        {"payload": f'"{"x" * 600_000}"'},
        {"options": "[]"},
        {"options": "{"},
        {"payload": None},
    ],
    ids=str,
)
def test_a_plain_insert_is_checked(shop: sa.Engine, change: dict[str, str]) -> None:
    """By the database, in the transaction of the service."""
    with shop.begin() as connection, pytest.raises(DBAPIError):
        connection.execute(INSERT, ROW | change)


async def test_a_row_that_cannot_be_a_call_is_set_aside(
    shop: sa.Engine, store: OutboxStore, engine: Engine
) -> None:
    """With the reason; others go on, and an operator can have it tried again."""
    with shop.begin() as connection:
        connection.execute(INSERT, ROW | {"key": "option", "options": '{"langauge": "de"}'})
        connection.execute(INSERT, ROW | {"key": "half", "payload": r'"\ud800"'})
    commit(shop, "good", "reused", "unknown")
    engine.raises = {
        "reused": KeyReusedError("key: already belongs to another call"),
        "unknown": InvalidRequestError("unknown operation\0"),
    }
    relay = relay_of(store, engine)
    await relay.relay_batch()
    assert engine.keys == ["good", "half"]
    rows = {row.call_id.rpartition(".")[2]: row for row in await store.listed("rejected", 10)}
    assert rows.keys() == {"option", "reused", "unknown"}
    assert "langauge" in str(rows["option"].reason)
    assert rows["unknown"].reason == "unknown operation"
    assert (await store.depth()).rejected == 3

    engine.raises.clear()
    assert await store.retry([rows["unknown"].id, 4711]) == 1
    assert await store.retry(None) == 2
    await relay.relay_batch()
    assert engine.keys == ["good", "half", "reused", "unknown"]
    assert relay.totals.started == 4
    assert relay.totals.rejected == 4


async def test_rows_wait_while_the_engine_is_away(
    shop: sa.Engine, store: OutboxStore, engine: Engine, clock: MovableClock
) -> None:
    """None is lost, and none is set aside."""
    commit(shop, "o-1", "o-2")
    engine.is_away = True
    relay = relay_of(store, engine)
    with pytest.raises(UnavailableError, match="no answer"):
        await relay.relay_batch()
    assert await relay.relay_batch() == 0, "they are not due yet"
    depth = await store.depth()
    assert (depth.pending, depth.rejected) == (2, 0)
    assert {row.reason for row in await store.listed("pending", 10)} == {"no answer"}
    engine.is_away = False
    clock.advance(timedelta(seconds=10))
    await relay.relay_batch()
    assert engine.keys == ["o-1", "o-2"]


async def test_a_defect_stops_no_other_row(
    shop: sa.Engine, store: OutboxStore, engine: Engine
) -> None:
    """The row is tried again later."""
    commit(shop, "o-1", "o-2")
    engine.raises = {"o-1": RuntimeError("a secret")}
    await relay_of(store, engine).relay_batch()
    assert engine.keys == ["o-2"]
    (row,) = await store.listed("pending", 10)
    assert row.reason == "internal error: RuntimeError"


async def test_relays_share_an_outbox(url: str, shop: sa.Engine, engine: Engine) -> None:
    """Each row is one relay's, and all are started."""
    now = datetime.now(UTC)
    commit(shop, *(f"o-{number}" for number in range(60)))
    stores = [open_outbox(url, lambda: now) for _ in range(3)]
    for _ in range(5):
        await asyncio.gather(*(relay_of(one, engine).relay_batch(7) for one in stores))
    assert len(engine.started) == len(set(engine.keys)) == 60
    for one in stores:
        await one.database.close()


async def test_the_rows_of_a_dead_relay_are_leased_again(
    shop: sa.Engine, store: OutboxStore, engine: Engine, clock: MovableClock
) -> None:
    """After its lease; what two relays have stored in the end is that the call exists."""
    commit(shop, "o-1")
    (lost,) = await store.lease(10)
    assert await relay_of(store, engine).relay_batch() == 0
    clock.advance(LEASE)
    assert await relay_of(store, engine).relay_batch() == 1
    await store.store([], {lost.id: "an error of before"}, {})
    assert [row.id for row in await store.listed("started", 10)] == [lost.id]
    await store.retry(None)
    await store.store([], {}, {lost.id: (timedelta(0), "an error of before")})
    assert (await store.depth()).pending == 0


async def test_started_rows_are_deleted(
    shop: sa.Engine, store: OutboxStore, engine: Engine, clock: MovableClock
) -> None:
    """Once they are older than they are kept; others stay."""
    commit(shop, "o-1")
    await relay_of(store, engine).relay_batch()
    commit(shop, "o-2")
    assert await store.delete_started(timedelta(days=1)) == 0
    clock.advance(timedelta(days=2))
    assert await store.delete_started(timedelta(days=1)) == 1
    assert (await store.depth()).pending == 1
    assert await store.listed("started", 10) == []


async def test_lag_and_depth(shop: sa.Engine, store: OutboxStore, clock: MovableClock) -> None:
    """The lag is the age of the oldest row that waits, by the database's clock."""
    assert (await store.depth()).lag == timedelta(0)
    commit(shop, "o-1", "o-2")
    clock.advance(datetime.now(UTC) - clock() + timedelta(minutes=5))
    depth = await store.depth()
    assert depth.pending == 2
    assert timedelta(minutes=5) <= depth.lag < timedelta(minutes=6)


async def test_a_relay_runs_until_it_is_stopped(
    shop: sa.Engine, store: OutboxStore, engine: Engine, clock: MovableClock
) -> None:
    """It starts what is committed meanwhile, also after the engine was away."""
    stopping = asyncio.Event()
    running = asyncio.create_task(relay_of(store, engine).run(stopping))
    engine.is_away = True
    commit(shop, "o-1")
    await _until(lambda: clock.advance(timedelta(seconds=1)), store, "o-1")
    engine.is_away = False
    commit(shop, "o-2")
    async with asyncio.timeout(10):
        while engine.keys != ["o-1", "o-2"]:
            clock.advance(timedelta(seconds=10))
            await asyncio.sleep(0.02)
    stopping.set()
    await asyncio.wait_for(running, 5)


async def _until(turn: Callable[[], object], store: OutboxStore, key: str) -> None:
    """Wait until an attempt for a key has failed."""
    async with asyncio.timeout(10):
        while not (await store.listed("pending", 1))[0].attempts:
            turn()
            await asyncio.sleep(0.02)


def test_alembic_can_create_the_table(url: str, shop: sa.Engine) -> None:
    """Where it is missing; a second time is no error."""
    with shop.begin() as connection:
        connection.exec_driver_sql("DROP TABLE ackbridge_outbox")
        create(connection)
        create(connection)
        connection.execute(INSERT, ROW)
