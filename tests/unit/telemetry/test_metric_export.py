"""Metrics of a process, pushed by OTLP and on the page at the same time."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from ackbridge.errors import ConfigurationError
from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.stats.counters import Count, Counters, Timing
from ackbridge.telemetry.metrics.export import export_metrics
from ackbridge.telemetry.metrics.gauges import OutboxGauges


class Collector(ThreadingHTTPServer):
    """Keeps the metrics it receives, by name."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Receiver)
        self.received: dict[str, object] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The `OTEL_*` that push to it."""
        url = f"http://{HOST}:{self.server_port}/v1/metrics"
        return {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": url}


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportMetricsServiceRequest()
        message.ParseFromString(body)
        assert isinstance(self.server, Collector)
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                self.server.received |= {metric.name: metric for metric in scope.metrics}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A running collector."""
    with Collector() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_metrics_are_pushed_and_on_the_page(collector: Collector) -> None:
    """Counters and histograms reach both, and what is left is pushed at the end."""
    counters, port = Counters(), LoopbackPort().number
    counters.count("acme", "order", Count.RECEIPTS)
    counters.time("acme", "order", Timing.RECEIPT, timedelta(seconds=0.02))
    with export_metrics("worker", collector.environment, HOST, port) as metrics:
        async with metrics.updating(counters):
            counters.count("acme", "order", Count.RECEIPTS)
        async with httpx.AsyncClient(trust_env=False) as http:
            page = (await http.get(f"http://{HOST}:{port}/metrics")).text
    label = 'operation="order",outcome="receipt",provider="acme"'
    assert f"ackbridge_sends_total{{{label}}} 2.0" in page
    assert 'ackbridge_receipt_duration_seconds_bucket{le="0.025",operation="order"' in page
    assert "ackbridge_parked" not in page, "unknown gauges are not exported"
    assert {"ackbridge.sends", "ackbridge.receipt.duration"} <= collector.received.keys()
    assert 'unit: "s"' in str(collector.received["ackbridge.receipt.duration"])


def test_what_a_relay_knows_of_its_outbox_is_on_the_page() -> None:
    """Other processes have none of these series."""
    port = LoopbackPort().number
    url = f"http://{HOST}:{port}/metrics"
    with export_metrics("relay", {}, HOST, port) as metrics:
        assert "ackbridge_outbox_lag" not in httpx.get(url, trust_env=False).text
        metrics.source.outbox = OutboxGauges({"started": 5}, {"pending": 2, "rejected": 1}, 0.5)
        page = httpx.get(url, trust_env=False).text
    assert 'ackbridge_outbox_rows_total{outcome="started"} 5.0' in page
    assert 'ackbridge_outbox_waiting{state="rejected"} 1.0' in page
    assert "ackbridge_outbox_lag_seconds 0.5" in page


def test_nothing_is_set_up_unless_asked_for() -> None:
    """Without an endpoint and a port there is no runtime for the Temporal client."""
    with export_metrics("worker", {}, HOST, None) as metrics:
        assert metrics.runtime is None


def test_port_that_is_taken_is_named() -> None:
    """The error names the setting."""
    with (
        ThreadingHTTPServer((HOST, 0), _Receiver) as taken,
        pytest.raises(ConfigurationError, match="ACKBRIDGE_METRICS_PORT: cannot listen"),
        export_metrics("worker", {}, HOST, taken.server_port),
    ):
        pass
