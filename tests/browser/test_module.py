"""A page shows each event once, in order, and the right one, whatever happens to its connection."""

from __future__ import annotations

import asyncio
from typing import Any

from ackbridge.contracts.calls import Effect, Notice, OutcomeStatus

from .world import World, connected, reach

DELAYED = [1, "delayed", None]
LATE = [2, "completed_late", None]


async def complete(world: World) -> None:
    """The call has its response."""
    await world.end(OutcomeStatus.COMPLETED, Effect.DONE, None)


def scripted(sequence: int, **data: Any) -> dict[str, Any]:
    """An event that a test sends itself."""
    known = {"call_id": "scripted.call.1", "sequence": sequence, "status": "delayed"}
    notice = {
        "kind": "delayed",
        "title": f"Title {sequence} 💳",
        "message": "",
        "alternative": "no",
    }
    return {
        "id": f"scripted.call.1:{sequence}.delayed",
        "type": "call.delayed",
        "timestamp": "2026-03-01T12:00:00Z",
        "data": {**known, "notice": notice, "effect": "unknown", **data},
    }


async def test_delayed_then_completed_late(world: World) -> None:
    """The usual trouble; after the last event the page does not connect again."""
    await world.begin()
    page = await world.open()
    await connected(page)
    await world.park()
    await reach(page, "states", [DELAYED])
    assert await page.inner_text("h1") == "It takes longer"
    await complete(world)
    await reach(page, "states", [DELAYED, LATE])
    await reach(page, "events", [DELAYED, LATE])
    await reach(page, "connections", ["open", "ended"])
    assert await page.inner_text("h1") == "Done, later than usual"
    connections = world.network.connections
    await asyncio.sleep(2)
    assert world.network.connections == connections


async def test_unknown_is_told_apart_from_failed_with_an_alternative(world: World) -> None:
    """Nobody is sent elsewhere while it may still be done, whatever the notice says."""
    await world.begin()
    page = await world.open()
    elsewhere = Notice(kind="unknown", title="Who knows", message="-", alternative="Pay elsewhere.")
    await world.end(OutcomeStatus.FAILED, Effect.UNKNOWN, elsewhere)
    await reach(page, "states", [[1, "unknown", None]])
    failed = Notice(kind="failed", title="It failed", message="-", alternative="Pay elsewhere.")
    await world.end(OutcomeStatus.FAILED, Effect.NONE, failed)
    await reach(page, "states", [[1, "unknown", None], [2, "failed", "Pay elsewhere."]])
    await reach(page, "events", [[1, "unknown", None], [2, "failed", "Pay elsewhere."]])


async def test_events_that_are_sent_twice_and_in_disorder(world: World) -> None:
    """Each is shown once, the newest wins, and what is no event of this call is left out."""
    world.call_id = "scripted.call.1"
    other = scripted(9, call_id="scripted.call.2")
    done = scripted(3, status="completed", effect="done", late=True)
    first, second = scripted(1), scripted(2)
    broken: dict[str, Any] = {"id": "x"}
    world.pages.scripted = (first, first, broken, second, first, other, second, done, done, second)
    page = await world.open(f"{world.pages.url}/scripted/scripted.call.1/events")
    expected = [[1, "delayed", None], [2, "delayed", None], [3, "completed_late", None]]
    await reach(page, "states", expected)
    await reach(page, "events", expected)
    assert await page.inner_text("h1") == "Title 3 💳"


async def test_two_tabs(world: World) -> None:
    """Both show the state, and one of them announces each event, also over one connection alone."""
    await world.begin()
    tabs = [await world.open(), await world.open()]
    for tab in tabs:
        await connected(tab)
    await world.park()
    for tab in tabs:
        await reach(tab, "states", [DELAYED])
    # What one tab hears, the other one shows, although its own connection is gone.
    await tabs[1].evaluate(
        "() => { window.fetch = () => Promise.reject(new TypeError('offline')); }"
    )
    world.network.cut()
    world.network.restore()
    await reach(tabs[0], "connections", ["open", "waiting", "open"])
    await complete(world)
    for tab in tabs:
        await reach(tab, "states", [DELAYED, LATE])
    await asyncio.sleep(2)
    announced = [await tab.evaluate("window.events") for tab in tabs]
    assert sorted(announced[0] + announced[1]) == [DELAYED, LATE]


async def test_page_reloaded(world: World) -> None:
    """It shows the state again, and announces nothing that was announced."""
    await world.begin()
    page = await world.open()
    await world.park()
    await reach(page, "events", [DELAYED])
    await page.reload()
    await reach(page, "states", [DELAYED])
    assert await page.evaluate("window.events") == []
    await complete(world)
    await reach(page, "events", [LATE])
    await page.reload()
    await reach(page, "states", [LATE])
    assert await page.evaluate("window.events") == []


async def test_server_restarted(world: World) -> None:
    """The page connects again by itself, and gets what happened meanwhile, once."""
    await world.begin()
    page = await world.open()
    await world.park()
    await reach(page, "events", [DELAYED])
    await asyncio.to_thread(world.api.stop)
    await world.park("It takes even longer")
    await asyncio.to_thread(world.api.start)
    await reach(page, "states", [DELAYED, [2, "delayed", None]])
    await complete(world)
    last = [3, "completed_late", None]
    await reach(page, "events", [DELAYED, [2, "delayed", None], last])
    assert await page.evaluate("window.connections") == ["open", "waiting", "open", "ended"]


async def test_network_cut(world: World) -> None:
    """Connections are reset, and refused for a while."""
    await world.begin()
    page = await world.open()
    await world.park()
    await reach(page, "events", [DELAYED])
    world.network.cut()
    await complete(world)
    await asyncio.sleep(2)
    assert await page.evaluate("window.states") == [DELAYED]
    world.network.restore()
    await reach(page, "states", [DELAYED, LATE])
    await reach(page, "events", [DELAYED, LATE])


async def test_network_silent(world: World) -> None:
    """A connection that is dead without being closed is noticed by its silence."""
    await world.begin()
    page = await world.open(silent=1500)
    await world.park()
    await reach(page, "events", [DELAYED])
    world.network.fall_silent()
    await complete(world)
    await page.wait_for_function("window.connections.includes('waiting')")
    world.network.restore()
    await reach(page, "events", [DELAYED, LATE])


async def test_page_that_may_store_nothing(world: World) -> None:
    """It remembers by itself; only a reload announces again."""
    await world.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})"
    )
    await world.begin()
    page = await world.open()
    await world.park()
    await reach(page, "events", [DELAYED])
    await complete(world)
    await reach(page, "events", [DELAYED, LATE])
    await page.reload()
    await reach(page, "events", [LATE])


async def test_what_is_remembered_is_bounded(world: World) -> None:
    """The oldest calls are forgotten, and what somebody else has written does no harm."""
    await world.begin()
    page = await world.open()
    await page.evaluate(
        """const rows = Array.from({length: 2000}, (_, i) => ["call" + i, 1, Date.now()]);
        localStorage.setItem("ackbridge-events", JSON.stringify([["old", 1, 0], ...rows]));"""
    )
    await world.park()
    await reach(page, "events", [DELAYED])
    stored = await page.evaluate("JSON.parse(localStorage.getItem('ackbridge-events'))")
    assert len(stored) == 500
    assert stored[-1][:2] == [world.call_id, 1]
    await page.evaluate("localStorage.setItem('ackbridge-events', '{')")
    await complete(world)
    await reach(page, "events", [DELAYED, LATE])
