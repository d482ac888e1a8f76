"""Export the metrics of one of our processes: by OTLP, and on a page for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from temporalio.runtime import OpenTelemetryConfig, PrometheusConfig, Runtime, TelemetryConfig

from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.stats.counters import Counters
from ackbridge.telemetry.otlp import Signal, export_to_environ, otlp_metrics, resource
from ackbridge.telemetry.trace_export import export_traces

from .gauges import GaugeSource
from .histograms import PageReader, PushReader
from .instruments import MetricSource, create_instruments

log = logging.getLogger(__name__)

TOTALS_INTERVAL: Final = timedelta(seconds=5)
"""How old the counters of this process may be."""

GAUGES_INTERVAL: Final = timedelta(seconds=30)
"""How old the gauges of the fleet may be: reading them costs two queries per provider."""

_LOOPBACK: Final = "127.0.0.1"
_ENGINE_PAGE_TIMEOUT: Final = 2.0
"""Seconds."""


class Metrics:
    """The metrics of one process; `runtime` exports the Temporal client's, None exports nothing."""

    def __init__(self, source: MetricSource, runtime: Runtime | None = None) -> None:
        self.source = source
        self.runtime = runtime

    @asynccontextmanager
    async def updating(
        self, counters: Counters | None = None, gauges: GaugeSource | None = None
    ) -> AsyncIterator[None]:
        """Keep the exported counters, and the gauges of the fleet, up to date while inside.

        Counters are read in the thread of the event loop; one kind of process exports the gauges.
        """
        if self.runtime is None:
            yield
            return
        updates = asyncio.create_task(self._update(counters, gauges))
        try:
            yield
        finally:
            updates.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await updates
            self._update_totals(counters)

    async def _update(self, counters: Counters | None, gauges: GaugeSource | None) -> None:
        gauges_each = GAUGES_INTERVAL // TOTALS_INTERVAL
        for number in itertools.count():
            self._update_totals(counters)
            if gauges is not None and number % gauges_each == 0:
                await self._update_gauges(gauges)
            await asyncio.sleep(TOTALS_INTERVAL.total_seconds())

    def _update_totals(self, counters: Counters | None) -> None:
        if counters is not None:
            self.source.totals = counters.totals()

    async def _update_gauges(self, gauges: GaugeSource) -> None:
        try:
            self.source.gauges = await gauges.read()
        except LedgerUnavailableError as error:
            log.warning("the gauges of the fleet are not exported: %s", error)
        except Exception:
            # Metrics must not stop what this process does.
            log.exception("the gauges of the fleet are not exported")
        else:
            return
        # Old values would be taken for current ones.
        self.source.gauges = None


@contextmanager
def export_telemetry(
    service: str, environ: Mapping[str, str], host: str, port: int | None
) -> Iterator[Metrics]:
    """Export traces and metrics of this process while inside; for composition roots.

    Nothing is set up unless the `OTEL_*` of `environ` or `port` ask for it. The service is named
    `service` unless `OTEL_SERVICE_NAME` is set; without a port there is no page for Prometheus.

    Raises:
        ConfigurationError: naming the variable.
    """
    with export_traces(service, environ), export_metrics(service, environ, host, port) as metrics:
        if metrics.runtime is not None:
            Runtime.set_default(metrics.runtime)
        yield metrics


@contextmanager
def export_metrics(
    service: str, environ: Mapping[str, str], host: str, port: int | None
) -> Iterator[Metrics]:
    """Export metrics only; pass `Metrics.runtime` to the Temporal client."""
    is_pushed = Signal.METRICS.is_enabled(environ)
    if port is None and not is_pushed:
        yield Metrics(MetricSource())
        return
    source = MetricSource()
    readers: list[MetricReader] = []
    with ExitStack() as resources:
        if is_pushed:
            readers.append(PushReader(source, otlp_metrics(environ)))
        if port is None:
            config: OpenTelemetryConfig | PrometheusConfig = _pushed_by_engine_client(environ)
        else:
            engine_page = f"{_LOOPBACK}:{_free_port()}"
            config = PrometheusConfig(
                bind_address=engine_page,
                counters_total_suffix=True,
                unit_suffix=True,
                durations_as_seconds=True,
            )
            registry = CollectorRegistry()
            readers.append(PageReader(source, registry=registry, scope_info_enabled=False))
            registry.register(EngineClientCollector(f"http://{engine_page}/metrics"))
            resources.enter_context(_served(host, port, registry))
        provider = MeterProvider(readers, resource(service), shutdown_on_exit=False)
        resources.callback(provider.shutdown)
        create_instruments(provider.get_meter("ackbridge"), source)
        yield Metrics(source, Runtime(telemetry=TelemetryConfig(metrics=config)))


@contextmanager
def _served(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"ACKBRIDGE_METRICS_PORT: cannot listen on {host}:{port}: {error}"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class EngineClientCollector(Collector):
    """Adds the metrics of the Temporal client to our page.

    The client counts in native code and serves a page of its own. Reading its metrics through
    Python instruments instead would cost milliseconds of CPU per call.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def describe(self) -> list[Metric]:
        """Nothing: the page does not exist yet when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the page; nothing while there is no client."""
        try:
            with urllib.request.urlopen(self._url, timeout=_ENGINE_PAGE_TIMEOUT) as reply:  # noqa: S310 -- our own port
                text = reply.read().decode()
        except OSError as error:
            log.debug("the Temporal client serves no metrics: %s", error)
            return
        yield from text_string_to_metric_families(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _pushed_by_engine_client(environ: Mapping[str, str]) -> OpenTelemetryConfig:
    export_to_environ(environ)
    return OpenTelemetryConfig(
        url=Signal.METRICS.endpoint(environ) or "",
        headers=dict(parse_qsl(Signal.METRICS.headers(environ).replace(",", "&"))),
        metric_periodicity=TOTALS_INTERVAL,
        durations_as_seconds=True,
        http=True,
    )
