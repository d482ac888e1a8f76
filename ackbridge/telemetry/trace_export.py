"""Setting traces up, in our own processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider

from ackbridge.workarounds.log_filters import filter_eviction_errors

from .allowlist_exporter import AllowlistExporter
from .otlp import Signal, otlp_spans, resource
from .sampling import CallsOnly


@contextmanager
def export_traces(service: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Trace this process while inside, if `OTEL_*` says where to.

    Args:
        service: what the process is called where `OTEL_SERVICE_NAME` does not say.

    Raises:
        ConfigurationError: naming the variable.
    """
    if not Signal.TRACES.is_wanted(environ):
        yield
        return
    provider = start_tracing(otlp_spans(environ), service)
    try:
        yield
    finally:
        provider.shutdown()


def start_tracing(
    exporter: SpanExporter, service: str, *, at_once: bool = False
) -> ReplaySafeTracerProvider:
    """Trace this process; once only.

    Args:
        exporter: gets what may be told of each span.
        at_once: export every span when it ends, for tests; otherwise in the background.
    """
    filter_eviction_errors()
    # OTEL_TRACES_SAMPLER is read by whatever provider is built without a sampler.
    sampler = CallsOnly(TracerProvider(shutdown_on_exit=False).sampler)
    # Its ids come from the workflow's own random numbers: a replay makes the same spans.
    provider = create_tracer_provider(sampler, resource(service), shutdown_on_exit=False)
    discreet = AllowlistExporter(exporter)
    provider.add_span_processor(
        SimpleSpanProcessor(discreet) if at_once else BatchSpanProcessor(discreet)
    )
    trace.set_tracer_provider(provider)
    return provider
