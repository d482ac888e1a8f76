"""The engine shared by all gateway tests, and a ledger for each test."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER

from .world import World, collecting, load, now


@pytest_asyncio.fixture(scope="session")
async def client(engine: EmbeddedEngine) -> AsyncIterator[Client]:
    """A client of a real engine with a worker that runs collecting calls."""
    client = await Client.connect(engine.address, data_converter=DATA_CONVERTER)
    async with collecting(client):
        yield client


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """The URL of an empty, migrated ledger."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(url)
    return url


@pytest_asyncio.fixture
async def world(client: Client, ledger_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """What the gateways of one test share."""
    files = tmp_path / "integrations"
    files.mkdir()
    ledger = Ledger.open(ledger_url, now)
    try:
        yield World(client, ledger, load(files))
    finally:
        await ledger.close()


@pytest_asyncio.fixture
async def no_engine() -> Client:
    """A client of an engine that is down: nothing listens on its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return await Client.connect(f"127.0.0.1:{port}", lazy=True, data_converter=DATA_CONVERTER)


@pytest_asyncio.fixture
async def no_ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger that is down: its file cannot be opened."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}", now)
    yield ledger
    await ledger.close()


@pytest_asyncio.fixture
async def silent_engine() -> AsyncIterator[Client]:
    """A client of an engine that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        yield await Client.connect(f"127.0.0.1:{port}", lazy=True, data_converter=DATA_CONVERTER)
