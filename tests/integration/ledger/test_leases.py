"""Leases: never more than there may be, and those of a worker that died end by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from ackbridge.clock import utc_now
from ackbridge.ledger.leases import LeaseRequest, LeaseResult
from ackbridge.ledger.ledger import Ledger

from .samples import MovableClock

PERIOD = timedelta(seconds=20)


def wanted(clock: MovableClock, name: str, **changes: Any) -> LeaseRequest:
    """A request of acme's, of which two may be in flight."""
    fields = {
        "provider": "acme",
        "holder": name,
        "call_id": f"acme.order.{name}",
        "tenant": "",
        "total": 2,
        "per_tenant": None,
        "waits_since": clock(),
        "period": PERIOD,
    }
    return LeaseRequest(**{**fields, **changes})


async def test_no_more_leases_than_there_may_be(ledger: Ledger, clock: MovableClock) -> None:
    """The third waits until one is released; asking again is no second lease."""
    for name in ("a", "b", "a", "b"):
        assert (await ledger.leases.acquire(wanted(clock, name))).is_granted
    third = wanted(clock, "c")
    refused = await ledger.leases.acquire(third)
    assert (refused.is_granted, refused.in_flight, refused.most) == (False, 2, 2)
    assert await ledger.leases.counts("acme") == {"": (2, 1)}
    assert (await ledger.leases.acquire(wanted(clock, "a", provider="other"))).is_granted
    await ledger.leases.release("acme", "a")
    await ledger.leases.release("acme", "a")
    assert (await ledger.leases.acquire(third)).is_granted
    requests = await ledger.leases.requests("acme", 10)
    assert [one.call_id for one in requests] == ["acme.order.b", "acme.order.c"]


async def test_lease_of_a_dead_worker_ends(ledger: Ledger, clock: MovableClock) -> None:
    """After its period, not before."""
    for name in ("a", "b"):
        await ledger.leases.acquire(wanted(clock, name))
    clock.advance(PERIOD - timedelta(seconds=1))
    assert not (await ledger.leases.acquire(wanted(clock, "c"))).is_granted
    clock.advance(timedelta(seconds=1))
    assert (await ledger.leases.acquire(wanted(clock, "c"))).is_granted
    assert await ledger.leases.counts("acme") == {"": (1, 0)}


async def test_oldest_are_first(ledger: Ledger, clock: MovableClock) -> None:
    """A newcomer gets no lease before those that wait, and they come back in turn."""
    for name in ("a", "b"):
        await ledger.leases.acquire(wanted(clock, name))
    clock.advance(timedelta(seconds=4))
    waiting = []
    for number in range(20):
        clock.advance(timedelta(milliseconds=1))
        waiting.append(wanted(clock, f"w{number}"))
    results = [await ledger.leases.acquire(one) for one in waiting]
    assert [one.waiting for one in results] == list(range(20))
    delays = [one.retry_after for one in results]
    assert delays == sorted(delays)
    assert delays[0] < timedelta(seconds=5) < delays[-1] <= timedelta(seconds=30)
    await ledger.leases.release("acme", "a")
    clock.advance(timedelta(seconds=1))
    assert not (await ledger.leases.acquire(wanted(clock, "newcomer"))).is_granted
    assert (await ledger.leases.acquire(waiting[0])).is_granted


async def test_request_that_gave_up_waiting_holds_nobody_up(
    ledger: Ledger, clock: MovableClock
) -> None:
    """It is forgotten a minute after it should have come back."""
    for name in ("a", "b"):
        await ledger.leases.acquire(wanted(clock, name, period=timedelta(hours=1)))
    for number in range(10):
        await ledger.leases.acquire(wanted(clock, f"gone{number}"))
    await ledger.leases.release("acme", "a")
    clock.advance(timedelta(seconds=95))
    assert (await ledger.leases.acquire(wanted(clock, "c"))).is_granted


async def test_tenants_have_their_own(ledger: Ledger, clock: MovableClock) -> None:
    """One that uses all of its leases holds back no other, within the provider's."""

    async def ask(tenant: str, name: str) -> LeaseResult:
        more = {"tenant": tenant, "per_tenant": 2, "total": 3}
        return await ledger.leases.acquire(wanted(clock, name, **more))

    assert [(await ask("a", f"a{n}")).is_granted for n in range(3)] == [True, True, False]
    assert (await ask("a", "a9")).is_of_tenant
    assert (await ask("b", "b0")).is_granted
    refused = await ask("b", "b1")
    assert (refused.is_granted, refused.is_of_tenant) == (False, False)
    assert await ledger.leases.counts("acme") == {"a": (2, 2), "b": (1, 1)}


async def test_exact_under_load(ledger_url: str) -> None:
    """Forty requests of four processes' connections at once: never more than five have a lease."""
    ledgers = [Ledger.open(ledger_url, utc_now) for _ in range(4)]
    held = Counter[str]()
    most = 0

    async def send(ledger: Ledger, name: str) -> None:
        nonlocal most
        request = LeaseRequest("acme", name, name, "", 5, None, utc_now(), timedelta(minutes=1))
        while not (await ledger.leases.acquire(request)).is_granted:  # noqa: ASYNC110 -- as calls do
            await asyncio.sleep(0.02)
        held[name] += 1
        most = max(most, held.total())
        await asyncio.sleep(0.05)
        held[name] -= 1
        await ledger.leases.release("acme", name)

    await asyncio.gather(*(send(ledgers[n % 4], f"call-{n}") for n in range(40)))
    assert 1 < most <= 5
    assert await ledgers[0].leases.counts("acme") == {}
    for ledger in ledgers:
        await ledger.close()
