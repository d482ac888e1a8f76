"""Providers with quotas that nobody knows, on the real engine."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
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

PER_SECOND = 2.0
"""So few that a busy machine exceeds them as well."""

DEMAND = 12.0

FILE = """
provider: {provider}
base_url: ${{NARROW_URL}}
breaker: null
{limits}
operations:
  quote:
    fairness: metadata.customer
    request: {{path: /quotes, body: metadata}}
    receipt: {{attempts: 20, within: 10m}}
    response: {{mode: sync, success: id}}
"""


@dataclass
class Provider:
    """Accepts two requests per second of some customers, and says so to nobody.

    Attributes:
        limited: the customers that it limits.
        answers: when each request came, whose it was, and its status.
    """

    limited: dict[str, TokenBucket] = field(
        default_factory=lambda: {
            name: TokenBucket(PER_SECOND, PER_SECOND) for name in ("all", "small")
        }
    )
    answers: list[tuple[float, str, int]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/quotes")
        async def quote(request: Request) -> JSONResponse:
            customer = (await request.json())["customer"]
            now = time.monotonic()
            bucket = self.limited.get(customer)
            status = 200 if bucket is None or bucket.accepts(now) else 429
            self.answers.append((now, customer, status))
            return JSONResponse({"id": "q"} if status == 200 else {}, status)

        return app

    def since(self, begin: float, customer: str) -> list[int]:
        """The statuses of a customer's requests since then."""
        return [status for at, whose, status in self.answers if at >= begin and whose == customer]


@pytest.mark.extended
async def test_provider_that_rejects_is_sent_less_by_everybody(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Far more than it accepts is asked for: soon it is sent little more than that, and the
    control says how much that is. Where quotas are tenants', the other tenant goes on."""
    provider = Provider()
    folder = tmp_path / "integrations"
    folder.mkdir()
    for name, limits in (("narrow", ""), ("shared", "limits: {quota_of: tenant}")):
        (folder / f"{name}.yaml").write_text(FILE.format(provider=name, limits=limits))
    with serve(provider.app()) as url:
        async with set_up(engine, tmp_path, folder, environ={"NARROW_URL": url}) as stage:
            narrow, shared = stage.calls.control("narrow"), stage.calls.control("shared")
            for control in (narrow, shared):
                await reached(control, lambda seen: seen.rate is not None)
            asked = (("narrow", "all"), ("shared", "small"), ("shared", "large"))
            asking = asyncio.create_task(_ask(stage.calls, DEMAND, asked))
            limited = await reached(narrow, lambda seen: WHOLE_QUOTA in seen.quotas)
            assert "answered 429" in limited.quotas[WHOLE_QUOTA].reason
            assert limited.is_throttled
            await reached(shared, lambda seen: "small" in seen.quotas)
            await asyncio.sleep(10)
            begin = time.monotonic()
            await asyncio.sleep(8)
            for customer in provider.limited:
                statuses = provider.since(begin, customer)
                assert statuses.count(429) <= 2
                # How much of the quota is used is simulated, over hours.
                assert statuses.count(200) <= 1.2 * PER_SECOND * 8
            assert set(provider.since(begin, "large")) == {200}
            quotas = await stage.ledger.stats.quotas("shared")
            assert quotas.keys() == {"small"}
            changes = (await narrow.status()).changes
            assert any(change.subject == "accepted rate" for change in changes)

            await narrow.set_limit(SetLimit(per_second=100, by="ann", reason="they agreed"))
            asking.cancel()
            await reached(narrow, lambda seen: not seen.quotas)
            assert not await stage.ledger.stats.quotas("narrow")


async def _ask(calls: AckbridgeClient, per_second: float, asked: Sequence[tuple[str, str]]) -> None:
    """Start so many calls of each provider and customer."""
    for number in itertools.count():
        for provider, customer in asked:
            request = CallRequest(
                provider=provider,
                operation="quote",
                key=f"{customer}-{number}",
                payload={},
                metadata={"customer": customer},
            )
            await calls.start(request)
        await asyncio.sleep(1 / per_second)
