"""What may leave this process in a span: a list of attributes, and nobody's words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import Attributes, AttributeValue

PROVIDER = "ackbridge.provider"
CALL_ID = "temporalWorkflowID"
"""As the engine's own spans name it: one search finds all spans of a call."""

HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
HTTP_ROUTE = "http.route"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
_EXCEPTION_TYPE = "exception.type"

ALLOWED = frozenset(
    {
        PROVIDER,
        CALL_ID,
        "temporalRunID",
        "temporalActivityID",
        "temporalActivityType",
        "temporalUpdateID",
        HTTP_METHOD,
        HTTP_STATUS,
        HTTP_ROUTE,
        SERVER_ADDRESS,
        SERVER_PORT,
        ERROR_TYPE,
        _EXCEPTION_TYPE,
    }
)
"""A URL is not among them: its path and query may carry personal data."""

_KINDS = re.compile(r"ApplicationError: [A-Z][A-Za-z]+(?=: )|[A-Za-z_]\w*(?=: )")
"""What an error's description begins with: its class, and the type of one of the engine's."""


class AllowlistExporter(SpanExporter):
    """Hands spans on to another exporter, without what is not on the list.

    Whatever library made a span, a message of an error or a stack trace may repeat what a
    provider said or a payload held. They stand in the call's history, under the engine's access
    rules; traces go to places that more people read.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        """Take the exporter that does the work."""
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export what may be told of the spans."""
        return self._exporter.export([_told(span) for span in spans])

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


def _told(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_allowed(span.attributes),
        events=[Event(e.name, _allowed(e.attributes), e.timestamp) for e in span.events],
        links=[Link(link.context, _allowed(link.attributes)) for link in span.links],
        kind=span.kind,
        status=_kind_of_trouble(span.status),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _allowed(attributes: Attributes) -> dict[str, AttributeValue] | None:
    if attributes is None:
        return None
    return {name: value for name, value in attributes.items() if name in ALLOWED}


def _kind_of_trouble(status: Status) -> Status:
    kinds = _KINDS.match(status.description or "")
    return Status(status.status_code, kinds.group() if kinds else None)
