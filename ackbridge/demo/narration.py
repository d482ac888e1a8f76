"""What the records say of a call, in words for people, in the order in which it happened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Notice

from .facts import FORGERIES
from .records import DemoRecords, Order
from .scenario_run import DemoCall, is_taken

LONGEST_ANSWER = 150
"""Characters of a provider's answer that are shown."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_FAULTS = {
    "closed": "closed the connection",
    "reset": "reset the connection",
    "hung": "stopped in the middle of its answer",
    "malformed": "answered with something that is no JSON",
    "mute": "did not answer",
}
_ORDERS = {
    names.CANCEL: "was cancelled by",
    names.FORCE_ACK: "was forced by",
    names.REPROCESS: "was told to reprocess it by",
}


def provider(records: DemoRecords) -> str:
    """What the provider did, by its own journal."""
    if not records.events:
        return "never heard of it"
    deeds = [deed for event in records.events if (deed := _deed(event, records))]
    if records.works and not records.of("done"):
        deeds.append("never did the work")
    if records.works and not records.of("callback_reply"):
        deeds.append("called nobody back")
    return _in_order(deeds)


def ackbridge(scene: DemoCall, records: DemoRecords) -> str:
    """What we did about it, by all records together."""
    happened = [*_steps(records), *_turns(scene, records)]
    told = [text for _, text in sorted(happened, key=lambda one: one[0])]
    if scene.is_repeated:
        told.append("answered the second start with the same outcome")
    told += [f"refused the caller: {refusal}" for refusal in scene.refusals]
    return _in_order(told)


def end(scene: DemoCall) -> str:
    """How it ended."""
    outcome = scene.outcome
    if outcome is None:
        return "not taken, and nothing sent"
    timings = outcome.timings
    ended_at = timings.answered_at or timings.ended_at or timings.started_at
    seconds = (ended_at - timings.started_at).total_seconds()
    reason = f": {outcome.reason}" if outcome.reason else ""
    return "; ".join(
        [f"{outcome.status} after {seconds:.1f} s{reason}", *_qualities(scene, outcome)]
    )


def user(scene: DemoCall) -> Iterator[str]:
    """What the user reads, a line for each time."""
    for notice in scene.notices:
        yield quote(notice)
    outcome = scene.outcome
    if outcome is not None and outcome.notice is None:
        text = json.dumps(outcome.response, ensure_ascii=False)
        is_long = len(text) > LONGEST_ANSWER
        yield f"the answer, {text[:LONGEST_ANSWER]}{'…' if is_long else ''}"


def quote(notice: Notice) -> str:
    """Title, message and alternative, each in quotes."""
    parts = (notice.title, notice.message, notice.alternative)
    return " ".join(f"“{part}”" for part in parts if part)


def _deed(event: dict[str, Any], records: DemoRecords) -> str | None:
    """One thing that the provider did."""
    match event["kind"]:
        case "receipt":
            return _answer(event, "took the request")
        case "done":
            reason = records.works[0]["behaviour"].get("reason")
            return "did the work" if event["result"] == "completed" else f"failed: {reason}"
        case "callback_reply":
            return _callback(event)
        case "status":
            return _answer(event, f"said “{event.get('stands')}”")
        case "acknowledgement" if event.get("status") != 200:
            return _answer(event, "")
    return None


def _answer(event: dict[str, Any], well: str) -> str:
    """How it answered; well: what it means when nothing is wrong with that."""
    status = event.get("status")
    if status in range(200, 300) and "fault" not in event:
        return well
    about = {"receipt": "the request", "status": "our question"}.get(
        event["kind"], "the acknowledgement"
    )
    return _FAULTS.get(event.get("fault", ""), f"answered {about} {status}")


def _callback(reply: dict[str, Any]) -> str:
    news = reply["news"]
    is_forged = news in FORGERIES
    what = f"called back: {'a forged answer' if is_forged else news}"
    return what if is_taken(reply, news) else f"{what} (answered {reply.get('status')})"


def _steps(records: DemoRecords) -> Iterator[tuple[datetime, str]]:
    """What the provider has noticed of us, and when."""
    for event in records.events:
        at = datetime.fromisoformat(event["at"])
        match event["kind"]:
            case "request":
                yield at, f"sent it (…:{event['cycle']})"
            case "status":
                yield at, "asked how it stands"
            case "acknowledgement" if event["counts"]:
                yield at, f"acknowledged {event['acknowledged']} (…:{event['cycle']})"


def _turns(scene: DemoCall, records: DemoRecords) -> Iterator[tuple[datetime, str]]:
    """What happened on our side, and when."""
    if scene.parked_at is not None:
        yield scene.parked_at, f"parked it ({scene.parked_because})"
    if scene.extended_at is not None and scene.extended is not None:
        yield scene.extended_at, f"waited longer ({scene.extended.deadline_reason})"
    for order in records.orders:
        yield order.at, _order(order)
    for row in records.responses:
        yield row.recorded_at, "recorded the answer"
    for entry in records.kept:
        yield entry.received_at, "kept a later answer for people"


def _order(order: Order) -> str:
    reason = f" ({order.reason})" if order.reason else ""
    return f"{_ORDERS[order.name]} {order.by}{reason}"


def _in_order(words: Iterable[str]) -> str:
    """One after the other; equal ones in a row are counted."""
    runs = [(word, len(list(same))) for word, same in groupby(words)]
    counted = (word if count == 1 else f"{word} {_TIMES}{count}" for word, count in runs)
    return " → ".join(counted)


def _qualities(scene: DemoCall, outcome: CallOutcome) -> Iterator[str]:
    if outcome.late:
        yield "late"
    if outcome.forced:
        yield f"forced by {outcome.forced.by}"
    paid_at, answered_at = outcome.timings.acknowledged_at, outcome.timings.answered_at
    if scene.is_owed and paid_at and answered_at:
        later = (paid_at - answered_at).total_seconds()
        yield f"the acknowledgement was owed, and paid {later:.1f} s later"
