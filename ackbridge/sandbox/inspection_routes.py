"""What the simulated provider remembers: `/_events`, `/_works` and `/_summary`, for checking.

And one order, for tests that decide when something is late: `POST /_hurry`.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query

from .event_log import EventLog, whose
from .job import Job
from .request_handler import RequestHandler

After = Annotated[int, Query(ge=0)]
Limit = Annotated[int | None, Query(ge=1)]


def memory_routes(desk: RequestHandler, journal: EventLog) -> APIRouter:
    """The routes. They need no credentials."""
    routes = APIRouter()

    @routes.get("/_events")
    async def events(
        call_id: str | None = None,
        work: str | None = None,
        kind: str | None = None,
        after: After = 0,
        limit: Limit = None,
    ) -> list[dict[str, Any]]:
        return journal.entries(call_id=call_id, work=work, kind=kind, after=after, limit=limit)

    @routes.get("/_works")
    async def works(
        call_id: str | None = None, after: After = 0, limit: Limit = None
    ) -> list[dict[str, Any]]:
        known = desk.works.values() if call_id is None else desk.works_of(call_id)
        wanted = (work for work in known if work.number > after)
        return [_tell(work) for work in islice(wanted, limit)]

    @routes.post("/_hurry")
    async def hurry(call_id: str) -> None:
        desk.hurry(call_id)

    @routes.get("/_summary")
    async def summary() -> dict[str, Any]:
        return _summary(desk, journal)

    return routes


def _tell(work: Job) -> dict[str, Any]:
    return {
        "number": work.number,
        "id": work.id,
        "operation": work.operation,
        **whose(work.key, work.call_id),
        "status": work.status,
        "acknowledged": work.acknowledged,
        "acknowledgements": [
            {"at": one.at.isoformat(), "verdict": one.verdict, "key": one.key, "body": one.body}
            for one in work.acknowledgements
        ],
        "behaviour": work.behaviour.model_dump(exclude_defaults=True),
    }


def _summary(desk: RequestHandler, journal: EventLog) -> dict[str, Any]:
    """Everything so far, in numbers."""
    works = desk.works.values()
    acknowledged = Counter(work.acknowledged for work in works)
    counts = journal.counts
    answered = {
        name.removeprefix("answered:"): count
        for name, count in sorted(counts.items())
        if name.startswith("answered:")
    }
    return {
        "effects": len(works),
        "operations": dict(Counter(work.operation for work in works)),
        "statuses": dict(Counter(work.status for work in works)),
        "requests": counts["request"],
        "answered": answered,
        "callbacks_sent": counts["callback"],
        "callbacks_lost": counts["callback_lost"],
        "callbacks_given_up": counts["callback_given_up"],
        "duplicates_sent": counts["duplicates"],
        "early": counts["early"],
        "acknowledged": {kind: acknowledged[kind] for kind in ("success", "failed")},
        "unacknowledged": acknowledged[None],
        "journal": {"kept": len(journal), "dropped": journal.dropped},
    }
