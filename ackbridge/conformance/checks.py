"""Invariants of every call, whatever happened to it: checked against all three records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeStatus, Stage
from ackbridge.contracts.notices import notice_kind

from .cases import Case
from .records import Records

PROTOCOL = "the protocol itself"
"""In place of a field, where no field of the file can be the cause."""


@dataclass(frozen=True)
class Finding:
    """An expectation that does not hold; `field` of the integration file decides it."""

    expected: str
    seen: str
    field: str

    def __str__(self) -> str:
        return f"expected {self.expected}; seen: {self.seen}; see {self.field}"


def check_invariants(case: Case, records: Records, outcome: CallOutcome) -> list[Finding]:
    return [finding for check in _CHECKS for finding in check(case, records, outcome)]


def _one_end(_case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if len(records.close_events) != 1:
        seen = ", ".join(records.close_events) or "none"
        yield Finding("exactly one end of the workflow", seen, PROTOCOL)
    row = records.call
    status = row.outcome.status if row and row.outcome else None
    if status is not outcome.status:
        yield Finding(f"the outcome {outcome.status} in the ledger", f"{status}", PROTOCOL)
    is_owed = outcome.acknowledgement_owed and row and row.stage is Stage.ACKNOWLEDGING
    if row and not row.stage.is_final and not is_owed:
        yield Finding("a final stage in the ledger", row.stage.value, PROTOCOL)


def _one_response(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    expected = int(outcome.status is OutcomeStatus.COMPLETED)
    if len(records.responses) != expected:
        yield Finding(
            f"{expected} recorded response(s)", str(len(records.responses)), "callbacks.event_key"
        )
    elif expected and records.responses[0].data != outcome.response:
        yield Finding(
            "the recorded response to be the outcome's", "another one", _at(case, "response.data")
        )


def _acknowledged_after_recording(
    case: Case, records: Records, _outcome: CallOutcome
) -> Iterator[Finding]:
    acknowledged = records.events("acknowledgement", acknowledged="success")
    if not acknowledged:
        return
    recorded = [row.recorded_at for row in records.responses]
    if not recorded or datetime.fromisoformat(acknowledged[0]["at"]) < min(recorded):
        yield Finding(
            "a success acknowledgement only after a recorded response",
            "one without",
            _at(case, "acknowledge"),
        )


def _every_job_acknowledged(
    case: Case, records: Records, outcome: CallOutcome
) -> Iterator[Finding]:
    if outcome.acknowledgement_owed:
        return
    is_completed = outcome.status is OutcomeStatus.COMPLETED
    expected = [v for v in ("success", "failed") if case.acknowledges(v)]
    if not is_completed and "failed" in expected:
        expected = ["failed"]
    elif not is_completed or expected == ["failed"]:
        # A job whose response was accepted needs no failed acknowledgement.
        return
    for work in records.works:
        verdicts = {one["verdict"] for one in work["acknowledgements"]}
        if expected and not verdicts & set(expected):
            key = work["idempotency_key"]
            yield Finding(
                f"the work under the key {key} to be acknowledged ({' or '.join(expected)})",
                "no acknowledgement",
                _at(case, "acknowledge.path"),
            )


def _idempotency_keys(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if not case.identifies_cycle:
        return
    keys = list(dict.fromkeys(event["idempotency_key"] for event in records.events("request")))
    expected = [names.idempotency_key(outcome.call_id, n) for n in range(1, len(keys) + 1)]
    field = _at(case, "request.idempotency_header")
    if keys != expected:
        yield Finding(f"the idempotency keys {', '.join(expected)}", ", ".join(keys), field)
    works = [work["idempotency_key"] for work in records.works]
    if len(works) != len(set(works)):
        yield Finding("one work for each key", ", ".join(works), field)


def _notice(case: Case, _records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    notice = outcome.notice
    is_needed = outcome.status is not OutcomeStatus.COMPLETED
    if not is_needed:
        return
    if notice is None or not notice.title or not notice.message:
        yield Finding("a notice for the user", "none", _at(case, "notices"))
    elif outcome.code is None:
        yield Finding("a code that says why it ended", "none", PROTOCOL)
    elif notice.kind != notice_kind(outcome.code, outcome.effect):
        expected = notice_kind(outcome.code, outcome.effect)
        yield Finding(f"the notice {expected}", notice.kind, _at(case, "notices"))


def _effect(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    """What the call says of the provider's side agrees with the provider's own record."""
    if outcome.status is OutcomeStatus.COMPLETED and outcome.effect is not Effect.DONE:
        yield Finding("the effect done of a completed call", outcome.effect, PROTOCOL)
    if any(_contradicts_itself(work) for work in records.works):
        return
    standing = [work for work in records.works if not _is_undone(case, work)]
    is_stated = outcome.forced is not None or outcome.settled is not None
    if outcome.effect is Effect.NONE and standing and not is_stated:
        seen = ", ".join(f"{work['idempotency_key']} is {work['status']}" for work in standing)
        yield Finding("no work at the provider, since the effect is none", seen, PROTOCOL)
    is_done = any(work["status"] == "completed" for work in standing)
    if outcome.effect is Effect.DONE and not is_done and not is_stated:
        yield Finding("completed work, since the effect is done", "none", PROTOCOL)


def _is_undone(case: Case, work: dict[str, Any]) -> bool:
    return work["status"] == "failed" or (case.calls_off and work["acknowledged"] == "failed")


def _contradicts_itself(work: dict[str, Any]) -> bool:
    """Whether the provider reports a success after a failure."""
    return bool(work["behaviour"].get("contradictory") or work["behaviour"].get("late"))


def _suppressed_duplicates(
    _case: Case, records: Records, _outcome: CallOutcome
) -> Iterator[Finding]:
    accepted = Counter(
        event["event_id"]
        for event in records.events("callback_reply")
        if event.get("status") in range(200, 300)
    )
    duplicates = accepted.total() - len(accepted)
    logged = sum(row.times for row in records.ledger_rows if row.what == "suppressed")
    if logged < duplicates:
        yield Finding(
            f"{duplicates} suppressed callback(s) in the ledger's log", str(logged), "the gateway"
        )


def _no_failed_tasks(_case: Case, records: Records, _outcome: CallOutcome) -> Iterator[Finding]:
    for message in records.failed_tasks[:1]:
        yield Finding("no failed workflow task", message, PROTOCOL)


_CHECKS = (
    *(_one_end, _one_response, _acknowledged_after_recording, _every_job_acknowledged),
    *(_idempotency_keys, _notice, _effect, _suppressed_duplicates, _no_failed_tasks),
)


def _at(case: Case, field: str) -> str:
    return f"operations.{case.name}.{field}"
