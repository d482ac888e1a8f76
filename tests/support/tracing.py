"""Traces of this process for a while, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from ackbridge.telemetry.trace_export import start_tracing


@contextmanager
def traced() -> Iterator[InMemorySpanExporter]:
    """Trace this process, as a worker does that is told to, until the block ends.

    OpenTelemetry's provider is set once for a process; that a test run goes on without one again
    takes what its own tests do.
    """
    exporter = InMemorySpanExporter()
    provider = start_tracing(exporter, "tests", at_once=True)
    try:
        yield exporter
    finally:
        provider.shutdown()
        trace._TRACER_PROVIDER = None
        trace._TRACER_PROVIDER_SET_ONCE = Once()
