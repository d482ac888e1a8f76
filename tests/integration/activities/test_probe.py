"""The health request: what is the provider's, what is ours, and what says nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import Response

from ackbridge.catalog.model import HealthSpec
from ackbridge.stats.counters import Count
from activities.observe import probe

from .world import World, nobody_there


async def asked(world: World, base_url: str | None = None) -> Count | None:
    """The world's provider is asked for its health."""
    integration = world.deps.catalog.integration("acme")
    health = HealthSpec(path="/up", timeout=timedelta(milliseconds=500))
    changes = {"health": health, "base_url": base_url or integration.base_url}
    return await probe(world.deps, integration.model_copy(update=changes))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Response(status_code=204), Count.HEALTHY),
        (Response(status_code=302), Count.HEALTHY),
        (Response(content=b"x" * 100_000), Count.HEALTHY),
        (Response(status_code=503), Count.UNHEALTHY),
        (Response(status_code=429), Count.UNHEALTHY),
        (Response(status_code=404), Count.UNCLEAR),
        (Response(status_code=401), Count.UNCLEAR),
        (5.0, Count.UNHEALTHY),
    ],
)
async def test_what_an_answer_says(world: World, reply: Response | float, expected: Count) -> None:
    """Below 400 is well, whatever it says; trouble and silence are not; a refusal says nothing."""
    world.script.replies.append(reply)
    assert await asked(world) is expected
    assert world.script.asked == ["GET /up"]


async def test_nobody_there(world: World) -> None:
    """Nobody who listens is not well."""
    assert await asked(world, nobody_there()) is Count.UNHEALTHY


async def test_our_own_trouble_says_nothing(world: World) -> None:
    """Without the secret the provider has not even been asked."""
    del world.environ["ACME_TOKEN"]
    assert await asked(world) is Count.UNCLEAR
    assert world.script.asked == []


async def test_no_health_request(world: World) -> None:
    """Who has none is not asked."""
    integration = world.deps.catalog.integration("acme")
    assert await probe(world.deps, integration) is None
    assert world.script.asked == []
