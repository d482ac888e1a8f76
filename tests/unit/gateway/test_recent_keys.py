"""Recent keys: one claim at a time per event; completed ones are remembered."""

from __future__ import annotations

import asyncio

from ackbridge.gateway.delivery import RecentKeys

KEY = ("acme", "evt_1")


async def _deliver(recent: RecentKeys, key: tuple[str, str] = KEY) -> bool:
    first = await recent.claim(key)
    if first:
        recent.complete(key)
    return first


async def test_an_event_is_claimed_once() -> None:
    """Only the first claim succeeds; the same event key of another provider is another event."""
    recent = RecentKeys(capacity=100)
    assert [await _deliver(recent) for _ in range(3)] == [True, False, False]
    assert await _deliver(recent, ("other", "evt_1"))


async def test_a_failure_releases_the_key() -> None:
    """After a failed delivery, the next claim succeeds."""
    recent = RecentKeys(capacity=100)
    assert await recent.claim(KEY)
    recent.release(KEY)
    assert await _deliver(recent)


async def test_after_a_cancellation_exactly_one_waiter_claims_the_key() -> None:
    """One waiter delivers the event, and the others wait for it."""
    recent = RecentKeys(capacity=100)
    started = asyncio.Event()

    async def never_ends() -> None:
        await recent.claim(KEY)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            recent.release(KEY)

    first = asyncio.create_task(never_ends())
    await started.wait()
    waiting = [asyncio.create_task(_deliver(recent)) for _ in range(3)]
    first.cancel()
    assert sorted(await asyncio.gather(*waiting)) == [False, False, True]


async def test_the_last_used_keys_are_remembered() -> None:
    """The number of keys is bounded; a key that is seen again stays."""
    recent = RecentKeys(capacity=2)
    keys = [("acme", str(number)) for number in range(3)]
    await _deliver(recent, keys[0])
    await _deliver(recent, keys[1])
    assert not await _deliver(recent, keys[0])
    await _deliver(recent, keys[2])
    assert [await _deliver(recent, key) for key in (keys[0], keys[1])] == [False, True]
