"""A provider with a quota that nobody knows, on the real engine."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.breaker import SetLimit
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.quotas import WHOLE_QUOTA
from ackbridge.local.dev_server import EmbeddedEngine
from benchmarks.quotas.simulation import TokenBucket
from tests.support.serving import serve
from tests.support.stage import reached, set_up

pytestmark = pytest.mark.slow

PER_SECOND = 5.0

FILE = """
provider: narrow
base_url: ${NARROW_URL}
breaker: null
operations:
  quote:
    request: {path: /quotes}
    receipt: {attempts: 20, within: 10m}
    response: {mode: sync, success: id}
"""


@dataclass
class Provider:
    """Accepts five requests per second, and says so to nobody.

    Attributes:
        answers: when each request came, and its status.
    """

    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(PER_SECOND, PER_SECOND))
    answers: list[tuple[float, int]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/quotes")
        async def quote() -> JSONResponse:
            now = time.monotonic()
            status = 200 if self.bucket.accepts(now) else 429
            self.answers.append((now, status))
            return JSONResponse({"id": "q"} if status == 200 else {}, status)

        return app

    def since(self, begin: float) -> list[int]:
        """The statuses of the requests since then."""
        return [status for at, status in self.answers if at >= begin]


async def test_provider_that_rejects_is_sent_less_by_everybody(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Four times what it accepts is asked for: soon it is sent little more than it accepts, and the
    control says how much that is; an operator's limit starts over."""
    provider = Provider()
    folder = tmp_path / "integrations"
    folder.mkdir()
    (folder / "narrow.yaml").write_text(FILE)
    with serve(provider.app()) as url:
        async with set_up(engine, tmp_path, folder, environ={"NARROW_URL": url}) as stage:
            control = stage.calls.control("narrow")
            await reached(control, lambda seen: seen.rate is not None)
            asking = asyncio.create_task(_ask(stage.calls, 20))
            limited = await reached(control, lambda seen: WHOLE_QUOTA in seen.quotas)
            assert "answered 429" in limited.quotas[WHOLE_QUOTA].reason
            assert limited.is_throttled
            await asyncio.sleep(10)
            begin = time.monotonic()
            await asyncio.sleep(8)
            statuses = provider.since(begin)
            rate = (await stage.ledger.stats.quotas("narrow"))[WHOLE_QUOTA].per_second
            assert rate is not None
            assert rate == pytest.approx(PER_SECOND, rel=0.4)
            assert statuses.count(200) >= 0.6 * PER_SECOND * 8
            assert statuses.count(429) <= 2
            changes = (await control.status()).changes
            assert any(change.subject == "accepted rate" for change in changes)

            await control.set_limit(SetLimit(per_second=100, by="ann", reason="they agreed"))
            asking.cancel()
            await reached(control, lambda seen: not seen.quotas)
            assert not await stage.ledger.stats.quotas("narrow")


async def _ask(calls: AckbridgeClient, per_second: float) -> None:
    number = 0
    while True:
        request = CallRequest(provider="narrow", operation="quote", key=f"k-{number}", payload={})
        await calls.start(request)
        number += 1
        await asyncio.sleep(1 / per_second)
