"""The recent keys: one at a time per key, remembered when done, released when not."""

from __future__ import annotations

import asyncio

from ackbridge.gateway.recent_keys import RecentKeys

KEY = ("acme", "evt_1")


async def _deliver(recent: RecentKeys, key: tuple[str, str] = KEY) -> bool:
    first = await recent.claim(key)
    if first:
        recent.keep(key)
    return first


async def test_a_key_is_done_once() -> None:
    """The first one has to do it; who comes later is told so. Another provider's is another key."""
    recent = RecentKeys()
    assert [await _deliver(recent) for _ in range(3)] == [True, False, False]
    assert await _deliver(recent, ("other", "evt_1"))


async def test_a_failure_releases_the_key() -> None:
    """What failed was not done: the next one has to do it."""
    recent = RecentKeys()
    assert await recent.claim(KEY)
    recent.release(KEY)
    assert await _deliver(recent)


async def test_a_cancelled_one_lets_exactly_one_waiter_take_over() -> None:
    """Of several that wait, one goes on at a time, and the rest wait for that one."""
    recent = RecentKeys()
    begun = asyncio.Event()

    async def never_ends() -> None:
        await recent.claim(KEY)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            recent.release(KEY)

    first = asyncio.create_task(never_ends())
    await begun.wait()
    waiting = [asyncio.create_task(_deliver(recent)) for _ in range(3)]
    first.cancel()
    assert sorted(await asyncio.gather(*waiting)) == [False, False, True]


async def test_the_keys_used_last_are_remembered() -> None:
    """Memory is bounded; a key that is seen again stays."""
    recent = RecentKeys(capacity=2)
    keys = [("acme", str(number)) for number in range(3)]
    await _deliver(recent, keys[0])
    await _deliver(recent, keys[1])
    assert not await _deliver(recent, keys[0])
    await _deliver(recent, keys[2])
    assert [await _deliver(recent, key) for key in (keys[0], keys[1])] == [False, True]
