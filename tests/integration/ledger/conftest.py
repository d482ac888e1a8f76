"""A migrated ledger on each database: both must pass the same suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from tests.support.postgres import PostgreSQL

from .samples import MovableClock


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any tables, on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/ledger.db"
    running: PostgreSQL = request.getfixturevalue("server")
    return running.new_database()


@pytest.fixture
def ledger_url(empty_url: str) -> str:
    """The URL of a migrated ledger."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def clock() -> MovableClock:
    """The ledger's clock."""
    return MovableClock()


@pytest_asyncio.fixture
async def ledger(ledger_url: str, clock: MovableClock) -> AsyncIterator[Ledger]:
    """An open ledger."""
    opened = Ledger.open(ledger_url, clock)
    yield opened
    await opened.close()
