"""OpenTelemetry's own variables, `OTEL_*`: whether and where traces and metrics are exported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.export import SpanExporter

from ackbridge.errors import ConfigurationError

_PROTOCOL = "http/protobuf"


class Signal(StrEnum):
    """What can be exported, as its variables spell it."""

    TRACES = "TRACES"
    METRICS = "METRICS"

    def is_enabled(self, environ: Mapping[str, str]) -> bool:
        """Whether it is exported; raises `ConfigurationError` for exporters we do not support."""
        is_disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if is_disabled or self.endpoint(environ) is None:
            return False
        exporter = environ.get(f"OTEL_{self}_EXPORTER", "otlp")
        if exporter == "none":
            return False
        if exporter != "otlp":
            raise ConfigurationError(f"OTEL_{self}_EXPORTER: `otlp` or `none`, not {exporter!r}")
        self._check_protocol(environ)
        return True

    def endpoint(self, environ: Mapping[str, str]) -> str | None:
        specific = environ.get(f"OTEL_EXPORTER_OTLP_{self}_ENDPOINT")
        general = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        return specific or (f"{general.rstrip('/')}/v1/{self.lower()}" if general else None)

    def headers(self, environ: Mapping[str, str]) -> str:
        """The headers of the exporter as `name=value,name=value`; they hold secrets."""
        return environ.get(
            f"OTEL_EXPORTER_OTLP_{self}_HEADERS", environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        )

    def _check_protocol(self, environ: Mapping[str, str]) -> None:
        for name in (f"OTEL_EXPORTER_OTLP_{self}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if environ.get(name, _PROTOCOL) != _PROTOCOL:
                raise ConfigurationError(f"{name}: only `{_PROTOCOL}` (port 4318) is supported")


def export_to_environ(environ: Mapping[str, str]) -> None:
    """Copy `OTEL_*` of our `.env` to the process environment, where OpenTelemetry reads them."""
    for name, value in environ.items():
        if name.startswith("OTEL_"):
            os.environ.setdefault(name, value)


def otlp_spans(environ: Mapping[str, str]) -> SpanExporter:
    # Imported only when needed: it costs 100 ms and 15 MB.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    export_to_environ(environ)
    return OTLPSpanExporter()


def otlp_metrics(environ: Mapping[str, str]) -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    export_to_environ(environ)
    return OTLPMetricExporter()


def resource(service: str) -> Resource:
    """The resource of this process, from `OTEL_*` and named `service` by default."""
    configured = Resource.create()
    name = str(configured.attributes.get(SERVICE_NAME, ""))
    is_unnamed = name.startswith("unknown_service")
    return configured.merge(Resource({SERVICE_NAME: service})) if is_unnamed else configured
