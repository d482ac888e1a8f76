"""Health and readiness for load balancers and orchestrators."""

from __future__ import annotations

from pathlib import Path

from temporalio.client import Client

from ackbridge.api.access import ApiParts
from ackbridge.api.app import build_api
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.identity import AuthSettings, Role
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.http_auth import HttpAuth
from tests.support.api import write_keys

from .world import World


async def test_healthy_and_ready(world: World) -> None:
    """Engine and ledger are available."""
    async with world.gateway() as gateway:
        alive = await gateway.http.get("/healthz")
        ready = await gateway.http.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "not_ready": {}})


async def test_the_calls_api_is_there_where_it_is_switched_on(
    world: World, no_engine: Client, tmp_path: Path
) -> None:
    """Beside health and callbacks, which stay open; without it, its routes do not exist."""
    (key,) = write_keys(tmp_path / "keys.json", Role.READ).values()
    auth = HttpAuth(AuthSettings(api_keys=tmp_path / "keys.json"), utc_now)
    calls = AckbridgeClient(no_engine)
    parts = ApiParts(no_engine, calls, world.ledger, world.catalog, auth, utc_now, "dev")
    headers = {"Authorization": f"Bearer {key}"}
    async with world.gateway(client=no_engine, api=build_api(parts)) as gateway:
        alive = await gateway.http.get("/healthz")
        refused = await gateway.http.get("/calls")
        listed = await gateway.http.get("/calls", headers=headers)
        callback = await gateway.http.post("/callbacks/nobody")
        missing = await gateway.http.get("/nothing%0a", headers=headers)
    async with world.gateway(client=no_engine) as gateway:
        off = await gateway.http.get("/calls", headers=headers)
    assert (alive.status_code, refused.status_code, callback.status_code) == (200, 401, 404)
    assert (listed.status_code, listed.json()) == (200, {"calls": [], "next": None})
    assert missing.headers["content-type"] == "application/problem+json"
    assert off.status_code == 404


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


async def test_a_ledger_that_was_moved_away_is_not_ready(world: World, tmp_path: Path) -> None:
    """Connections that are open go on working on the file that is elsewhere now."""
    path = tmp_path / "ledger.db"
    migrate(f"sqlite:///{path}")
    ledger = Ledger.open(f"sqlite:///{path}", utc_now)
    async with world.gateway(ledger=ledger) as gateway:
        before = await gateway.http.get("/readyz")
        path.rename(tmp_path / "away.db")
        moved = await gateway.http.get("/readyz")
    await ledger.close()

    assert before.status_code == 200
    assert (moved.status_code, [*moved.json()["not_ready"]]) == (503, ["ledger"])
    assert not path.exists()
