"""A provider for all activity tests, and the rest of the world for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from . import world as made
from .world import Script, World


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Script, str]]:
    """One provider, and where it is."""
    with made.provider() as running:
        yield running


@pytest_asyncio.fixture
async def world(served: tuple[Script, str], tmp_path: Path) -> AsyncIterator[World]:
    """What activities are given, and a script that has not begun."""
    script, url = served
    script.replies.clear()
    script.asked.clear()
    script.headers.clear()
    async with made.world(tmp_path, script, url) as everything:
        yield everything


@pytest_asyncio.fixture
async def deserted(tmp_path: Path) -> AsyncIterator[World]:
    """The same with a provider that nobody can reach."""
    async with made.world(tmp_path, Script(), made.nobody_there()) as everything:
        yield everything
