"""What integration tests share: engines, and one stage. Every test uses keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.engine import EARLY, TAKEOVER, running_engine
from tests.support.postgres import PostgreSQL, postgresql
from tests.support.stage import Stage, set_up


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """The real Temporal server."""
    with running_engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="session")
def short_history_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """The same, but it suggests to continue as new after `EARLY` events."""
    folder = tmp_path_factory.mktemp("short-history-engine")
    with running_engine(folder, suggest_renewal_after=EARLY) as running:
        yield running


@pytest.fixture(scope="session")
def quick_takeover_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """The same, but what a killed worker had in hand is given to another one after 3 s."""
    folder = tmp_path_factory.mktemp("quick-takeover-engine")
    with running_engine(folder, task_timeout=TAKEOVER) as running:
        yield running


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    """One PostgreSQL server for all tests."""
    with postgresql() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Worker, gateway, provider and ledger, with the sandbox alone."""
    async with set_up(engine, tmp_path_factory.mktemp("stage")) as everything:
        yield everything
