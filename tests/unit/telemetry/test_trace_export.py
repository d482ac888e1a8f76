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
    told = exporter.get_finished_spans()[-1]
    assert {"temporalWorkflowID", "http.request.method"} == set(told.attributes or {})
    assert other.get_span_context() == told.links[0].context
    assert "hunter2" not in told.to_json()


def test_errors_are_told_by_kind(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """An exception is told by its class, without its message and its stack trace."""
    tracer = provider.get_tracer("t")
    with pytest.raises(LookupError), tracer.start_as_current_span("call"):
        raise LookupError("hunter2")
    (told,) = exporter.get_finished_spans()
    assert told.status.description == "LookupError"
    (event,) = told.events
    assert dict(event.attributes or {}) == {"exception.type": "LookupError"}
    assert "hunter2" not in told.to_json()


@pytest.mark.parametrize(
    ("said", "told"),
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
def test_description_is_cut_down_to_kinds(
    provider: TracerProvider, exporter: InMemorySpanExporter, said: str | None, told: str | None
) -> None:
    """Of an error's description its class goes out, and the type of one of the engine's."""
    span = provider.get_tracer("t").start_span("call")
    span.set_status(Status(StatusCode.ERROR, said))
    span.end()
    (finished,) = exporter.get_finished_spans()
    assert told == finished.status.description
    assert StatusCode.ERROR is finished.status.status_code


def test_the_rest_is_kept(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Name, ids, parent, times, kind and resource are those of the span."""
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("parent") as parent:
        span = tracer.start_span("child")
        span.end()
    told = json.loads(exporter.get_finished_spans()[0].to_json())
    assert told["name"] == "child"
    assert f"0x{parent.get_span_context().span_id:016x}" == told["parent_id"]
    assert told["kind"] == "SpanKind.INTERNAL"
