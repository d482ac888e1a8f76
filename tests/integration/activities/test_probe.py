"""The health request: errors of the provider, errors of ours, and unclear answers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import Response

from ackbridge.catalog.model import HealthSpec
from ackbridge.stats.counters import Count
from activities.observe import probe

from .world import World, unreachable_url


async def probed(world: World, base_url: str | None = None) -> Count | None:
    """The result of a health request."""
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
async def test_health_by_status(world: World, reply: Response | float, expected: Count) -> None:
    """Below 400 is healthy, 5xx and silence are not, a refusal is unclear."""
    world.script.replies.append(reply)
    assert await probed(world) is expected
    assert world.script.asked == ["GET /up"]


async def test_unreachable_provider_is_unhealthy(world: World) -> None:
    """No connection can be made."""
    assert await probed(world, unreachable_url()) is Count.UNHEALTHY


async def test_own_errors_are_unclear(world: World) -> None:
    """Without the secret no request is sent."""
    del world.environ["ACME_TOKEN"]
    assert await probed(world) is Count.UNCLEAR
    assert world.script.asked == []


async def test_no_health_request(world: World) -> None:
    """A provider without a health request is not probed."""
    integration = world.deps.catalog.integration("acme")
    assert await probe(world.deps, integration) is None
    assert world.script.asked == []
