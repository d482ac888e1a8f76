"""The calls API beside the shared stage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.clock import utc_now
from ackbridge.ledger.ledger import Ledger
from ackbridge.temporal.connect import client_options
from ackbridge.temporal.data_converter import load_data_converter
from tests.support.api import ServedApi, serve_api
from tests.support.stage import INTEGRATIONS, Stage, only_sandbox


@asynccontextmanager
async def api_of(stage: Stage, folder: Path) -> AsyncIterator[ServedApi]:
    """The API of a stage, over a socket, in a thread of its own."""
    options = client_options(load_data_converter(stage.environ))
    namespace = stage.namespace
    client = await Client.connect(namespace.address, namespace=namespace.name, lazy=True, **options)
    ledger = Ledger.open(stage.settings.ledger_url, utc_now)
    catalog = only_sandbox(load_catalog(INTEGRATIONS, stage.environ))
    with serve_api(folder, client, ledger, catalog) as served:
        yield served
    await ledger.close()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def api(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    """The API of the shared stage."""
    async with api_of(stage, tmp_path_factory.mktemp("api")) as served:
        yield served
