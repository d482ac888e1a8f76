"""Spans of the requests to providers, and the header by which providers can join the trace."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from .traces import (
    ERROR_TYPE,
    HTTP_METHOD,
    HTTP_STATUS,
    SERVER_ADDRESS,
    SERVER_PORT,
    TRACER,
    is_tracing,
)

TRACEPARENT = "traceparent"


class TracedTransport(httpx.AsyncBaseTransport):
    """Wraps the transport of a client: one span per request, retries of `auth` included.

    The request gets a `traceparent` header, but neither `tracestate` nor `baggage`: those carry
    data of our caller and its vendor, which providers must not see.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._tracer = trace.get_tracer(TRACER)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; the span ends when the response headers arrive."""
        attributes: dict[str, AttributeValue] = {
            HTTP_METHOD: request.method,
            SERVER_ADDRESS: request.url.host,
            SERVER_PORT: request.url.port or (443 if request.url.scheme == "https" else 80),
        }
        with self._tracer.start_as_current_span(
            request.method,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            _add_traceparent(request)
            try:
                response = await self._transport.handle_async_request(request)
            except Exception as error:
                span.set_attribute(ERROR_TYPE, type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise
            span.set_attribute(HTTP_STATUS, response.status_code)
            if response.status_code >= 400:
                span.set_attribute(ERROR_TYPE, str(response.status_code))
                span.set_status(StatusCode.ERROR)
            return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def transport_wrapper() -> Callable[[httpx.AsyncBaseTransport], TracedTransport] | None:
    """The wrapper for the transport of the provider client; None while not tracing."""
    return TracedTransport if is_tracing() else None


def _add_traceparent(request: httpx.Request) -> None:
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if TRACEPARENT in carrier:
        request.headers[TRACEPARENT] = carrier[TRACEPARENT]
