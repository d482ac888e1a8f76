"""Whether this process is traced, and the attributes that its spans may carry.

It is traced when OpenTelemetry's global tracer provider is set: by `trace_export.export_traces` in
our own processes, or by a service that uses our client. Its calls then join its own traces.
"""

from __future__ import annotations

from typing import Final

from opentelemetry import trace
from temporalio.plugin import SimplePlugin

TRACER: Final = "ackbridge"
PROVIDER: Final = "ackbridge.provider"
CALL_ID: Final = "temporalWorkflowID"
"""The name that the SDK's spans use, so that one search finds all spans of a call."""

HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

ALLOWED_ATTRIBUTES: Final = frozenset(
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
        "exception.type",
    }
)
"""No URL is among them: its path and query may carry personal data."""


def is_tracing() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def plugins() -> list[SimplePlugin]:
    """The tracing plugins of every client, and so of its workers, and of every replayer.

    They carry the trace of the starter into the workflow and its activities. Histories made with
    and without them replay alike.
    """
    if not is_tracing():
        return []
    # Imported only when needed: services import this module with our client.
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin

    return [OpenTelemetryPlugin(add_temporal_spans=True)]
