"""Histograms from the sketches that are kept anyway.

OpenTelemetry has no instrument that reads a histogram made elsewhere, so its points are added to
what a reader has collected. Times are within the sketch's accuracy (2 %), and so are the bounds.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.stats.counters import OperationStats
from ackbridge.stats.quantile_sketch import QuantileSketch, time_of

from .gauges import Key
from .instruments import Source, labels
from .names import HISTOGRAMS

BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(60, 300, 900, 3600, 4 * 3600, 86400),
)
"""Seconds: receipts take milliseconds, and some answers a day."""


class SketchHistograms:
    """Adds the histograms of one process, which count from its beginning."""

    def __init__(self, source: Source) -> None:
        """Take where the sketches are."""
        self._source = source
        self._began_at = time.time_ns()

    def add(self, data: MetricsData) -> MetricsData:
        """The same, with the histograms beside the first of our instruments."""
        totals = self._source.totals
        if not totals or not data.resource_metrics:
            return data
        first, *others = data.resource_metrics
        scope, *scopes = first.scope_metrics
        ours = replace(scope, metrics=[*scope.metrics, *self._metrics(totals)])
        return MetricsData([replace(first, scope_metrics=[ours, *scopes]), *others])

    def _metrics(self, totals: Mapping[Key, OperationStats]) -> list[Metric]:
        now = time.time_ns()
        return [
            Metric(
                name=histogram.name,
                description=histogram.description,
                unit="s",
                data=Histogram(
                    [
                        self._point(key, observed.times[of], now)
                        for key, observed in totals.items()
                        if key[1] != WHOLE_PROVIDER
                    ],
                    AggregationTemporality.CUMULATIVE,
                ),
            )
            for of, histogram in HISTOGRAMS.items()
        ]

    def _point(self, key: Key, sketch: QuantileSketch, now: int) -> HistogramDataPoint:
        counts, total = [0] * (len(BOUNDS) + 1), 0.0
        times = [(time_of(number), count) for number, count in sketch.bins()]
        for seconds, count in times:
            counts[bisect_left(BOUNDS, seconds)] += count
            total += seconds * count
        return HistogramDataPoint(
            attributes=labels(key),
            start_time_unix_nano=self._began_at,
            time_unix_nano=now,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=BOUNDS,
            min=times[0][0] if times else 0.0,
            max=times[-1][0] if times else 0.0,
        )


class PrometheusReader(PrometheusMetricReader):
    """What Prometheus is told, histograms included."""

    def __init__(self, histograms: SketchHistograms, **options: Any) -> None:
        """Take what adds them, and the options of the reader."""
        self._histograms = histograms
        super().__init__(**options)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if metrics_data is not None:
            metrics_data = self._histograms.add(metrics_data)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


class WithHistograms(MetricExporter):
    """Hands metrics on to another exporter, histograms included."""

    def __init__(self, histograms: SketchHistograms, exporter: MetricExporter) -> None:
        """Take what adds them, and who sends them."""
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)  # noqa: SLF001 -- a reader asks its exporter for these, by these names
        self._histograms = histograms
        self._exporter = exporter

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export them."""
        whole = self._histograms.add(metrics_data)
        return self._exporter.export(whole, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown(timeout_millis, **kwargs)
