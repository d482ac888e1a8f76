"""Export the traces of one of our processes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import Attributes, AttributeValue
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider

from ackbridge.contracts import names
from ackbridge.workarounds.log_filters import filter_eviction_errors

from .otlp import Signal, otlp_spans, resource
from .traces import ALLOWED_ATTRIBUTES

_CONTROL_SPAN: Final = f":{names.PROVIDER_CONTROL}"
_ERROR_TYPES: Final = re.compile(r"ApplicationError: [A-Z][A-Za-z]+(?=: )|[A-Za-z_]\w*(?=: )")
"""The start of a status description: an exception class, and the type of an ApplicationError."""


@contextmanager
def export_traces(service: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Trace this process while inside, if `OTEL_*` names an endpoint; see `export_telemetry`."""
    if not Signal.TRACES.is_enabled(environ):
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
    """Trace this process from now on, once; `at_once` exports each span when it ends, for tests."""
    filter_eviction_errors()
    # OTEL_TRACES_SAMPLER is read by any provider that is built without a sampler.
    sampler = CallSampler(TracerProvider(shutdown_on_exit=False).sampler)
    # Span ids come from the workflow's random numbers: a replay makes the same spans.
    provider = create_tracer_provider(sampler, resource(service), shutdown_on_exit=False)
    allowlist = AllowlistExporter(exporter)
    provider.add_span_processor(
        SimpleSpanProcessor(allowlist) if at_once else BatchSpanProcessor(allowlist)
    )
    trace.set_tracer_provider(provider)
    return provider


class CallSampler(Sampler):
    """Drops the spans of provider controls: each would be one trace that grows for months.

    Their child spans are dropped by the inner sampler, as children of a span that is not sampled.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        *arguments: Any,
        **options: Any,
    ) -> SamplingResult:
        if name.endswith(_CONTROL_SPAN):
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, *arguments, **options)

    def get_description(self) -> str:
        return f"CallSampler({self._sampler.get_description()})"


class AllowlistExporter(SpanExporter):
    """Passes spans to another exporter with the allowed attributes only.

    Error messages and stack traces, whichever library records them, may repeat what a provider
    sent or a payload held. A call's history has them, under the engine's access rules; traces are
    read by more people.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_reduced(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _reduced(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_allowed(span.attributes),
        events=[Event(e.name, _allowed(e.attributes), e.timestamp) for e in span.events],
        links=[Link(link.context, _allowed(link.attributes)) for link in span.links],
        kind=span.kind,
        status=_without_message(span.status),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _allowed(attributes: Attributes) -> dict[str, AttributeValue] | None:
    if attributes is None:
        return None
    return {name: value for name, value in attributes.items() if name in ALLOWED_ATTRIBUTES}


def _without_message(status: Status) -> Status:
    types = _ERROR_TYPES.match(status.description or "")
    return Status(status.status_code, types.group() if types else None)
