"""Text that shows what each record says about a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .cases import Case
from .records import Event, Run, Work

STORY = 14
"""Lines of a history that are shown; all of them are in the report file."""


def summarize(case: Case) -> Iterator[str]:
    """One line per record."""
    yield f"provider: {_provider(case)}"
    yield f"ledger:   {_ledger(case)}"
    yield f"history:  {_history(case)}"
    yield f"caller:   {_caller(case)}"


def describe(case: Case) -> Iterator[str]:
    """All records, with the full histories."""
    yield case.call_id
    for line in summarize(case):
        yield f"  {line}"
    for run in case.runs:
        yield f"  run {run.id} ({run.state})"
        yield from (f"    {line}" for line in run.story)


def _provider(case: Case) -> str:
    requests = [f"{key.rpartition(':')[2]}: {n}" for key, n in case.provider.requests.items()]
    told = [f"requests by cycle {', '.join(requests) or 'none'}"]
    told += [_work(work) for work in case.provider.works]
    told += [_event(event) for event in case.provider.events]
    return "; ".join(told)


def _work(work: Work) -> str:
    verdicts = "+".join(work.verdicts) or "nothing"
    behaviour = f" {json.dumps(dict(work.behaviour))}" if work.behaviour else ""
    return f"{work.id} (cycle {work.cycle}) {work.status}, acknowledged {verdicts}{behaviour}"


def _event(event: Event) -> str:
    replies = ", ".join(f"{count} x {status}" for status, count in event.replies.items())
    return f"{event.id} sent {event.sent} times: {replies or 'no reply'}"


def _ledger(case: Case) -> str:
    kept = case.ledger
    if kept.stage is None:
        return "nothing"
    outcome = kept.outcome or {}
    told = [f"stage {kept.stage}", f"outcome {_outcome(outcome)}"]
    told += [f"response of cycle {r.cycle} by {r.source} {r.event_key}" for r in kept.responses]
    told += [
        f"{a.kind} of cycle {a.cycle} {f'owed: {a.reason}' if a.is_owed else 'acknowledged'}"
        for a in kept.acknowledgements
    ]
    return "; ".join(told)


def _outcome(outcome: Any) -> str:
    if not outcome:
        return "none"
    marks = [mark for mark in ("late", "forced", "cancelled") if outcome.get(mark)]
    reason = f": {outcome['reason']}" if outcome.get("reason") else ""
    return " ".join([outcome["status"], *marks]) + reason


def _history(case: Case) -> str:
    if not case.runs:
        return "unknown to the engine"
    return " | ".join(_run(run) for run in case.runs)


def _run(run: Run) -> str:
    ending = f", failure {run.failure}" if run.failure else ""
    failures = "".join(f", task failed: {f.cause} {f.message}" for f in run.task_failures)
    return f"{run.state}{ending}{failures}; …{' → '.join(run.story[-STORY:])}"


def _caller(case: Case) -> str:
    told = case.caller
    said = [f"start {'acknowledged' if told.is_started else 'not acknowledged'}"]
    said += told.orders
    said += [f"{a.how}: {a.stage}" + (" with outcome" if a.outcome else "") for a in told.answers]
    said += [f"refused: {told.refusal}"] if told.refusal else []
    said += ["gave up"] if told.gave_up else []
    return "; ".join(said)
