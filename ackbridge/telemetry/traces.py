"""Traces: there are none until OpenTelemetry's own variables name a place for them.

The API is OpenTelemetry's, with its one global tracer provider: a service that uses our client and
has set one up gets its calls into its own traces, without a word to us.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from temporalio.client import Plugin
from temporalio.contrib.opentelemetry import (
    OpenTelemetryPlugin,
    ReplaySafeTracerProvider,
    create_tracer_provider,
)

from .discretion import Discreet
from .otlp import Signal, otlp_spans, resource

TRACER = "ackbridge"


def is_tracing() -> bool:
    """Whether somebody has set up traces in this process."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def plugins() -> list[Plugin]:
    """The engine's plugins: of every client, and through it of its workers; and of replayers.

    They propagate the trace from whoever starts a call into the workflow and its activities. A
    history that was made with them replays without them, and the other way round.
    """
    return [OpenTelemetryPlugin(add_temporal_spans=True)] if is_tracing() else []


def trace_by(environ: Mapping[str, str], service: str) -> ReplaySafeTracerProvider | None:
    """Trace this process if `OTEL_*` says where to; shut the provider down at its end.

    Args:
        service: what the process is called where `OTEL_SERVICE_NAME` does not say.

    Raises:
        ConfigurationError: naming the variable.
    """
    if not Signal.TRACES.is_wanted(environ):
        return None
    return trace_to(otlp_spans(environ), service)


def trace_to(
    exporter: SpanExporter, service: str, *, at_once: bool = False
) -> ReplaySafeTracerProvider:
    """Trace this process; once only.

    Args:
        exporter: gets what may be told of each span.
        at_once: export every span when it ends, for tests; otherwise in the background.
    """
    # Its ids come from the workflow's own random numbers: a replay makes the same spans.
    provider = create_tracer_provider(resource=resource(service), shutdown_on_exit=False)
    discreet = Discreet(exporter)
    provider.add_span_processor(
        SimpleSpanProcessor(discreet) if at_once else BatchSpanProcessor(discreet)
    )
    trace.set_tracer_provider(provider)
    return provider
