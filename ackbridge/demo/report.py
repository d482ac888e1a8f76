"""The printed report of the demo, in the order in which it is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Notice
from ackbridge.local.foreground import DEFAULT_STATE, PREFERRED_PORTS
from ackbridge.local.ports import HOST
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

from .flag_switch import CALLS_BEFORE, OPERATION, FlagSwitchResult
from .load import LoadResult
from .outage import ATTEMPTS, BOOKINGS, RATE, OutageResult
from .reconciliation import Check
from .records import FORGERIES, PROVIDER, CallRecords, OperatorSignal, is_accepted
from .scenario_run import DemoCall
from .scenarios import ScenarioResult
from .short_deadlines import DeadlineChange

ERRORS_SHOWN = 10
"""Failed calls of the first part that are listed; its table has their number."""

EXAMPLE = "silence"
"""The scenario whose call is the example of where to look."""

RESPONSE_SHOWN = 150
"""Characters of a response that are shown."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_FAULTS = {
    "closed": "closed the connection",
    "reset": "reset the connection",
    "hung": "stopped in the middle of its reply",
    "malformed": "replied with something that is not JSON",
    "mute": "did not reply",
}
_SIGNALS = {
    names.CANCEL: "was cancelled by",
    names.FORCE_ACK: "was forced by",
    names.REPROCESS: "was reprocessed by",
}


def load_table(loads: Sequence[LoadResult]) -> RenderableType:
    columns = ("calls", "made", "completed", "failed", "p50", "p99", "retries")
    return output.table("\nCalls", columns, [load.row() for load in loads])


def flag_switch(result: FlagSwitchResult) -> RenderableType:
    changes = [
        f"{change.by}: {change.subject}: {change.before} → {change.after} ({change.reason})"
        for change in result.changes
    ]
    change = chain(changes, repeat("no change"))
    parked = len(result.parked)
    lines = [
        ("callers", f"{CALLS_BEFORE} bookings complete"),
        ("flag", next(change)),
        (
            "callers",
            f"{result.passed} more complete; after {result.effective_after.total_seconds():.1f} s"
            f" the workers have the change, and the next {parked} are parked: nothing is sent",
        ),
    ]
    example = next(iter(result.parked.values()), None)
    if example is not None and example.notice is not None:
        lines.append(("user reads", quote_notice(example.notice)))
    lines += [
        ("flag", next(change)),
        (
            "Ackbridge",
            f"a batch reprocesses the {parked} ({result.batch}): they evaluate the flag again and"
            f" are sent; all ended after {result.reprocessed_after.total_seconds():.1f} s",
        ),
        ("flag", next(change)),
        ("look", f"ackbridge flag {PROVIDER}; the workflow control.{PROVIDER}"),
    ]
    return _section("\nA flag is switched off and on", OPERATION, lines, result.problems)


def outage_introduction() -> RenderableType:
    return Text(
        f"\nAn outage: the provider answers 503 to {BOOKINGS} bookings, {ATTEMPTS} times each. They"
        " are parked, and a batch reprocesses them, as `ackbridge reprocess sandbox` does. From"
        " here on an operator holds the breaker closed (`ackbridge breaker sandbox closed`);"
        " otherwise it would open, and stop the sends.\n"
    )


def outage(result: OutageResult) -> RenderableType:
    batch = result.progress
    if batch is None:
        return Text("The batch has not ended.")
    counts, seconds = batch.counts, (batch.since - batch.started_at).total_seconds()
    return Text(
        f"{counts.selected} bookings were parked ({', '.join(result.reasons)}); the batch signalled"
        f" each of them once, at most {RATE:g} per second: {counts.completed} completed,"
        f" {counts.parked_again} parked again, {counts.failed} failed, in {seconds:.0f} s."
    )


def scenarios_introduction(changes: Sequence[DeadlineChange], count: int) -> RenderableType:
    operations: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        key = (change.field, change.before, change.after)
        operations.setdefault(key, []).append(change.operation)
    shorter = [
        f"{field} is {after} instead of {before} ({', '.join(names)})"
        for (field, before, after), names in operations.items()
    ]
    return Group(
        Text("\nOne call for each scenario", style="bold"),
        Text(
            f"The provider now injects faults into {count} calls at the same time. To shorten the"
            " waits, worker and gateway were restarted with a copy of sandbox.yaml for this run,"
            f" where {', and '.join(shorter)}. Every line is read from the provider's events, the"
            " ledger, and the workflow histories. “…:2” is the second idempotency key of a call,"
            " <call id>:2.\n"
        ),
    )


def scenario(number: int, result: ScenarioResult) -> RenderableType:
    title = f"\n{number:>2}  {result.scenario.title}"
    lines = scenario_lines(result)
    return _section(title, result.scenario.operation, lines, result.problems)


