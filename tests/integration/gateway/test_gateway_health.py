"""What load balancers and orchestrators ask."""

from __future__ import annotations

from temporalio.client import Client

from ackbridge.ledger import Ledger

from .world import World


async def test_healthy_and_ready(world: World) -> None:
    """Everything is there."""
    async with world.gateway() as gateway:
        alive = await gateway.http.get("/healthz")
        ready = await gateway.http.get("/readyz")

    assert (200, {"status": "ok"}) == (alive.status_code, alive.json())
    assert (200, {"ready": True, "not_ready": {}}) == (ready.status_code, ready.json())


async def test_not_ready_says_what_is_missing(
    world: World, no_engine: Client, no_ledger: Ledger
) -> None:
    """The process lives without engine and ledger, and names them as not ready."""
    async with world.gateway(client=no_engine) as gateway:
        without_engine = await gateway.http.get("/readyz")
    async with world.gateway(client=no_engine, ledger=no_ledger) as gateway:
        alive = await gateway.http.get("/healthz")
        without_both = await gateway.http.get("/readyz")

    assert (503, ["engine"]) == (without_engine.status_code, [*without_engine.json()["not_ready"]])
    assert ["engine", "ledger"] == [*without_both.json()["not_ready"]]
    assert 200 == alive.status_code
