"""Add callbacks to the traces of their calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.api.common.v1 import Header, WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client
from temporalio.converter import PayloadConverter
from temporalio.service import RPCError

from ackbridge.telemetry.traces import CALL_ID, HTTP_METHOD, HTTP_ROUTE, PROVIDER, TRACER

log = logging.getLogger(__name__)

HEADER = "_tracer-data"
"""Where every Temporal SDK stores the trace context in the headers of starts and signals."""

LOOKUP_TIMEOUT = timedelta(milliseconds=500)
"""A slow lookup of the trace must not delay the callback."""

_W3C = TraceContextTextMapPropagator()


class CallbackTraces:
    """Creates the spans of callbacks in the traces of their calls.

    The trace context of a call is in the header of its history's first event: one more request to
    the engine per callback, and only when tracing is on. A `traceparent` that the provider echoes
    names the request that it answers. Few providers sign it, so one of another trace is only
    linked.
    """

    def __init__(self, client: Client) -> None:
        """Look up the traces of calls with `client`, which may be lazy."""
        self._client = client
        self._tracer = trace.get_tracer(TRACER)

    @asynccontextmanager
    async def signal_header(
        self, call_id: str, provider: str, callbacks: Sequence[tuple[str | None, datetime | None]]
    ) -> AsyncIterator[Header]:
        """Create one span per callback, and the header of the signal that carries them all.

        A callback is the `traceparent` that it echoed, and when it was received. The header has the
        context of the first span. Spans are exported only if the block succeeds.
        """
        call = await self._call_context(call_id)
        spans = [self._span(call_id, provider, call, _read(echoed), at) for echoed, at in callbacks]
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(spans[0], Context()))
        fields = {HEADER: PayloadConverter.default.to_payload(carrier)} if carrier else {}
        yield Header(fields=fields)
        for span in spans:
            span.end()

    def _span(
        self,
        call_id: str,
        provider: str,
        call: SpanContext | None,
        echoed: SpanContext | None,
        received_at: datetime | None,
    ) -> trace.Span:
        parent, links = call or echoed, []
        if call and echoed and call.trace_id == echoed.trace_id:
            parent = echoed
        elif call and echoed:
            links.append(Link(echoed))
        context = Context()
        if parent is not None:
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        return self._tracer.start_span(
            f"callback {provider}",
            context,
            SpanKind.SERVER,
            attributes={
                CALL_ID: call_id,
                PROVIDER: provider,
                HTTP_METHOD: "POST",
                HTTP_ROUTE: "/callbacks/{provider}",
            },
            links=links,
            start_time=int(received_at.timestamp() * 1e9) if received_at else None,
        )

    async def _call_context(self, call_id: str) -> SpanContext | None:
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=call_id),
            maximum_page_size=1,
        )
        service = self._client.workflow_service
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT.total_seconds()):
                answer = await service.get_workflow_execution_history(request, retry=False)
            started = answer.history.events[0].workflow_execution_started_event_attributes
            return _read_header(started.header)
        except (RPCError, RuntimeError, TimeoutError, LookupError) as error:
            log.debug("the trace of %s is unknown: %s", call_id, type(error).__name__)
            return None


def _read(traceparent: str | None) -> SpanContext | None:
    context = _W3C.extract({"traceparent": traceparent}) if traceparent else Context()
    found = trace.get_current_span(context).get_span_context()
    return found if found.is_valid else None


def _read_header(header: Header) -> SpanContext | None:
    payload = header.fields.get(HEADER)
    if payload is None:
        return None
    try:
        (carrier,) = PayloadConverter.default.from_payloads([payload])
        return _read(str(carrier["traceparent"]))
    except Exception:
        # Any client may have written the header.
        return None
