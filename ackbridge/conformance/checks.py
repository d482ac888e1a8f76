"""What holds at the end of every call, whatever happened: checked against all three records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage

from .cases import Case
from .records import Records


@dataclass(frozen=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        governed_by: the field of the integration file that decides it, or where to look.
    """

    expected: str
    seen: str
    governed_by: str

    def __str__(self) -> str:
        return f"expected {self.expected}; seen: {self.seen}; see {self.governed_by}"


def judge(case: Case, records: Records, outcome: CallOutcome) -> list[Finding]:
    """Everything that does not hold."""
    rules = (_one_end, _one_response, _told_truly, _told_at_all, _keys, _notice, _log, _no_trouble)
    return [finding for rule in rules for finding in rule(case, records, outcome)]


def _one_end(_case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if len(records.closings) != 1:
        seen = ", ".join(records.closings) or "none"
        yield Finding("exactly one end of the workflow", seen, "the protocol itself")
    row = records.call
    standing = row.outcome.status if row and row.outcome else None
    if standing is not outcome.status:
        yield Finding(f"the ledger to say {outcome.status}", f"{standing}", "the protocol itself")
    is_owed = outcome.acknowledgement_owed and row and row.stage is Stage.ACKNOWLEDGING
    if row and not row.stage.is_final and not is_owed:
        yield Finding("a final stage in the ledger", row.stage.value, "the protocol itself")


def _one_response(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    wanted = int(outcome.status is OutcomeStatus.COMPLETED)
    if len(records.responses) != wanted:
        yield Finding(
            f"{wanted} recorded response(s)", str(len(records.responses)), "callbacks.event_key"
        )
    elif wanted and records.responses[0].data != outcome.response:
        yield Finding(
            "the recorded response to be the outcome's", "another one", _at(case, "response.data")
        )


def _told_truly(case: Case, records: Records, _outcome: CallOutcome) -> Iterator[Finding]:
    told = records.seen("acknowledgement", acknowledged="success")
    if not told:
        return
    recorded = [row.recorded_at for row in records.responses]
    if not recorded or datetime.fromisoformat(told[0]["at"]) < min(recorded):
        yield Finding(
            "a success acknowledgement only after a recorded response",
            "one without",
            _at(case, "acknowledge"),
        )


def _told_at_all(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if outcome.acknowledgement_owed:
        return
    for work in records.works:
        verdicts = [one["verdict"] for one in work["acknowledgements"]]
        is_answered = outcome.status is OutcomeStatus.COMPLETED
        expected = [v for v in ("success", "failed") if case.acknowledges(v)]
        if not is_answered and "failed" in expected:
            expected = ["failed"]
        elif not is_answered or expected == ["failed"]:
            # A work whose answer was taken needs no failed acknowledgement.
            continue
        if expected and not set(verdicts) & set(expected):
            key = work["idempotency_key"]
            yield Finding(
                f"the work under the key {key} to be acknowledged ({' or '.join(expected)})",
                "no acknowledgement",
                _at(case, "acknowledge.path"),
            )


def _keys(case: Case, records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if not case.names_its_cycle:
        return
    keys = list(dict.fromkeys(entry["idempotency_key"] for entry in records.seen("request")))
    expected = [names.idempotency_key(outcome.call_id, n) for n in range(1, len(keys) + 1)]
    if keys != expected:
        yield Finding(
            f"the idempotency keys {', '.join(expected)}",
            ", ".join(keys),
            _at(case, "request.idempotency_header"),
        )
    works = [work["idempotency_key"] for work in records.works]
    if len(works) != len(set(works)):
        yield Finding(
            "one work for each key", ", ".join(works), _at(case, "request.idempotency_header")
        )


def _notice(case: Case, _records: Records, outcome: CallOutcome) -> Iterator[Finding]:
    if outcome.status is OutcomeStatus.COMPLETED:
        return
    notice = outcome.notice
    if notice is None or not notice.title or not notice.message:
        yield Finding("a notice for the user", "none", _at(case, "notices"))


def _log(_case: Case, records: Records, _outcome: CallOutcome) -> Iterator[Finding]:
    """What was taken twice is logged as often as it changed nothing."""
    taken: dict[str, int] = {}
    for entry in records.seen("callback_reply"):
        if entry.get("status") is not None and 200 <= entry["status"] < 300:
            taken[entry["event_id"]] = taken.get(entry["event_id"], 0) + 1
    repeated = sum(times - 1 for times in taken.values())
    logged = sum(row.times for row in records.rows if row.what == "suppressed")
    if logged < repeated:
        yield Finding(
            f"{repeated} suppressed callback(s) in the ledger's log", str(logged), "the gateway"
        )


def _no_trouble(_case: Case, records: Records, _outcome: CallOutcome) -> Iterator[Finding]:
    for message in records.broken_tasks[:1]:
        yield Finding("no failed workflow task", message, "the protocol itself")


def _at(case: Case, field: str) -> str:
    return f"operations.{case.name}.{field}"
