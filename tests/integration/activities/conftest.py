"""A provider shared by all activity tests, and a worker's dependencies for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from . import world as made
from .world import Script, World


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Script, str]]:
    """One provider, and its URL."""
    with made.provider() as running:
        yield running


@pytest_asyncio.fixture
async def world(served: tuple[Script, str], tmp_path: Path) -> AsyncIterator[World]:
    """Dependencies, and an empty script of replies."""
    script, url = served
    script.replies.clear()
    script.asked.clear()
    script.headers.clear()
    async with made.world(tmp_path, script, url) as everything:
        yield everything


@pytest_asyncio.fixture
async def deserted(tmp_path: Path) -> AsyncIterator[World]:
    """Dependencies with a provider that cannot be reached."""
    async with made.world(tmp_path, Script(), made.unreachable_url()) as everything:
        yield everything
