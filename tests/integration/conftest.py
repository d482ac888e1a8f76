"""One engine and one stage for all integration tests; every test uses keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.stage import Stage, set_up


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """The real Temporal server."""
    state = tmp_path_factory.mktemp("engine") / "engine.db"
    with EmbeddedEngine(state, headless=True, time_skipping=True) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Engine, worker, gateway, provider and ledger."""
    async with set_up(engine.address, tmp_path_factory.mktemp("stage")) as everything:
        yield everything
