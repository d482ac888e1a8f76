"""`python -m benchmarks.ends`: draw four calls as the Temporal UI shows them, from a real run.

Each picture has what an operator sees there of a call that has ended: status, summary, timeline,
result and current details.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import textwrap
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowHandle

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.demo.records import RecordSources
from ackbridge.demo.scenarios import SCENARIOS, run_scenario
from ackbridge.demo.short_deadlines import copy_integrations, shorten_deadlines
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.stack import Stack
from ackbridge.temporal.connect import connect

ENDS: Final = {"answered": "completed", "late": "late", "failed": "failed", "unknown": "unknown"}
"""The demo's scenarios, and the names of the pictures."""

_WIDTH, _LINE, _LEFT, _SIDE = 860, 17, 20, 430
_COLORS: Final = {
    "local activity": "#2f6fb2",
    "activity": "#5a46b5",
    "timer": "#b8871b",
    "signal": "#1f8a5b",
    "child workflow": "#9b3f8f",
}
_STATES: Final = {"COMPLETED": "#1f8a5b", "FAILED": "#b3261e", "CANCELED": "#8a6d1f"}


@dataclass
class Row:
    """What the timeline shows in one line."""

    kind: str
    label: str
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Picture:
    """What the Temporal UI shows of a workflow."""

    workflow: str
    status: str
    summary: str
    rows: Sequence[Row]
    result: str
    details: str


