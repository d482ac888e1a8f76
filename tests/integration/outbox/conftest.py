"""The database of a service with an outbox, on PostgreSQL and on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa

from ackbridge.outbox.rows import OutboxStore, open_outbox
from tests.integration.ledger.samples import MovableClock
from tests.support.postgres import PostgreSQL

from .shop import create_shop, drop_shop


@pytest.fixture(scope="session")
def shared_database(server: PostgreSQL) -> str:
    """One for all tests: to create one takes longer than most of them."""
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    return str(request.getfixturevalue("shared_database"))


@pytest.fixture
def shop(url: str) -> Iterator[sa.Engine]:
    """The service's own connections."""
    engine = create_shop(url)
    yield engine
    drop_shop(engine)


@pytest.fixture
def clock() -> MovableClock:
    """The relay's clock."""
    return MovableClock()


@pytest_asyncio.fixture
async def store(url: str, shop: sa.Engine, clock: MovableClock) -> AsyncIterator[OutboxStore]:
    """What relays and operators use."""
    opened = open_outbox(url, clock)
    yield opened
    await opened.database.close()
