"""OpenTelemetry's own variables, `OTEL_*`: whether something is exported, and to where."""

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
    """What can be exported; the word in its variables."""

    TRACES = "TRACES"
    METRICS = "METRICS"

    def is_wanted(self, environ: Mapping[str, str]) -> bool:
        """Whether an endpoint is named and nobody says no.

        Raises:
            ConfigurationError: it is wanted in a way that we cannot do.
        """
        if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return False
        if self.endpoint(environ) is None:
            return False
        exporter = environ.get(f"OTEL_{self}_EXPORTER", "otlp")
        if exporter == "none":
            return False
        if exporter != "otlp":
            raise ConfigurationError(f"OTEL_{self}_EXPORTER: `otlp` or `none`, not {exporter!r}")
        self._check_protocol(environ)
        return True

    def endpoint(self, environ: Mapping[str, str]) -> str | None:
        """The URL it is sent to, where one is named."""
        own = environ.get(f"OTEL_EXPORTER_OTLP_{self}_ENDPOINT")
        every = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        return own or (f"{every.rstrip('/')}/v1/{self.lower()}" if every else None)

    def headers(self, environ: Mapping[str, str]) -> str:
        """What the exporter identifies itself with: secrets, as `name=value,name=value`."""
        return environ.get(
            f"OTEL_EXPORTER_OTLP_{self}_HEADERS", environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        )

    def _check_protocol(self, environ: Mapping[str, str]) -> None:
        for name in (f"OTEL_EXPORTER_OTLP_{self}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if environ.get(name, _PROTOCOL) != _PROTOCOL:
                raise ConfigurationError(f"{name}: only `{_PROTOCOL}` (port 4318) is spoken here")


def export_to_environ(environ: Mapping[str, str]) -> None:
    """Put `OTEL_*` of our `.env` where OpenTelemetry's own code looks for them."""
    for name, value in environ.items():
        if name.startswith("OTEL_"):
            os.environ.setdefault(name, value)


def otlp_spans(environ: Mapping[str, str]) -> SpanExporter:
    """The exporter of spans, as `OTEL_EXPORTER_OTLP_*` says."""
    # Imported where it is used: it costs 100 ms and 15 MB, which who exports nothing shall not pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    export_to_environ(environ)
    return OTLPSpanExporter()


def otlp_metrics(environ: Mapping[str, str]) -> MetricExporter:
    """The exporter of metrics, as `OTEL_EXPORTER_OTLP_*` says."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    export_to_environ(environ)
    return OTLPMetricExporter()


def resource(service: str) -> Resource:
    """Who this process is, unless `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it."""
    said = Resource.create()
    named = str(said.attributes.get(SERVICE_NAME, ""))
    is_unnamed = named.startswith("unknown_service")
    return said.merge(Resource({SERVICE_NAME: service})) if is_unnamed else said