def main() -> None:
    """Run four calls, and draw them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ends", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs/ends"))
    options = parser.parse_args()
    options.into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ackbridge-ends-") as folder:
        state = Path(folder)
        with copy_integrations(state) as integrations:
            shorten_deadlines(integrations)
            parts = ("engine", "worker", "gateway", "sandbox")
            made = Stack(state, environ=os.environ, integrations=integrations, parts=parts)
            with made as stack:
                pictures = asyncio.run(_run(stack))
    for name, picture in pictures.items():
        path = options.into / f"{name}.svg"
        path.write_text(draw(picture))
        print(path)


async def _run(stack: Stack) -> dict[str, Picture]:
    ledger = Ledger.open(stack.environment["ACKBRIDGE_LEDGER_URL"], utc_now)
    try:
        client = await connect(stack.environment)
        async with httpx.AsyncClient(trust_env=False) as http:
            at = stack.addresses.sandbox
            sources = RecordSources(AckbridgeClient(client), client, ledger, http, at)
            run = uuid.uuid4().hex[:4]
            wanted = [one for one in SCENARIOS if one.name in ENDS]
            results = await asyncio.gather(*(run_scenario(sources, one, run) for one in wanted))
        for result in results:
            if result.problems:
                raise SystemExit(f"{result.call_id}: {'; '.join(result.problems)}")
        return {
            ENDS[result.scenario.name]: await read(client, result.call_id) for result in results
        }
    finally:
        await ledger.close()


# What the engine has of a call


async def read(client: Client, call_id: str) -> Picture:
    """Read history, summary and current details of a workflow."""
    handle: WorkflowHandle[object, object] = client.get_workflow_handle(call_id)
    described = await handle.describe()
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    events = (await handle.fetch_history()).events
    return Picture(
        workflow=f"{described.workflow_type}  {call_id}",
        status=described.status.name if described.status else "",
        summary=await described.static_summary() or "",
        rows=list(_rows(events)),
        result=_result(events[-1]),
        details=metadata.current_details,
    )


def _rows(events: Sequence[HistoryEvent]) -> Iterator[Row]:
    open_rows: dict[int, Row] = {}
    for event in events:
        at, summary = _moment(event.event_time), _text(event.user_metadata.summary)
        match event.event_type:
            case EventType.EVENT_TYPE_MARKER_RECORDED:
                data = event.marker_recorded_event_attributes.details["data"].payloads[0]
                known = json.loads(data.data)
                begin, end = _of(known["original_schedule_time"]), _of(known["complete_time"])
                yield Row("local activity", summary or known["activity_type"], begin, end)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                open_rows[event.event_id] = Row("activity", summary or name, at, at)
                yield open_rows[event.event_id]
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                open_rows[done.scheduled_event_id].end = at
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                open_rows[failed.scheduled_event_id].end = at
            case EventType.EVENT_TYPE_TIMER_STARTED:
                open_rows[event.event_id] = Row("timer", summary, at, at)
                yield open_rows[event.event_id]
            case EventType.EVENT_TYPE_TIMER_FIRED:
                open_rows[event.timer_fired_event_attributes.started_event_id].end = at
            case EventType.EVENT_TYPE_TIMER_CANCELED:
                open_rows[event.timer_canceled_event_attributes.started_event_id].end = at
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                name = event.workflow_execution_signaled_event_attributes.signal_name
                yield Row("signal", name, at, at)
            case EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
                child = event.start_child_workflow_execution_initiated_event_attributes
                yield Row("child workflow", child.workflow_type.name, at, at)


def _result(last: HistoryEvent) -> str:
    failure = last.workflow_execution_failed_event_attributes.failure
    if failure.message:
        (details,) = failure.application_failure_info.details.payloads
        kind = failure.application_failure_info.type
        return f"{kind}: {failure.message}\n{_outcome(json.loads(details.data))}"
    (result,) = last.workflow_execution_completed_event_attributes.result.payloads
    return _outcome(json.loads(result.data))


def _outcome(outcome: Mapping[str, object]) -> str:
    shown = ("status", "effect", "code", "late", "response", "cycles", "attempts", "notice")
    kept = {name: outcome.get(name) for name in shown if outcome.get(name) not in (None, False)}
    return json.dumps(kept, ensure_ascii=False)


def _moment(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)


def _of(known: Mapping[str, int]) -> datetime:
    return datetime.fromtimestamp(known["seconds"] + known.get("nanos", 0) / 1e9, UTC)


def _text(payload: Payload) -> str:
    return str(json.loads(payload.data)) if payload.data else ""


# The picture


def draw(picture: Picture) -> str:
    """The picture as SVG."""
    lines: list[str] = []
    y = 30
    color = _STATES.get(picture.status, "#555")
    lines += [
        f'<rect x="{_LEFT}" y="{y - 15}" width="92" height="21" rx="4" fill="{color}"/>',
        _say(_LEFT + 46, y, picture.status.title(), "fill:#fff;text-anchor:middle"),
        _say(_LEFT + 104, y, picture.workflow, "font-weight:600"),
    ]
    y += 24
    lines.append(_say(_LEFT, y, picture.summary, "fill:#555"))
    y += 30
    lines.append(_say(_LEFT, y, "Timeline", "font-weight:600"))
    timeline, y = _timeline(picture.rows, y + 8)
    lines += timeline
    for title, text in (("Result", picture.result), ("Current details", picture.details)):
        y += 28
        lines.append(_say(_LEFT, y, title, "font-weight:600"))
        for line in _wrapped(text):
            y += _LINE
            lines.append(_say(_LEFT + 10, y, line, "font-family:monospace;font-size:11px"))
    height = y + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        ' font-family="system-ui,sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff" stroke="#ccc"/>'
        + "".join(f"{line}\n" for line in lines)
        + "</svg>\n"
    )


def _timeline(rows: Sequence[Row], y: int) -> tuple[list[str], int]:
    first, last = min(row.begin for row in rows), max(row.end for row in rows)
    span, room = max((last - first).total_seconds(), 0.001), _WIDTH - _SIDE - 60
    lines = []
    for row in sorted(rows, key=lambda row: row.begin):
        y += _LINE + 2
        begin = _SIDE + room * (row.begin - first).total_seconds() / span
        width = max(room * (row.end - row.begin).total_seconds() / span, 5)
        label = textwrap.shorten(row.label, 62, placeholder="…")
        tip = escape(f"{row.kind}: {row.label}")
        lines += [
            _say(_LEFT + 10, y, label, ""),
            f'<rect x="{begin:.0f}" y="{y - 9}" width="{width:.0f}" height="10" rx="3"'
            f' fill="{_COLORS[row.kind]}"><title>{tip}</title></rect>',
        ]
    y += _LINE + 6
    lines.append(_say(_WIDTH - 20, y, f"{span:.1f} s", "text-anchor:end;fill:#555"))
    at = _LEFT + 10
    for kind in dict.fromkeys(row.kind for row in rows):
        lines.append(f'<rect x="{at}" y="{y - 9}" width="10" height="10" fill="{_COLORS[kind]}"/>')
        lines.append(_say(at + 14, y, kind, "fill:#555"))
        at += 30 + 7 * len(kind)
    return lines, y


def _wrapped(text: str) -> Iterator[str]:
    for line in text.replace("**", "").splitlines():
        yield from textwrap.wrap(line, 112, subsequent_indent="  ") or [""]


def _say(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" style="{style}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
