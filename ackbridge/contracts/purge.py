"""Purging the ledger: how long it keeps records, and the progress of a purge."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from .limits import Actor
from .wire import Duration, StrictModel, Wire

MIN_RETENTION: Final = timedelta(days=1)
"""Longer than any call or delivery in progress can still refer to a record."""

KEEP_FOREVER: Final = timedelta(0)


def _check_period(value: timedelta) -> timedelta:
    if value != KEEP_FOREVER and value < MIN_RETENTION:
        raise ValueError("must be at least 1d, or 0 to keep records for ever")
    return value


RetentionPeriod = Annotated[Duration, AfterValidator(_check_period)]
"""How long records are kept; zero is for ever."""


class Retention(StrictModel):
    """How long the ledger keeps records; zero is for ever.

    Attributes:
        calls: calls that have ended, with claim, outcome, response, references and
            acknowledgements, since their last change. At least the namespace's retention.
        events: keys of applied events. At least as long as calls, so that a late duplicate does not
            become the response of a reused id.
        inbox: messages that were delivered, are duplicates, discarded or unclassified.
        held: messages held for an operator.
        log: suppressed messages.
        notices: delivered notices.
        dead_notices: dead letters, which can be replayed.
        batches: which batch selected which call.
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
            raise ValueError("events: must be kept at least as long as calls")
        return self


class PurgeRequest(StrictModel):
    """The one argument of the workflow `PurgeLedger`."""

    retention: Retention = Retention()
    by: Actor


class PurgeCursor(Wire):
    """The position of a purge.

    Attributes:
        kind: the kind of records: `calls`, `events`, ...
        after: the primary key of the last row it has read; empty at the start.
    """

    kind: str
    after: tuple[str | int, ...] = ()


class PurgeProgress(Wire):
    """The result of the query `progress` and of the workflow, and the state that it continues with.

    Attributes:
        as_of: the ledger's time from which ages are counted; None before the first page.
        place: where the next page starts; None before the first page and when it is done.
        gone: rows deleted by kind, or to be deleted in a dry run. A lower bound: the rows of a page
            whose worker was lost are not counted.
    """

    by: str
    started_at: AwareDatetime
    as_of: AwareDatetime | None = None
    place: PurgeCursor | None = None
    gone: dict[str, int] = Field(default_factory=dict)
    is_done: bool = False


class PurgeStep(Wire):
    """The argument of `purge_page`: delete expired records for some seconds."""

    retention: Retention
    as_of: AwareDatetime | None = None
    place: PurgeCursor | None = None


class PurgePageResult(Wire):
    """The result of `purge_page`.

    Attributes:
        place: where the next page starts; None after the last one.
    """

    as_of: AwareDatetime
    place: PurgeCursor | None
    gone: dict[str, int]
