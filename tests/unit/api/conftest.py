"""The API without an engine: what it answers before, or without, asking one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from ackbridge.api.app import describe
from ackbridge.api.event_streams import open_streams
from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_catalog
from ackbridge.clock import utc_now
from ackbridge.contracts.edge import StreamSettings
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.secrets import Secrets
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER
from tests.support.api import ServedApi, serve_api
from tests.support.stage import INTEGRATIONS, SECRETS, only_sandbox

STREAMS = StreamSettings(
    secrets="env:STREAMS",
    origins="https://shop.example",
    most=20,
    poll_every=timedelta(milliseconds=50),
)


@pytest.fixture(scope="package")
def document() -> dict[str, Any]:
    """The description of the API."""
    return describe()


@pytest.fixture(scope="package")
def catalog() -> Catalog:
    environ = {**SECRETS, "SANDBOX_BASE_URL": "http://127.0.0.1:9"}
    return only_sandbox(load_catalog(INTEGRATIONS, environ))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def ledger_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('api')}/ledger.db"
    migrate(url)
    return url


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """The ledger of the served API, for tests that write to it."""
    opened = Ledger.open(ledger_url, utc_now)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def api(
    ledger_url: str, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServedApi]:
    """Nothing listens where its engine should be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    client = await Client.connect(address, lazy=True, data_converter=DATA_CONVERTER)
    served = Ledger.open(ledger_url, utc_now)
    folder = tmp_path_factory.mktemp("api-keys")
    streams = open_streams(
        STREAMS, Secrets({"STREAMS": "s" * 32}, Path()), served.call_events, utc_now
    )
    grants = ("start:sandbox", "read:other")
    with serve_api(folder, client, served, catalog, *grants, streams=streams) as one:
        yield one
    await served.close()
