"""The example shop in a real stack: what its user sees of each end of a call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from ackbridge.local.stack import PARTS, SHOP, Stack

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

KIND = "document.querySelector('.booking').className.split(' ')[1]"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """What `make up` starts, but for localstripe; not without a browser."""
    parts = tuple(part for part in PARTS if part != "stripe")
    made = Stack(tmp_path_factory.mktemp("shop"), environ=os.environ, parts=(*parts, SHOP))
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


async def book(context: BrowserContext, stack: Stack, scenario: str) -> Page:
    """Book a room in a new tab."""
    page = await context.new_page()
    await page.goto(stack.addresses.shop)
    await page.select_option("select", scenario)
    await page.click("#book button")
    await page.wait_for_selector(".booking")
    assert await page.inner_text("#problem") == ""
    return page


async def shows(page: Page, kind: str, within: float = 60) -> None:
    """Wait until the booking is of a kind."""
    await page.wait_for_function(f"{KIND} === '{kind}'", timeout=within * 1000)


@pytest.mark.parametrize(
    ("scenario", "kind", "title", "alternative"),
    [
        ("fine", "completed", "Done", ""),
        ("slow", "completed", "Done", ""),
        (
            "failed",
            "failed",
            "The booking did not go through",
            "Choose another room, or call the house.",
        ),
        ("unknown", "unknown", "We do not know yet whether you have ordered", ""),
    ],
)
async def test_what_a_user_sees(
    context: BrowserContext, stack: Stack, scenario: str, kind: str, title: str, alternative: str
) -> None:
    """An alternative is offered only where the house has not got the work."""
    page = await book(context, stack, scenario)
    await shows(page, kind)
    assert await page.inner_text(".booking .title") == title
    assert await page.inner_text(".booking .alternative") == alternative
    assert await page.is_hidden(".booking .reprocess")


async def test_delayed_and_completed_late_across_a_restart_of_the_gateway(
    context: BrowserContext, stack: Stack
) -> None:
    """The page connects again; both tabs show the end, and one announces it."""
    page = await book(context, stack, "delayed")
    await shows(page, "delayed")
    assert "We keep trying" in await page.inner_text(".booking .message")
    other = await context.new_page()
    await other.goto(stack.addresses.shop)
    await shows(other, "delayed")
    await asyncio.to_thread(stack.restart, "gateway")
    await page.wait_for_function("document.querySelector('.booking').dataset.connection === 'open'")
    await page.click(".booking .reprocess")
    for tab in (page, other):
        await shows(tab, "completed_late")
    await asyncio.sleep(2)
    toasts = [await tab.locator(".toast").all_inner_texts() for tab in (page, other)]
    assert sum("Done, later than usual" in text for text in (*toasts[0], *toasts[1])) == 1


async def test_a_visitor_gets_tokens_of_its_own_bookings(
    browser: Browser, context: BrowserContext, stack: Stack
) -> None:
    """Another visitor, who knows the booking's id, is refused, and sees none of it."""
    page = await book(context, stack, "fine")
    key = await page.get_attribute(".booking", "data-booking")
    stranger = await browser.new_context()
    other = await stranger.new_page()
    await other.goto(stack.addresses.shop)
    asked = (
        f"fetch('/bookings/{key}/event-token', {{method: 'POST'}}).then((reply) => reply.status)"
    )
    assert await other.evaluate(asked) == 404
    assert await other.locator(".booking").count() == 0
    await stranger.close()
