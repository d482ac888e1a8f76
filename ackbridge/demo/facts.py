"""What the records say of a call, in comparable form: what should be, and what is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

from ackbridge.contracts.calls import CallOutcome

from .records import DemoRecords
from .scenario_run import DemoCall, is_taken

FORGERIES = ("forged_signature", "forged_stale")


@dataclass(frozen=True)
class CallFacts:
    """How a call ended, and what it took; the defaults are of one that simply goes well.

    Attributes:
        end: `completed`, `failed` or `cancelled`; `not taken` where there is no outcome.
        sent: how often it was sent, under each idempotency key.
        done: how often the provider did the work.
        told: the acknowledgements the provider took, of each of its works.
        recorded: answers in the ledger.
        notices: which ones the user was to read, in order.
        marks: what else happened to it.
    """

    end: str = "completed"
    sent: tuple[int, ...] = (1,)
    done: int = 1
    told: tuple[tuple[str, ...], ...] = (("success",),)
    recorded: int = 1
    notices: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()

    def differences(self, seen: CallFacts) -> Iterator[str]:
        """What was expected and what was seen, where that is not the same."""
        for one in fields(self):
            expected, found = getattr(self, one.name), getattr(seen, one.name)
            if expected != found:
                yield f"{one.name}: expected {_readable(expected)}, seen {_readable(found)}"


def facts_of(scene: DemoCall, records: DemoRecords) -> CallFacts:
    """What happened to a call, read off the records."""
    outcome = scene.outcome
    return CallFacts(
        end=outcome.status.value if outcome else "not taken",
        sent=tuple(count for _, count in sends(records)),
        done=sum(work["status"] == "completed" for work in records.works),
        told=tuple(
            tuple(one["verdict"] for one in work["acknowledgements"]) for work in records.works
        ),
        recorded=len(records.responses),
        notices=tuple(notice.kind for notice in scene.notices),
        marks=frozenset(_marks(scene, records)),
    )


def sends(records: DemoRecords) -> list[tuple[int, int]]:
    """Cycles, and how often each was sent; a cycle has an idempotency key of its own."""
    requests = sorted(event["cycle"] for event in records.of("request"))
    return [(cycle, len(list(same))) for cycle, same in groupby(requests)]


def _marks(scene: DemoCall, records: DemoRecords) -> Iterator[str]:
    yield from _marks_of_outcome(scene.outcome)
    for order in records.orders:
        yield f"{order.name} by {order.by}"
    replies = records.of("callback_reply")
    if sum(is_taken(reply, "completed") for reply in replies) > 1:
        yield "answered more than once"
    if scene.extended:
        yield "extended"
    forged = [reply for reply in replies if reply["news"] in FORGERIES]
    if forged:
        is_refused = all(400 <= (reply.get("status") or 0) < 500 for reply in forged)
        yield "forgeries refused" if is_refused else "FORGERIES TAKEN"
    if records.of("status"):
        yield "asked"
    if records.kept:
        yield f"{len(records.kept)} answer kept for people"
    if scene.parked:
        yield "parked"
    if scene.is_owed:
        yield "owed"
    if scene.is_repeated:
        yield "same outcome again"
    for refusal in scene.refusals:
        yield type(refusal).__name__


def _marks_of_outcome(outcome: CallOutcome | None) -> Iterator[str]:
    if outcome is None:
        return
    if outcome.late:
        yield "late"
    if outcome.acknowledgement_owed:
        yield "STILL OWED"
    for steering, what in ((outcome.forced, "forced"), (outcome.cancelled, "cancelled")):
        if steering is not None:
            yield f"{what} by {steering.by}"


def _readable(value: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "nothing"
    return str(value)
