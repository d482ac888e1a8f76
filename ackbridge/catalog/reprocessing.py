"""When parked calls of a provider are taken up again by themselves, and which."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from ackbridge.contracts.batches import BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.wire import Duration

from .cron import Cron, next_interval
from .fields import FilePart, Name, Positive

SCHEDULE = "schedule"
"""Who wants a scheduled batch."""


def _cron(value: object) -> Cron:
    if not isinstance(value, str):
        raise ValueError("must be a text such as '30 2 * * *'")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
    return Cron(value)


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (OSError, ValueError, KeyError):
        raise ValueError("is not a time zone such as UTC or Europe/Berlin") from None


class Reprocessing(FilePart):
    """Batches that take parked calls up again by themselves, at these times.

    A batch that is due while the last one still runs is left out.
    """

    cron: (
        Annotated[
            Cron,
            PlainValidator(_cron),
            PlainSerializer(str, return_type=str),
            WithJsonSchema({"type": "string", "examples": ["30 2 * * *", "*/15 8-18 * * mon-fri"]}),
        ]
        | None
    ) = None
    """Minute, hour, day of the month, month, day of the week."""
    every: Annotated[Positive, Field(ge=timedelta(seconds=10))] | None = None
    """Or an interval, from 1970 on."""
    timezone: Annotated[
        ZoneInfo, PlainValidator(_zone), WithJsonSchema({"type": "string", "default": "UTC"})
    ] = Field(default=ZoneInfo("UTC"))
    """Which clock `cron` means."""
    jitter: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(0)
    """Each batch begins up to so much later."""
    operation: Name | None = None
    """Only calls of this operation."""
    reason: str | None = Field(default=None, min_length=1, max_length=64)
    """Only calls that are parked for this reason, such as `no_response`."""
    older_than: Positive | None = None
    """Only calls that have been parked for so long."""
    at_most: int | None = Field(default=None, ge=1)
    """How many calls, the oldest first."""
    rate: float = Field(default=5.0, gt=0, le=1000)
    """Calls per second."""
    concurrency: int = Field(default=20, ge=1, le=1000)
    """How many calls may be under way at once."""
    ramp: Ramp | None = None
    """A low rate at first."""

    def next(self, after: datetime) -> datetime | None:
        """When the first batch after a moment is due."""
        if self.cron is not None:
            return self.cron.next(after, self.timezone)
        return next_interval(after, self.every) if self.every is not None else None

    def takes_up(self, operation: str, parked_at: datetime, reason: str | None) -> datetime | None:
        """When a batch takes up a call that is parked at a moment; None: none, as far as known.

        Args:
            reason: why it is parked, if that is known.
        """
        is_ours = self.operation in (None, operation) and self.reason in (None, reason)
        due = self.next(parked_at + (self.older_than or timedelta(0))) if is_ours else None
        return due and due + self.jitter

    def request(self, provider: str) -> BatchRequest:
        """What such a batch is asked to do."""
        return BatchRequest(
            selection=ParkedSelection(
                provider=provider,
                operation=self.operation,
                reason=self.reason,
                older_than=self.older_than,
                at_most=self.at_most,
            ),
            rate=self.rate,
            concurrency=self.concurrency,
            ramp=self.ramp,
            by=SCHEDULE,
        )


class Again(FilePart):
    """What becomes of a parked call that is taken up again, and fails again."""

    attempts: int = Field(default=24, ge=1, le=10000)
    """How often it is taken up before it ends as failed; until then it is parked again."""
