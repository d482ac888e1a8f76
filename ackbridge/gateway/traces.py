"""Callbacks in the trace of the call they are for."""

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
from temporalio.api.common.v1 import Header, Payload, WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client
from temporalio.converter import PayloadConverter
from temporalio.service import RPCError

from ackbridge.telemetry.allowlist_exporter import CALL_ID, HTTP_METHOD, HTTP_ROUTE, PROVIDER
from ackbridge.telemetry.traces import TRACER

log = logging.getLogger(__name__)

HEADER = "_tracer-data"
"""Where every Temporal SDK keeps the trace context, in headers of starts and of signals."""

LOOKUP_WITHIN = timedelta(milliseconds=500)
"""A callback is never put off for its trace."""

_W3C = TraceContextTextMapPropagator()


class CallbackTraces:
    """Finds the trace of a call, and puts the callback into it.

    The engine knows it: whoever starts a call in a trace leaves its context in the header of the
    history's first event, which is one more request to the engine for each callback, and only
    where traces are on. A `traceparent` that the provider echoes says more exactly what it
    answers. It is no authority, for few providers sign it: one of another trace becomes a link.
    """

    def __init__(self, client: Client) -> None:
        """Take the engine's client; may be lazy."""
        self._client = client
        self._tracer = trace.get_tracer(TRACER)

    @asynccontextmanager
    async def of_signal(
        self,
        call_id: str,
        provider: str,
        came: Sequence[tuple[str | None, datetime | None]],
    ) -> AsyncIterator[Header]:
        """The headers for the signal that hands callbacks to their call: those of the first.

        The spans are told only when the block ends well: without a call there is nothing to join.

        Args:
            came: of each callback, the `traceparent` it echoes, and when it came.
        """
        own = await self._started_in(call_id)
        spans = [self._span(call_id, provider, own, echoed, since) for echoed, since in came]
        yield _header(trace.set_span_in_context(spans[0], Context()))
        for span in spans:
            span.end()

    def _span(
        self,
        call_id: str,
        provider: str,
        own: SpanContext | None,
        echoed: str | None,
        since: datetime | None,
    ) -> trace.Span:
        parent, links = _joined(own, _read(echoed))
        return self._tracer.start_span(
            f"callback {provider}",
            parent,
            SpanKind.SERVER,
            attributes={
                CALL_ID: call_id,
                PROVIDER: provider,
                HTTP_METHOD: "POST",
                HTTP_ROUTE: "/callbacks/{provider}",
            },
            links=links,
            start_time=int(since.timestamp() * 1e9) if since else None,
        )

    async def _started_in(self, call_id: str) -> SpanContext | None:
        """The trace context that a call was started in."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=call_id),
            maximum_page_size=1,
        )
        service = self._client.workflow_service
        try:
            async with asyncio.timeout(LOOKUP_WITHIN.total_seconds()):
                answer = await service.get_workflow_execution_history(request, retry=False)
            started = answer.history.events[0].workflow_execution_started_event_attributes
            return _in_header(started.header)
        except (RPCError, RuntimeError, TimeoutError, LookupError) as error:
            log.debug("the trace of %s is not known: %s", call_id, type(error).__name__)
            return None


def _joined(own: SpanContext | None, echoed: SpanContext | None) -> tuple[Context, list[Link]]:
    """What a callback's span hangs on, and what else it points to."""
    parent, links = own or echoed, []
    if own and echoed and own.trace_id == echoed.trace_id:
        parent = echoed
    elif own and echoed:
        links.append(Link(echoed))
    if parent is None:
        return Context(), links
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()), links


def _read(traceparent: str | None) -> SpanContext | None:
    context = _W3C.extract({"traceparent": traceparent}) if traceparent else Context()
    found = trace.get_current_span(context).get_span_context()
    return found if found.is_valid else None


def _in_header(header: Header) -> SpanContext | None:
    payload = header.fields.get(HEADER)
    if payload is None:
        return None
    try:
        (carrier,) = PayloadConverter.default.from_payloads([payload])
        return _read(str(carrier["traceparent"]))
    except Exception:
        # Anybody may have written it.
        return None


def _header(context: Context) -> Header:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    if not carrier:
        return Header()
    payload: Payload = PayloadConverter.default.to_payload(carrier)
    return Header(fields={HEADER: payload})
