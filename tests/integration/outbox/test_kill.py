"""`kill -9` of the service, the relay and the engine between every two steps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import sqlalchemy as sa
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.stack import empty_temporal_config, inherited_environment
from ackbridge.outbox import enqueue
from ackbridge.outbox.relay import Relay
from ackbridge.outbox.rows import LEASE, OutboxStore, open_outbox
from ackbridge.temporal.connect import client_options
from tests.support.engine import new_namespace, running_engine
from tests.support.processes import ForkedProcess

from . import killed_processes
from .killed_processes import RELAY_STEPS, SERVICE_STEPS
from .shop import ORDERS, open_shop, order_request, orders

pytestmark = pytest.mark.extended

NUMBERS = ("1", "2", "3")
PATIENCE = 60
"""Seconds."""


@dataclass
class Scene:
    """A service's database, and the namespace of its calls."""

    shop: sa.Engine
    store: OutboxStore
    client: Client
    environ: dict[str, str]
    folder: Path

    def process(self, *arguments: str) -> ForkedProcess:
        """A victim that runs."""
        process = ForkedProcess(
            killed_processes.main,
            list(arguments),
            environ=self.environ,
            log=self.folder / f"{arguments[0]}.log",
            folder=self.folder,
        )
        process.start()
        return process

    def order(self) -> None:
        """Commit three orders."""
        for number in NUMBERS:
            with self.shop.begin() as connection:
                connection.execute(sa.insert(ORDERS), {"number": number})
                enqueue(connection, order_request(number))

    async def relay(self) -> None:
        """Start what another relay has left."""
        relay = Relay(self.store, AckbridgeClient(self.client).start, keep=LEASE)
        while await relay.relay_batch():
            pass

    async def is_called(self, number: str) -> bool:
        """Whether there is a call for an order."""
        handle = self.client.get_workflow_handle(order_request(number).call_id)
        try:
            await handle.describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def check(self) -> None:
        """Every committed order has its call, once, and no other order has one."""
        assert (await self.store.depth()).pending == 0
        assert await self.store.listed("rejected", 10) == []
        called = {number for number in NUMBERS if await self.is_called(number)}
        assert called == orders(self.shop)
        # The visibility store lags.
        query = f"WorkflowType = '{names.INTEGRATION_CALL}'"
        async with asyncio.timeout(PATIENCE):
            while (await self.client.count_workflows(query)).count != len(called):  # noqa: ASYNC110 -- it changes in another process
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def mortal_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """An engine that only these tests use."""
    with running_engine(tmp_path_factory.mktemp("mortal-engine")) as running:
        yield running


@pytest_asyncio.fixture
async def scene(
    mortal_engine: EmbeddedEngine, url: str, shop: sa.Engine, tmp_path: Path
) -> AsyncIterator[Scene]:
    """A namespace for each test."""
    namespace = await new_namespace(mortal_engine)
    empty_temporal_config(tmp_path).write_text("")
    environ = {
        **inherited_environment(os.environ),
        **namespace.environment,
        "ACKBRIDGE_OUTBOX_URL": url,
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(tmp_path)),
    }

    def after_the_lease() -> datetime:
        return utc_now() + LEASE

    store = open_outbox(url, after_the_lease)
    client = await Client.connect(namespace.address, namespace=namespace.name, **client_options())
    yield Scene(shop, store, client, environ, tmp_path)
    await store.database.close()


@pytest.mark.parametrize("step", SERVICE_STEPS)
async def test_the_service_is_killed(scene: Scene, step: str) -> None:
    """Its order has a call if it was committed, and none otherwise."""
    process = scene.process("service", step, "SIGKILL", "1")
    assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    await scene.relay()
    assert orders(scene.shop) == ({"1"} if step == "committed" else set())
    await scene.check()


@pytest.mark.parametrize("step", RELAY_STEPS)
async def test_the_relay_is_killed(scene: Scene, step: str) -> None:
    """Another relay goes on, and starts no call a second time."""
    scene.order()
    process = scene.process("relay", step, "SIGKILL")
    assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    await scene.relay()
    await scene.check()


@pytest.mark.parametrize("step", RELAY_STEPS)
async def test_the_engine_is_killed(scene: Scene, mortal_engine: EmbeddedEngine, step: str) -> None:
    """The relay goes on by itself once the engine is back."""
    scene.order()
    process = await _stopped(scene, step)
    mortal_engine.kill()
    await asyncio.to_thread(mortal_engine.child.wait)
    process.send(signal.SIGCONT)
    await asyncio.sleep(1)
    await asyncio.to_thread(mortal_engine.start)
    await _finish(scene, process)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("step", RELAY_STEPS)
async def test_the_database_ends_the_connections(scene: Scene, step: str, url: str) -> None:
    """As when PostgreSQL is killed and started again; an SQLite file has no server."""
    scene.order()
    process = await _stopped(scene, step)
    await scene.store.database.close()
    with open_shop(url).connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
    process.send(signal.SIGCONT)
    await _finish(scene, process)


async def _stopped(scene: Scene, step: str) -> ForkedProcess:
    """A relay that has stopped itself at a step."""
    process = scene.process("relay", step, "SIGSTOP")
    async with asyncio.timeout(PATIENCE):
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(0.05)
    return process


async def _finish(scene: Scene, process: ForkedProcess) -> None:
    """Wait until the relay has started everything, and stop it."""
    async with asyncio.timeout(PATIENCE):
        while (await scene.store.depth()).pending:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0, process.output()
    await scene.check()