def scenario_lines(result: ScenarioResult) -> list[tuple[str, str]]:
    demo_call, records = result.demo_call, result.records
    return [
        ("provider", _provider_steps(records)),
        ("Ackbridge", _ackbridge_steps(demo_call, records)),
        ("end", _end(demo_call)),
        *zip(chain(["user reads"], repeat("and then")), _user_texts(demo_call), strict=False),
    ]


def scenario_table(results: Sequence[ScenarioResult]) -> RenderableType:
    """One line for each scenario."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, max_width=52, overflow="ellipsis")
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for result in results:
        outcome = result.demo_call.outcome
        end = (outcome.status, f"effect {outcome.effect}") if outcome else ("refused", "")
        is_ok = Text("NO", style="bold red") if result.problems else Text("ok", style="green")
        grid.add_row(Text(result.scenario.title), *map(str, end), is_ok)
    return Group(Text("\nOne call for each kind of end", style="bold"), grid)


def in_short(
    flag_result: FlagSwitchResult,
    outage_result: OutageResult,
    checks: Sequence[Check],
    notified: int,
) -> RenderableType:
    """The rest of the run, a line each; every check that does not match is named."""
    wrong = [check for check in checks if not check.matches]
    batch = outage_result.progress
    lines = [
        f"A flag was switched off and on: {len(flag_result.parked)} calls were parked meanwhile,"
        " and completed by a batch.",
        "An outage: "
        + (
            f"{batch.counts.selected} calls were parked, {batch.counts.completed} of them completed"
            " by a batch."
            if batch
            else "its batch has not ended."
        ),
        f"Notices to a subscriber: {notified} stories, each as expected unless named below.",
        f"Provider, engine and ledger: {len(checks) - len(wrong)} of {len(checks)} checks of their"
        " records match.",
        *(f"NO: {' '.join(check.row())}" for check in wrong),
    ]
    return Text("\n" + "\n".join(lines))


def reconciliation(checks: Sequence[Check], early: int) -> RenderableType:
    rows = [check.row() for check in checks]
    rows.append(("callbacks that arrived before their receipt", str(early), "", ""))
    return output.table("\nReconciliation", ("", "found", "expected", "matches"), rows)


def problems(errors: Sequence[str], results: Sequence[ScenarioResult]) -> RenderableType:
    wrong = [result for result in results if result.problems]
    lines = [f"failed: {error}" for error in errors[:ERRORS_SHOWN]]
    lines += [
        f"not as expected: {result.call_id}: {problem}"
        for result in wrong
        for problem in result.problems
    ]
    passed = len(results) - len(wrong)
    lines.append(f"\n{passed} of {len(results)} scenarios ended as expected.")
    return Text("\n".join(lines))


def exit_code(
    errors: Sequence[str], results: Sequence[ScenarioResult], checks: Sequence[Check]
) -> ExitCode:
    has_problems = errors or any(result.problems for result in results)
    is_ok = not has_problems and all(check.matches for check in checks)
    return ExitCode.COMPLETED if is_ok else ExitCode.FAILED


def where_to_look(results: Sequence[ScenarioResult], state: Path, page: Path) -> Text:
    call_id = next(one.call_id for one in results if one.scenario.name == EXAMPLE)
    up = "make up" if state == DEFAULT_STATE else f".venv/bin/ackbridge up --state {state}"
    ui = f"http://{HOST}:{PREFERRED_PORTS['ui']}"
    return Text(
        f"""
Each call's timeline, as pictures: {page}
Every step of this run as text: make demo DEMO=--verbose

The stack shuts down now; its state keeps every call. To look at one:

  {up}
  .venv/bin/ackbridge status {call_id}
  {ui}/namespaces/default/workflows/{call_id}
