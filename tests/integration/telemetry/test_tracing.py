"""One trace for each call: from its caller, by workflow and provider, to the callback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from temporalio.worker import Replayer

from ackbridge.contracts.calls import CallRequest
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.temporal.connect import client_options
from ackbridge.workarounds.temporal_sdk import workflow_runner
from tests.support import upgrade_cases
from tests.support.stage import SECRETS, Stage, set_up
from tests.support.tracing import traced
from workflows import WORKFLOWS

TIMEOUT = timedelta(minutes=1)
PRIVATE = "marguerite@example.org"

Scene = tuple[Stage, InMemorySpanExporter]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(
    engine: EmbeddedEngine, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """A stage whose every part is traced. The other stage is set up before, without traces."""
    folder = tmp_path_factory.mktemp("traced")
    with traced() as spans:
        async with set_up(engine, folder) as everything:
            yield everything, spans


async def ended(stage: Stage, request: CallRequest) -> int:
    """Run a call to its end inside a trace of the caller; returns the trace id."""
    with trace.get_tracer("caller").start_as_current_span("invoice") as span:
        await stage.calls.start(request)
        await upgrade_cases.ended(stage, request)
    return span.get_span_context().trace_id


def of(span: ReadableSpan) -> SpanContext:
    """The context of a recorded span."""
    context = span.get_span_context()
    assert context is not None
    return context


async def spans_of(spans: InMemorySpanExporter, trace_id: int, until: str) -> list[ReadableSpan]:
    """The spans of a trace, once one of this name is among them."""
    found: list[ReadableSpan] = []
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        while until not in {span.name for span in found}:
            await asyncio.sleep(0.02)
            finished = spans.get_finished_spans()
            found = [span for span in finished if of(span).trace_id == trace_id]
    return found


def parents(spans: list[ReadableSpan]) -> dict[str, set[str | None]]:
    """The names of the parent spans, by span name."""
    names = {of(span).span_id: span.name for span in spans}
    found: dict[str, set[str | None]] = {}
    for span in spans:
        parent = names[span.parent.span_id] if span.parent else None
        found.setdefault(span.name, set()).add(parent)
    return found


async def test_one_trace_from_the_caller_to_the_callback(scene: Scene) -> None:
    """Every span of a call has the span of its cause as parent, in the caller's trace."""
    stage, exporter = scene
    request = stage.request(delay_ms=100)
    spans = await spans_of(exporter, await ended(stage, request), "RunWorkflow:IntegrationCall")
    found = parents(spans)
    wanted = {
        "invoice": {None},
        "StartWorkflow:IntegrationCall": {"invoice"},
        "RunWorkflow:IntegrationCall": {"StartWorkflow:IntegrationCall"},
        "RunActivity:prepare": {"StartActivity:prepare"},
        "RunActivity:record": {"StartActivity:record"},
        # The request rides along with the one, the acknowledgement with the other.
        "POST": {"RunActivity:prepare", "RunActivity:record"},
        "callback sandbox": {"StartWorkflow:IntegrationCall"},
        "HandleSignal:provider_message": {"callback sandbox"},
    }
    assert wanted == {name: found.get(name) for name in wanted}


async def test_provider_can_join(scene: Scene) -> None:
    """The provider gets a traceparent that names the span of its request, and no baggage."""
    stage, exporter = scene
    request = stage.request(delay_ms=100)
    spans = await spans_of(exporter, await ended(stage, request), "RunWorkflow:IntegrationCall")
    asked = [of(span) for span in spans if span.name == "POST"]
    named = {f"00-{context.trace_id:032x}-{context.span_id:016x}-01" for context in asked}
    received = set(await traceparents(stage, request))
    assert received
    assert received < named, "the acknowledgement's is not in the provider's journal"


async def traceparents(stage: Stage, request: CallRequest) -> list[str | None]:
    """The traceparent of every request of a call."""
    seen = await stage.seen(request.call_id, "request")
    return [event["headers"].get("traceparent") for event in seen]


async def answered(stage: Stage, echo: str | None) -> tuple[CallRequest, str]:
    """A call whose callback echoes a traceparent: this one, or the request's own."""
    request = stage.request(stuck=True)
    with trace.get_tracer("caller").start_as_current_span("invoice"):
        await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    (sent,) = await traceparents(stage, request)
    assert sent is not None
    await upgrade_cases.answer(stage, request, {"traceparent": echo or sent})
    await upgrade_cases.ended(stage, request)
    return request, sent


async def test_echoed_traceparent_is_the_parent(scene: Scene) -> None:
    """A callback that echoes its request's traceparent is a child of that request."""
    stage, exporter = scene
    _, sent = await answered(stage, None)
    trace_id = int(sent.split("-")[1], 16)
    spans = await spans_of(exporter, trace_id, "RunWorkflow:IntegrationCall")
    assert {"POST"} == parents(spans)["callback sandbox"]


async def test_foreign_traceparent_is_only_linked(scene: Scene) -> None:
    """A callback that arrives in a trace of the provider stays in the call's trace."""
    stage, exporter = scene
    foreign = f"00-{7:032x}-{9:016x}-01"
    _, sent = await answered(stage, foreign)
    trace_id = int(sent.split("-")[1], 16)
    spans = await spans_of(exporter, trace_id, "RunWorkflow:IntegrationCall")
    (callback,) = [span for span in spans if span.name == "callback sandbox"]
    assert [link.context.trace_id for link in callback.links] == [7]
    assert {"StartWorkflow:IntegrationCall"} == parents(spans)["callback sandbox"]


async def test_no_private_data_in_spans(scene: Scene) -> None:
    """No span has a payload, a provider's message, a secret, or the path or query of a URL."""
    stage, exporter = scene
    request = stage.request(refuse=422, reason=f"{PRIVATE} has moved")
    request = request.model_copy(update={"metadata": {"customer": PRIVATE}})
    spans = await spans_of(exporter, await ended(stage, request), "RunWorkflow:IntegrationCall")
    exported = json.dumps([json.loads(span.to_json()) for span in spans])
    for secret in (PRIVATE, *SECRETS.values(), "/v1/orders", "Traceback", "EUR"):
        assert secret not in exported
    failed = {span.name: span.status.description for span in spans if not span.status.is_ok}
    assert failed["RunWorkflow:IntegrationCall"] == "ApplicationError: CallFailed"


async def test_controls_are_not_traced(scene: Scene) -> None:
    """Provider controls run for months and are not traced."""
    stage, exporter = scene
    await ended(stage, stage.request())
    names = {span.name for span in exporter.get_finished_spans()}
    assert "StartWorkflow:IntegrationCall" in names
    assert not {name for name in names if name.endswith("ProviderControl")}


async def test_history_replays_with_and_without_traces(scene: Scene, stage: Stage) -> None:
    """A call with traces replays without them, and vice versa."""
    traced_stage, _ = scene
    histories = []
    for one in (traced_stage, stage):
        request = one.request(receipt_failures=1)
        await one.calls.start(request)
        await upgrade_cases.ended(one, request)
        histories.append(await one.handle(request).fetch_history())
    header = "_tracer-data"
    assert [header in history.to_json() for history in histories] == [True, False]
    without: dict[str, Any] = {"data_converter": client_options()["data_converter"]}
    for how in (client_options(), without):
        replayer = Replayer(workflows=WORKFLOWS, workflow_runner=workflow_runner(), **how)
        for history in histories:
            await replayer.replay_workflow(history)
