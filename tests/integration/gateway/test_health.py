"""Health and readiness for load balancers and orchestrators."""

from __future__ import annotations

from temporalio.client import Client

from ackbridge.ledger.ledger import Ledger

from .world import World


async def test_healthy_and_ready(world: World) -> None:
    """Engine and ledger are available."""
    async with world.gateway() as gateway:
        alive = await gateway.http.get("/healthz")
        ready = await gateway.http.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "not_ready": {}})


async def test_readiness_names_what_is_unavailable(
    world: World, no_engine: Client, no_ledger: Ledger
) -> None:
    """Without engine and ledger the process is healthy, not ready, and names both."""
    async with world.gateway(client=no_engine) as gateway:
        without_engine = await gateway.http.get("/readyz")
    async with world.gateway(client=no_engine, ledger=no_ledger) as gateway:
        alive = await gateway.http.get("/healthz")
        without_both = await gateway.http.get("/readyz")

    assert (without_engine.status_code, [*without_engine.json()["not_ready"]]) == (503, ["engine"])
    assert [*without_both.json()["not_ready"]] == ["engine", "ledger"]
    assert alive.status_code == 200
