"""The breaker on the real engine: a provider breaks while calls flow, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from ackbridge.contracts import BreakerState, ControlSnapshot
from ackbridge.embedded import EmbeddedEngine
from ackbridge.provider_control import ProviderControl
from tests.integration.stage import INTEGRATIONS, Stage, set_up

QUICK = {
    "min_volume": 4,
    "consecutive": 4,
    "open_for": "4s",
    "probes": 2,
    "probe_every": "1s",
    "ramp": {"start": 5, "factor": 2, "every": "2s", "steps": 3},
}
WITHIN = timedelta(seconds=60)


def edited(folder: Path, **top: Any) -> Path:
    """A folder with the sandbox's integration alone: quick, and parking what cannot be sent."""
    file = yaml.safe_load((INTEGRATIONS / "sandbox.yaml").read_text())
    file |= {"breaker": QUICK, "health": {"path": "/healthz", "every": "5s"}, **top}
    file["operations"]["create_order"]["when_off"] = "park"
    integrations = folder / "integrations"
    integrations.mkdir()
    (integrations / "sandbox.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    return integrations


@asynccontextmanager
async def played(
    engine: EmbeddedEngine, folder: Path, **top: Any
) -> AsyncIterator[tuple[Stage, ProviderControl]]:
    """A stage, and the control of its provider."""
    async with set_up(engine.address, folder, edited(folder, **top)) as stage:
        yield stage, ProviderControl(stage.client, "sandbox")


async def mood(stage: Stage, state: str) -> None:
    """The provider as a whole is so from now on."""
    reply = await stage.http.put(f"{stage.provider_url}/_mood", json={"state": state})
    assert reply.status_code == 200


async def until(
    control: ProviderControl, holds: Callable[[ControlSnapshot], object]
) -> ControlSnapshot:
    """The control's snapshot, once something holds of it."""
    async with asyncio.timeout(WITHIN.total_seconds()):
        while True:
            seen = await control.snapshot()
            if seen is not None and holds(seen):
                return seen
            await asyncio.sleep(0.1)


async def test_a_provider_breaks_and_comes_back(tmp_path: Path) -> None:
    """It opens, new calls are parked with a notice, what is owed is paid, probes close it, and
    what was parked drains; and every bit of it can be read in the control's history."""
    with EmbeddedEngine(tmp_path / "engine.db", headless=True) as engine:
        async with played(engine, tmp_path) as (stage, control):
            # One is under way while the provider breaks: it is answered and acknowledged.
            slow = stage.request(delay_ms=6000)
            await stage.calls.start(slow)
            await stage.until(slow, "awaiting_response")
            await mood(stage, "broken")
            doomed = [stage.request() for _ in range(6)]
            for request in doomed:
                await stage.calls.start(request)
            opened = await until(control, lambda seen: seen.breaker.state is BreakerState.OPEN)
            assert "sends failed" in opened.breaker.reason
            stopped = await until(control, lambda seen: seen.rate and seen.rate.per_second == 0)
            assert stopped.is_throttled

            kept_back = stage.request()
            await asyncio.sleep(1.2)  # a worker looks at the control about every second
            await stage.calls.start(kept_back)
            await stage.until(kept_back, "parked")
            status = await stage.calls.call(kept_back.call_id).status()
            assert status.notice is not None
            assert status.notice.kind == "delayed"
            assert "breaker of sandbox is open" in (status.deadline_reason or "")
            assert await stage.effects(kept_back.call_id) == 0
            outcome = await stage.calls.call(slow.call_id).outcome(WITHIN)
            assert outcome.status == "completed"
            assert await stage.acknowledged(slow.call_id) == ["success"]

            await mood(stage, "well")
            await until(control, lambda seen: seen.breaker.step is not None)
            for request in (*doomed, kept_back):
                outcome = await stage.calls.call(request.call_id).outcome(WITHIN)
                assert outcome.status == "completed"
                assert await stage.effects(request.call_id) == 1
            await until(control, lambda seen: not seen.is_throttled)
            told = [change.after for change in (await control.status()).changes]
            assert {"open", "half_open", "closed, step 1", "closed"} <= set(told)
