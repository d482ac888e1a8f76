"""Metrics: the page for Prometheus, and what the dashboard queries."""

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
from ackbridge.telemetry.metrics.export import export_metrics
from ackbridge.telemetry.metrics.gauges import GaugeSource
from ackbridge.telemetry.metrics.instruments import COUNTERS
from tests.replay import playing
from tests.support import upgrade_cases
from tests.support.stage import CHECKOUT, Stage, set_up

DASHBOARD = CHECKOUT / "deploy" / "grafana" / "ackbridge.json"
OURS = {"provider": "sandbox", "operation": "create_order"}


class Page:
    """The page for Prometheus."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; None if the page lacks it."""
        wanted = OURS | labels
        for sample in self._samples():
            if sample.name == name and wanted.items() <= sample.labels.items():
                return float(sample.value)
        return None

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {sample.name for sample in self._samples()}

    def _samples(self) -> list[Any]:
        return [sample for family in self.families for sample in family.samples]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def played(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stage, Page]]:
    """A stage whose worker exports metrics while calls run: one per outcome of interest."""
    folder = tmp_path_factory.mktemp("measured")
    port = LoopbackPort().number
    with export_metrics("worker", {}, HOST, port) as metrics:
        async with set_up(engine, folder, runtime=metrics.runtime) as stage:
            deps = stage.deps
            gauges = GaugeSource(deps.catalog, deps.ledger, deps.snapshots, "dev")
            await play(stage)
            async with metrics.updating(deps.counters, gauges), httpx.AsyncClient() as http:
                while metrics.source.gauges is None:  # noqa: ASYNC110 -- there is no event to wait for
                    await asyncio.sleep(0.01)
                answer = await http.get(f"http://{HOST}:{port}/metrics")
                yield stage, Page(answer.raise_for_status().text)


async def play(stage: Stage) -> None:
    """One successful call, one with a failed attempt, one parked without a response."""
    for failures in (0, 1):
        request = stage.request(receipt_failures=failures)
        await stage.calls.start(request)
        await upgrade_cases.ended(stage, request)
    await playing.parked(stage, playing.booking(stage, stuck=True))
    stage.deps.counters.count("sandbox", WHOLE_PROVIDER, Count.HEALTHY)


async def test_counters_match_the_statistics(played: tuple[Stage, Page]) -> None:
    """Counters have what the worker counted, and each latency once."""
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


async def test_histogram_buckets(played: tuple[Stage, Page]) -> None:
    """A histogram has the values of the sketch, cumulated, and their sum."""
    _, page = played
    name = "ackbridge_answer_duration_seconds"
    count = page.value(f"{name}_count")
    assert count
    assert count == page.value(f"{name}_bucket", le="+Inf")
    assert count == page.value(f"{name}_bucket", le="60")
    assert page.value(f"{name}_sum")


async def test_gauges_match_ledger_and_control(played: tuple[Stage, Page]) -> None:
    """Parked calls, owed acknowledgements and flags are exported for every operation."""
    _, page = played
    assert page.value("ackbridge_parked", operation="create_booking") == 1
    assert page.value("ackbridge_parked") == 0
    assert page.value("ackbridge_acknowledgements_owed") == 0
    assert page.value("ackbridge_flag", state="on") == 1
    assert page.value("ackbridge_flag", state="off") == 0
    assert page.value("ackbridge_flag_share") == 1


async def test_metrics_of_the_temporal_client_are_on_the_page(played: tuple[Stage, Page]) -> None:
    """The metrics of the Temporal client are on the same page."""
    _, page = played
    assert "temporal_workflow_task_schedule_to_start_latency_seconds_bucket" in page.names


async def test_dashboard_queries_existing_metrics(played: tuple[Stage, Page]) -> None:
    """Every metric of the dashboard is on the page, except those of events that did not happen."""
    _, page = played
    named = set(re.findall(r"\b(?:ackbridge|temporal)_\w+", DASHBOARD.read_text()))
    assert len(named) > 20
    assert set() == named - page.names - NOT_YET


NOT_YET = {
    "ackbridge_deadline_seconds",
    "temporal_request_failure_total",
    "temporal_workflow_task_execution_failed_total",
}
"""No deadline is learned, and nothing has failed."""


def test_dashboard_layout() -> None:
    """Panels have unique ids, do not overlap, and use the selected data source."""
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


def test_every_count_is_exported() -> None:
    """A new count cannot be forgotten."""
    assert set(Count) == set(COUNTERS)
