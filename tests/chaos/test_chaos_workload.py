"""What a seed makes of a run."""

from __future__ import annotations

from itertools import islice, pairwise

from ackbridge.catalog.loading import load_catalog

from .run import INTEGRATIONS
from .workload import BULK_OPERATIONS, OPERATIONS, draw_call, draw_kills, rates

WORKERS = ("worker", "worker-2")
ENVIRON = {
    "SANDBOX_BASE_URL": "http://127.0.0.1:1",
    "SANDBOX_API_KEY": "key",
    "SANDBOX_WEBHOOK_SECRET": "made up for this test",
}


def test_a_seed_draws_the_same_again() -> None:
    """Calls, kills and faults depend on it and on nothing else; another one draws others."""

    def draw(seed: int) -> list[object]:
        calls = [draw_call(seed, number) for number in range(200)]
        kills = list(islice(draw_kills(seed, 60, WORKERS), 50))
        faults = [rates(seed).draw(f"shop.order.{number}:1") for number in range(200)]
        return [calls, kills, faults]

    assert draw(7) == draw(7)
    assert all(ours != theirs for ours, theirs in zip(draw(7), draw(8), strict=True))


def test_every_operation_every_act_and_every_part_is_drawn() -> None:
    """Thousands of calls leave nothing out."""
    calls = [draw_call(1, number) for number in range(2000)]
    drawn = {(call.request.provider, call.request.operation) for call in calls}
    assert drawn == OPERATIONS.keys()
    assert any(call.is_refusable for call in calls)
    killed = {part for kill in islice(draw_kills(1, 60, WORKERS), 100) for part in kill.parts}
    assert killed == {*WORKERS, "gateway", "engine"}


def test_every_operation_that_is_called_is_configured() -> None:
    """The integration files are the chaos run's own."""
    catalog = load_catalog(INTEGRATIONS, ENVIRON)
    configured = {
        (provider, operation)
        for provider, integration in catalog.integrations.items()
        for operation in integration.operations
    }
    assert configured == BULK_OPERATIONS.keys()


def test_kills_come_in_order_and_as_often_as_asked() -> None:
    """The gap between two is half to one and a half times the average."""
    kills = list(islice(draw_kills(1, 60, WORKERS), 100))
    afters = [0, *(kill.after for kill in kills)]
    gaps = [later - sooner for sooner, later in pairwise(afters)]
    assert all(30 <= gap <= 90 for gap in gaps)
