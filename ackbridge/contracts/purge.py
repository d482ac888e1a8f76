"""Housekeeping: how long the ledger keeps what is over, and how far a clean-up is."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from .limits import Actor
from .wire import Duration, StrictModel, Wire

MIN_RETENTION: Final = timedelta(days=1)
"""What is kept at all is kept longer than anything that could still ask for it is under way."""

KEEP_FOREVER: Final = timedelta(0)


def _kept(value: timedelta) -> timedelta:
    if value != KEEP_FOREVER and value < MIN_RETENTION:
        raise ValueError("at least 1d, or 0 to keep it for ever")
    return value


RetentionPeriod = Annotated[Duration, AfterValidator(_kept)]
"""How long; zero is for ever."""


class Retention(StrictModel):
    """How long the ledger keeps what is over; zero is for ever.

    Attributes:
        calls: calls that are over, with their claim, outcome, response, references and
            acknowledgements; counted from their last change. At least the namespace's retention.
        events: which events of providers were applied; counted from then. At least as long as
            calls, so that a late duplicate does not become the response of a reused id.
        inbox: messages that were delivered, or were duplicates.
        held: messages that are kept for people.
        log: what was suppressed, and why.
        notices: notices that were delivered.
        dead_notices: notices that were not, and could be replayed.
        batches: which batch has taken which call.
    """

    calls: RetentionPeriod = timedelta(days=90)
    events: RetentionPeriod = timedelta(days=180)
    inbox: RetentionPeriod = timedelta(days=30)
    held: RetentionPeriod = timedelta(days=365)
    log: RetentionPeriod = timedelta(days=90)
    notices: RetentionPeriod = timedelta(days=30)
    dead_notices: RetentionPeriod = timedelta(days=365)
    batches: RetentionPeriod = timedelta(days=90)

    @model_validator(mode="after")
    def _events_outlive_calls(self) -> Self:
        if KEEP_FOREVER not in (self.calls, self.events) and self.events < self.calls:
            raise ValueError("events: they are kept at least as long as calls")
        return self


class PurgeRequest(StrictModel):
    """The one argument of the workflow `PurgeLedger`.

    Attributes:
        by: who wants it.
    """

    retention: Retention = Retention()
    by: Actor


class PurgeCursor(Wire):
    """Where a clean-up is.

    Attributes:
        kind: what it goes through: `calls`, `events`, ...
        after: the key of the last row it has seen, as it is stored; none at the beginning.
    """

    kind: str
    after: tuple[str | int, ...] = ()


class PurgeProgress(Wire):
    """How far a clean-up is: the query `progress`, the result, and what it takes along.

    Attributes:
        as_of: the ledger's time from which ages are counted; None before the first page.
        place: where it goes on; None once it is done, or before it has begun.
        gone: how many rows of which kind are deleted, or would be; at least so many, when a page's
            worker has died.
        is_done: it has been through the whole ledger.
    """

    by: str
    started_at: AwareDatetime
    as_of: AwareDatetime | None = None
    place: PurgeCursor | None = None
    gone: dict[str, int] = Field(default_factory=dict)
    is_done: bool = False


class PurgeStep(Wire):
    """Clean up for some seconds."""

    retention: Retention
    as_of: AwareDatetime | None = None
    place: PurgeCursor | None = None


class PurgePageResult(Wire):
    """What one page has done.

    Attributes:
        place: where to go on; None: that was all.
    """

    as_of: AwareDatetime
    place: PurgeCursor | None
    gone: dict[str, int]
