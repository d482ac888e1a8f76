"""Spans carry only the allowed attributes."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Status, StatusCode

from ackbridge.telemetry.trace_export import AllowlistExporter


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps the exported spans."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    """Exports through the allowlist."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(AllowlistExporter(exporter)))
    return provider


def test_only_allowed_attributes_are_exported(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Attributes of spans, events and links are exported if they are on the list."""
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("other") as other:
        pass
    attributes = {
        "temporalWorkflowID": "sandbox.create_order.o-1",
        "http.request.method": "POST",
        "url.full": "https://example.org/pay?token=hunter2",
        "http.request.header.authorization": "Bearer hunter2",
        "body": "hunter2",
    }
    link = Link(other.get_span_context(), {"note": "hunter2"})
    with tracer.start_as_current_span("call", attributes=attributes, links=[link]) as span:
        span.add_event("said", {"words": "hunter2"})
    exported = exporter.get_finished_spans()[-1]
    assert {"temporalWorkflowID", "http.request.method"} == set(exported.attributes or {})
    assert other.get_span_context() == exported.links[0].context
    assert "hunter2" not in exported.to_json()


def test_errors_are_reduced_to_their_type(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """An exception is exported as its class, without message and stack trace."""
    tracer = provider.get_tracer("t")
    with pytest.raises(LookupError), tracer.start_as_current_span("call"):
        raise LookupError("hunter2")
    (exported,) = exporter.get_finished_spans()
    assert exported.status.description == "LookupError"
    (event,) = exported.events
    assert dict(event.attributes or {}) == {"exception.type": "LookupError"}
    assert "hunter2" not in exported.to_json()


@pytest.mark.parametrize(
    ("description", "exported"),
    [
        (
            "ApplicationError: Refused: no",
            "ApplicationError: Refused",
        ),
        ("ApplicationError: hunter2", "ApplicationError"),
        ("KeyError: hunter2: 2", "KeyError"),
        ("KeyError: Hunter: 2", "KeyError"),
        ("they said: hunter2", None),
        ("", None),
        (None, None),
    ],
)
def test_status_description_is_reduced_to_error_types(
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    description: str | None,
    exported: str | None,
) -> None:
    """Of a description the class remains, and the type of an ApplicationError."""
    span = provider.get_tracer("t").start_span("call")
    span.set_status(Status(StatusCode.ERROR, description))
    span.end()
    (finished,) = exporter.get_finished_spans()
    assert exported == finished.status.description
    assert StatusCode.ERROR is finished.status.status_code


def test_other_fields_are_kept(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Name, ids, parent, times, kind and resource are those of the span."""
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("parent") as parent:
        span = tracer.start_span("child")
        span.end()
    exported = json.loads(exporter.get_finished_spans()[0].to_json())
    assert exported["name"] == "child"
    assert f"0x{parent.get_span_context().span_id:016x}" == exported["parent_id"]
    assert exported["kind"] == "SpanKind.INTERNAL"