"""
    )


def quote_notice(notice: Notice) -> str:
    """Title, message and alternative, each in quotes."""
    parts = (notice.title, notice.message, notice.alternative)
    return " ".join(f"“{part}”" for part in parts if part)


def _section(
    title: str, operation: str, lines: Iterable[tuple[str, str]], problems: Iterable[str]
) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", justify="right", min_width=12)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(label, Text(text))
    for problem in problems:
        grid.add_row("NO", Text(problem, style="bold red"))
    heading = Text(title, style="bold")
    heading.append(f"  ({operation})", style="not bold dim")
    return Group(heading, grid)


def _provider_steps(records: CallRecords) -> str:
    if not records.events:
        return "received nothing"
    steps = [step for event in records.events if (step := _provider_step(event, records))]
    if records.works and not records.events_of("done"):
        steps.append("never did the work")
    if records.works and not records.events_of("callback_reply"):
        steps.append("sent no callback")
    return _join(steps)


def _provider_step(event: dict[str, Any], records: CallRecords) -> str | None:
    match event["kind"]:
        case "receipt":
            return _reply(event, "request", "accepted the request")
        case "done":
            reason = records.works[0]["behaviour"].get("reason")
            return "did the work" if event["result"] == "completed" else f"failed: {reason}"
        case "callback_reply":
            news = event["news"]
            what = f"callback: {'forged' if news in FORGERIES else news}"
            is_ok = is_accepted(event, news)
            return what if is_ok else f"{what} (answered {event.get('status')})"
        case "status":
            return _reply(event, "status request", f"status: {event.get('stands')}")
        case "acknowledgement" if event.get("status") != 200:
            return _reply(event, "acknowledgement", "")
    return None


def _reply(event: dict[str, Any], request: str, success: str) -> str:
    status = event.get("status")
    if status in range(200, 300) and "fault" not in event:
        return success
    return _FAULTS.get(event.get("fault", ""), f"answered the {request} {status}")


def steps_of(demo_call: DemoCall, records: CallRecords) -> list[tuple[datetime, str]]:
    """What Ackbridge did, in order."""
    timed = [*_observed_steps(records), *_own_steps(demo_call, records)]
    return sorted(timed, key=lambda one: one[0])


def provider_moments(records: CallRecords) -> list[tuple[datetime, str]]:
    """What the provider did, in order."""
    return [
        (datetime.fromisoformat(event["at"]), step)
        for event in records.events
        if (step := _provider_step(event, records))
    ]


def _ackbridge_steps(demo_call: DemoCall, records: CallRecords) -> str:
    steps = [text for _, text in steps_of(demo_call, records)]
    if demo_call.is_repeated:
        steps.append("answered the second start with the same outcome")
    steps += [f"refused the caller: {refusal}" for refusal in demo_call.refusals]
    return _join(steps)


def _observed_steps(records: CallRecords) -> Iterator[tuple[datetime, str]]:
    for event in records.events:
        at = datetime.fromisoformat(event["at"])
        match event["kind"]:
            case "request":
                yield at, f"sent it (…:{event['cycle']})"
            case "status":
                yield at, "requested its status"
            case "acknowledgement" if event["counts"]:
                yield at, f"acknowledged {event['acknowledged']} (…:{event['cycle']})"


def _own_steps(demo_call: DemoCall, records: CallRecords) -> Iterator[tuple[datetime, str]]:
    if demo_call.parked_at is not None:
        yield demo_call.parked_at, f"parked it ({demo_call.parked_reason})"
    if demo_call.extended_at is not None and demo_call.extended is not None:
        yield demo_call.extended_at, f"waited longer ({demo_call.extended.deadline_reason})"
    for signal in records.signals:
        yield signal.at, _signal(signal)
    for row in records.responses:
        yield row.recorded_at, "recorded the response"
    for entry in records.held:
        yield entry.received_at, "held a later message"


def _signal(signal: OperatorSignal) -> str:
    reason = f" ({signal.reason})" if signal.reason else ""
    return f"{_SIGNALS[signal.name]} {signal.by}{reason}"


def _end(demo_call: DemoCall) -> str:
    outcome = demo_call.outcome
    if outcome is None:
        return "refused, and nothing sent"
    timings = outcome.timings
    ended_at = timings.answered_at or timings.ended_at or timings.started_at
    seconds = (ended_at - timings.started_at).total_seconds()
    reason = f": {outcome.reason}" if outcome.reason else ""
    end = f"{outcome.status} after {seconds:.1f} s{reason}; effect {outcome.effect}"
    return "; ".join([end, *_end_details(demo_call, outcome)])


def _end_details(demo_call: DemoCall, outcome: CallOutcome) -> Iterator[str]:
    if outcome.late:
        yield "late"
    if outcome.forced:
        yield f"forced by {outcome.forced.by}"
    acknowledged_at, answered_at = outcome.timings.acknowledged_at, outcome.timings.answered_at
    if demo_call.is_owed and acknowledged_at and answered_at:
        later = (acknowledged_at - answered_at).total_seconds()
        yield f"the acknowledgement was owed, and accepted {later:.1f} s later"


def _user_texts(demo_call: DemoCall) -> Iterator[str]:
    for notice in demo_call.notices:
        yield quote_notice(notice)
    outcome = demo_call.outcome
    if outcome is not None and outcome.notice is None:
        text = json.dumps(outcome.response, ensure_ascii=False)
        is_long = len(text) > RESPONSE_SHOWN
        yield f"the response, {text[:RESPONSE_SHOWN]}{'…' if is_long else ''}"


def _join(steps: Iterable[str]) -> str:
    """Steps in order; equal consecutive ones are counted."""
    runs = [(step, len(list(same))) for step, same in groupby(steps)]
    counted = (step if count == 1 else f"{step} {_TIMES}{count}" for step, count in runs)
    return " → ".join(counted)
