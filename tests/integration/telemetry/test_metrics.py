"""Metrics: what Prometheus fetches, and what the dashboard asks it for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.stats.counters import Count
from ackbridge.telemetry.metrics.gauges import GaugeSource
from ackbridge.telemetry.metrics.names import COUNTERS
from ackbridge.telemetry.metrics.setup import export_metrics
from tests.replay import playing
from tests.support import upgrade_cases
from tests.support.stage import CHECKOUT, Stage, set_up

DASHBOARD = CHECKOUT / "deploy" / "grafana" / "ackbridge.json"
OURS = {"provider": "sandbox", "operation": "create_order"}


class Page:
    """What Prometheus is told."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float | None:
        """Of one series; None when it is not there."""
        wanted = OURS | labels
        for sample in self._samples():
            if sample.name == name and wanted.items() <= sample.labels.items():
                return float(sample.value)
        return None

    @property
    def names(self) -> set[str]:
        """Of all series."""
        return {sample.name for sample in self._samples()}

    def _samples(self) -> list[Any]:
        return [sample for family in self.families for sample in family.samples]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def played(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stage, Page]]:
    """A stage whose worker exports metrics while calls run: one per outcome of interest."""
    folder = tmp_path_factory.mktemp("measured")
    port = LoopbackPort().number
    engine = EmbeddedEngine(folder / "engine.db", headless=True, time_skipping=True)
    with engine, export_metrics("worker", {}, HOST, port) as metrics:
        async with set_up(engine.address, folder, runtime=metrics.runtime) as stage:
            with_ = stage.provisions
            facts = GaugeSource(with_.catalog, with_.ledger, with_.control, "dev")
            await play(stage)
            async with metrics.watching(with_.counters, facts), httpx.AsyncClient() as http:
                while metrics.source.facts is None:  # noqa: ASYNC110 -- nobody is told of it
                    await asyncio.sleep(0.01)
                answer = await http.get(f"http://{HOST}:{port}/metrics")
                yield stage, Page(answer.raise_for_status().text)


async def play(stage: Stage) -> None:
    """A good call, one with a failed attempt, one parked after two silences; and good health."""
    for failures in (0, 1):
        request = stage.request(receipt_failures=failures)
        await stage.calls.start(request)
        await upgrade_cases.ended(stage, request)
    await playing.parked(stage, playing.booking(stage, stuck=True))
    stage.provisions.counters.count("sandbox", WHOLE_PROVIDER, Count.HEALTHY)


async def test_counts_are_those_that_were_observed(played: tuple[Stage, Page]) -> None:
    """Every counter says what the worker's counters say, and latencies are counted once."""
    _, page = played
    assert page.value("ackbridge_sends_total", outcome="receipt") == 2
    assert page.value("ackbridge_sends_total", outcome="unanswered") == 1
    assert page.value("ackbridge_cycles_total", outcome="answer") == 2
    assert page.value("ackbridge_cycles_total", outcome="silence") == 0
    assert page.value("ackbridge_cycles_total", operation="create_booking", outcome="silence") == 2
    assert page.value("ackbridge_acknowledgements_total", outcome="accepted") == 2
    assert page.value("ackbridge_errors_total") == 1
    assert page.value("ackbridge_exchanges_total", outcome="unanswered") == 1
    assert (page.value("ackbridge_probes_total", operation="", outcome="healthy") or 0) >= 1
    assert page.value("ackbridge_receipt_duration_seconds_count") == 2


async def test_latencies_are_in_their_buckets(played: tuple[Stage, Page]) -> None:
    """A histogram has what the sketch has, cumulated, and its sum."""
    _, page = played
    name = "ackbridge_answer_duration_seconds"
    count = page.value(f"{name}_count")
    assert count
    assert count == page.value(f"{name}_bucket", le="+Inf")
    assert count == page.value(f"{name}_bucket", le="60")
    assert page.value(f"{name}_sum")


async def test_facts_are_those_of_ledger_and_control(played: tuple[Stage, Page]) -> None:
    """What is parked and owed, flag and breaker stand there for every operation there is."""
    _, page = played
    assert page.value("ackbridge_parked", operation="create_booking") == 1
    assert page.value("ackbridge_parked") == 0
    assert page.value("ackbridge_acknowledgements_owed") == 0
    assert page.value("ackbridge_flag", state="on") == 1
    assert page.value("ackbridge_flag", state="off") == 0
    assert page.value("ackbridge_flag_share") == 1


async def test_engine_client_is_on_the_same_page(played: tuple[Stage, Page]) -> None:
    """The metrics of the Temporal client are on the same page."""
    _, page = played
    assert "temporal_workflow_task_schedule_to_start_latency_seconds_bucket" in page.names


async def test_dashboard_asks_for_what_there_is(played: tuple[Stage, Page]) -> None:
    """Every metric that the dashboard names is on the page, but for what has not happened."""
    _, page = played
    named = set(re.findall(r"\b(?:ackbridge|temporal)_\w+", DASHBOARD.read_text()))
    assert len(named) > 20
    assert set() == named - page.names - NOT_YET


NOT_YET = {
    "ackbridge_deadline_seconds",
    "temporal_request_failure_total",
    "temporal_workflow_task_execution_failed_total",
}
"""Nothing is learned, and nothing has failed."""


def test_dashboard_is_one() -> None:
    """Panels have ids of their own, lie side by side, and ask the data source that is chosen."""
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] == "ackbridge"
    panels = board["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_every_count_is_told() -> None:
    """A new count cannot be forgotten here."""
    assert set(Count) == set(COUNTERS)
