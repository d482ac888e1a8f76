"""Telling metrics: by OTLP, and to Prometheus on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry, start_http_server
from temporalio.runtime import OpenTelemetryConfig, PrometheusConfig, Runtime, TelemetryConfig

from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.stats.counters import Counters
from ackbridge.telemetry.otlp import Signal, export_to_environ, otlp_metrics, resource
from ackbridge.telemetry.trace_export import export_traces

from .engine_metrics import EngineMetrics
from .gauges import GaugeSource
from .histograms import PrometheusReader, SketchHistograms, WithHistograms
from .instruments import Source, instrument

log = logging.getLogger(__name__)

LOOK_EVERY: Final = timedelta(seconds=5)
"""How old what is told about this process may be."""

FACTS_EVERY: Final = timedelta(seconds=30)
"""How old what is told about the fleet may be: a look costs two queries for each provider."""


class Metrics:
    """The metrics of one process.

    Attributes:
        source: what is told.
        runtime: of the engine's client, so that its metrics are told as well; None where nobody
            wants any.
    """

    def __init__(self, source: Source, runtime: Runtime | None = None) -> None:
        self.source = source
        self.runtime = runtime

    @asynccontextmanager
    async def watching(
        self, counters: Counters | None = None, facts: GaugeSource | None = None
    ) -> AsyncIterator[None]:
        """Keep what is told up to date while inside.

        Args:
            counters: of this process; read in the thread of the event loop, whose they are.
            facts: of the fleet; one process, or one kind of them, tells these.
        """
        if self.runtime is None:
            yield
            return
        watching = asyncio.create_task(self._watch(counters, facts))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            self._count(counters)

    async def _watch(self, counters: Counters | None, facts: GaugeSource | None) -> None:
        looks = FACTS_EVERY // LOOK_EVERY
        for number in itertools.count():
            self._count(counters)
            if facts is not None and number % looks == 0:
                await self._look(facts)
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    def _count(self, counters: Counters | None) -> None:
        if counters is not None:
            self.source.totals = counters.totals()

    async def _look(self, facts: GaugeSource) -> None:
        try:
            self.source.facts = await facts.look()
        except LedgerUnavailableError as error:
            log.warning("metrics do without what is parked and owed: %s", error)
        except Exception:
            # Metrics are worth less than what this process does.
            log.exception("metrics do without what is parked and owed")
        else:
            return
        # Told no more, rather than told wrongly.
        self.source.facts = None


@contextmanager
def export_telemetry(
    service: str, environ: Mapping[str, str], host: str, port: int | None
) -> Iterator[Metrics]:
    """Tell what this process does, in traces and metrics, while inside; for composition roots.

    Where nobody wants to know, nothing is set up and nothing costs anything.

    Args:
        service: what the process is called, unless `OTEL_SERVICE_NAME` says.
        environ: whose `OTEL_*` say whether and where to traces and metrics are pushed.
        host, port: where Prometheus may fetch metrics; without a port, nowhere.

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
    is_pushed = Signal.METRICS.is_wanted(environ)
    if port is None and not is_pushed:
        yield Metrics(Source())
        return
    source, engine_port = Source(), _free_port()
    histograms = SketchHistograms(source)
    readers: list[MetricReader] = []
    with contextlib.ExitStack() as open_until_the_end:
        if is_pushed:
            exporter = WithHistograms(histograms, otlp_metrics(environ))
            readers.append(PeriodicExportingMetricReader(exporter))
        if port is not None:
            registry = CollectorRegistry()
            readers.append(
                PrometheusReader(histograms, registry=registry, scope_info_enabled=False)
            )
            registry.register(EngineMetrics(engine_port))
            open_until_the_end.enter_context(_served(host, port, registry))
        provider = MeterProvider(readers, resource(service), shutdown_on_exit=False)
        open_until_the_end.callback(provider.shutdown)
        instrument(provider.get_meter("ackbridge"), source)
        pushed = _pushed(environ) if port is None else _fetched(engine_port)
        yield Metrics(source, Runtime(telemetry=TelemetryConfig(metrics=pushed)))


@contextmanager
def _served(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"ACKBRIDGE_METRICS_PORT: {host}:{port} cannot be listened on: {error}"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fetched(port: int) -> PrometheusConfig:
    """The engine's client tells its metrics here, where only `EngineMetrics` asks."""
    return PrometheusConfig(
        bind_address=f"127.0.0.1:{port}",
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
    )


def _pushed(environ: Mapping[str, str]) -> OpenTelemetryConfig:
    """The engine's client pushes its metrics itself, as `OTEL_*` says."""
    export_to_environ(environ)
    return OpenTelemetryConfig(
        url=Signal.METRICS.endpoint(environ) or "",
        headers=dict(parse_qsl(Signal.METRICS.headers(environ).replace(",", "&"))),
        metric_periodicity=LOOK_EVERY,
        durations_as_seconds=True,
        http=True,
    )
