"""Histograms from the quantile sketches, added to what OpenTelemetry's readers collect.

OpenTelemetry has no observable histogram, and recording each duration a second time would cost on
the path of every call. Bucket bounds and sums have the accuracy of the sketches (2 %).
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
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.stats.counters import OperationStats
from ackbridge.stats.quantile_sketch import QuantileSketch, time_of

from .gauges import Key
from .instruments import HISTOGRAMS, MetricSource, labels

BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(60, 300, 900, 3600, 4 * 3600, 86400),
)
"""Seconds: receipts take milliseconds, and some responses a day."""


class _HistogramReader(MetricReader):
    """Adds the histograms of this process, which count from its start."""

    def __init__(self, source: MetricSource, *args: Any, **options: Any) -> None:
        self._source = source
        self._started_at = time.time_ns()
        super().__init__(*args, **options)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        totals = self._source.totals
        if totals and metrics_data is not None and metrics_data.resource_metrics:
            first, *others = metrics_data.resource_metrics
            scope, *scopes = first.scope_metrics
            ours = replace(scope, metrics=[*scope.metrics, *self._histograms(totals)])
            metrics_data = MetricsData([replace(first, scope_metrics=[ours, *scopes]), *others])
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)  # type: ignore[safe-super]  # the other base implements it

    def _histograms(self, totals: Mapping[Key, OperationStats]) -> list[Metric]:
        now = time.time_ns()
        metrics = []
        for measured, (name, description) in HISTOGRAMS.items():
            points = [
                self._point(key, stats.times[measured], now)
                for key, stats in totals.items()
                if key[1] != WHOLE_PROVIDER
            ]
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
            metrics.append(Metric(name, description, "s", data))
        return metrics

    def _point(self, key: Key, sketch: QuantileSketch, now: int) -> HistogramDataPoint:
        counts, total = [0] * (len(BOUNDS) + 1), 0.0
        times = [(time_of(number), count) for number, count in sketch.bins()]
        for seconds, count in times:
            counts[bisect_left(BOUNDS, seconds)] += count
            total += seconds * count
        return HistogramDataPoint(
            attributes=labels(key),
            start_time_unix_nano=self._started_at,
            time_unix_nano=now,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=BOUNDS,
            min=times[0][0] if times else 0.0,
            max=times[-1][0] if times else 0.0,
        )


class PageReader(_HistogramReader, PrometheusMetricReader):
    """Collects what the page for Prometheus shows."""


class PushReader(_HistogramReader, PeriodicExportingMetricReader):
    """Collects what is pushed by OTLP."""
