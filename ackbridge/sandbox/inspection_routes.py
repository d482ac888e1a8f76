"""Routes for tests: `/_events`, `/_works`, `/_summary`, `/_mood` and `/_hurry`."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from .event_log import EventLog, key_fields
from .outage_mode import OutageMode, OutageState
from .provider_dialect import Job
from .request_handler import RequestHandler

After = Annotated[int, Query(ge=0)]
Limit = Annotated[int | None, Query(ge=1)]

INSPECTION_PREFIX: Final = "/_"
"""Of the paths of all of them."""


def inspection_routes(
    handler: RequestHandler, event_log: EventLog, outage: OutageMode
) -> APIRouter:
    """The routes; they need no credentials."""
    routes = APIRouter()

    @routes.get("/_events")
    async def events(
        call_id: str | None = None,
        work: str | None = None,
        kind: str | None = None,
        after: After = 0,
        limit: Limit = None,
    ) -> list[dict[str, Any]]:
        return event_log.find(call_id=call_id, work=work, kind=kind, after=after, limit=limit)

    @routes.get("/_works")
    async def works(
        call_id: str | None = None, after: After = 0, limit: Limit = None
    ) -> list[dict[str, Any]]:
        jobs = handler.jobs.values() if call_id is None else handler.jobs_of_call(call_id)
        wanted = (job for job in jobs if job.number > after)
        return [_job_document(job) for job in islice(wanted, limit)]

    @routes.get("/_summary")
    async def summary() -> dict[str, Any]:
        return _summary(handler, event_log)

    @routes.post("/_hurry")
    async def skip_delays(call_id: str) -> None:
        handler.skip_delays(call_id)

    @routes.get("/_mood")
    async def outage_state() -> OutageState:
        return outage.current

    @routes.put("/_mood")
    async def set_outage_state(state: OutageState) -> OutageState:
        outage.current = state
        return state

    return routes


def _job_document(job: Job) -> dict[str, Any]:
    return {
        "number": job.number,
        "id": job.id,
        "operation": job.operation,
        **key_fields(job.key, job.call_id),
        "status": job.status,
        "acknowledged": job.acknowledged,
        "acknowledgements": [
            {"at": one.at.isoformat(), "verdict": one.verdict, "key": one.key, "body": one.body}
            for one in job.acknowledgements
        ],
        "behaviour": job.behaviour.model_dump(exclude_defaults=True),
    }


def _summary(handler: RequestHandler, event_log: EventLog) -> dict[str, Any]:
    jobs = handler.jobs.values()
    acknowledged = Counter(job.acknowledged for job in jobs)
    counts = event_log.counts
    answered = {
        name.removeprefix("answered:"): count
        for name, count in sorted(counts.items())
        if name.startswith("answered:")
    }
    return {
        "effects": len(jobs),
        "operations": dict(Counter(job.operation for job in jobs)),
        "statuses": dict(Counter(job.status for job in jobs)),
        "requests": counts["request"],
        "answered": answered,
        "callbacks_sent": counts["callback"],
        "callbacks_lost": counts["callback_lost"],
        "callbacks_given_up": counts["callback_given_up"],
        "duplicates_sent": counts["duplicates"],
        "early": counts["early"],
        "acknowledged": {kind: acknowledged[kind] for kind in ("success", "failed")},
        "unacknowledged": acknowledged[None],
        "journal": {"kept": len(event_log), "dropped": event_log.dropped},
    }
