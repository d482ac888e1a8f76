"""What this process observes, on its way into the ledger: bounded memory, no lock, microseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from .totals import Count, Observed, Times


@dataclass(frozen=True)
class Grain:
    """How finely observations are kept.

    Attributes:
        width: the time that one row is about.
        kept: how long rows are kept.
    """

    width: timedelta
    kept: timedelta

    def begin(self, now: datetime) -> datetime:
        """When the bucket began that a moment lies in."""
        seconds = self.width.total_seconds()
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)


FINE: Final = Grain(timedelta(seconds=10), timedelta(minutes=15))
"""For the breaker and for people who watch."""

COARSE: Final = Grain(timedelta(minutes=5), timedelta(hours=25))
"""For learning, over up to a day: a thirtieth of the rows."""

GRAINS: Final = (FINE, COARSE)


def grain_for(since: datetime, now: datetime) -> Grain:
    """The finest rows that go back so far, and that are all there for a while yet."""
    return FINE if since >= now - FINE.kept + FINE.width else COARSE


@dataclass(frozen=True)
class Bucket:
    """Everything that one worker has observed of an operation since `begin`, for `width`."""

    provider: str
    operation: str
    width: timedelta
    begin: datetime
    observed: Observed


class Observations:
    """Notes what activities find out. For one thread: that of the event loop.

    Attributes:
        worker: who reports; new for each process, so that nobody adds to another's rows.
    """

    def __init__(self) -> None:
        self.worker = uuid4().hex
        self._pending: dict[tuple[str, str], Observed] = {}
        self._gathered: dict[tuple[str, str], Observed] = {}
        self._open: dict[tuple[str, str, timedelta], Bucket] = {}
        self._unreported: dict[tuple[str, str, timedelta, datetime], Bucket] = {}

    def count(self, provider: str, operation: str, what: Count, times: int = 1) -> None:
        """Something happened, so many times."""
        self._of(provider, operation).counts[what] += times

    def time(
        self, provider: str, operation: str, name: Times, took: timedelta, weight: int = 1
    ) -> None:
        """Something took so long; with the weight -1 that is taken back."""
        self._of(provider, operation).times[name].add(took.total_seconds(), weight)

    def gather(self, now: datetime) -> list[Bucket]:
        """What has yet to be reported, each bucket as a whole; until `reported` says it was.

        A bucket that is reported twice is the same or more: the later report takes its place.
        What could not be reported for longer than it would be kept is forgotten.
        """
        for (provider, operation), fresh in self._pending.items():
            for grain in GRAINS:
                self._add(provider, operation, grain, fresh, now)
            self._gathered.setdefault((provider, operation), Observed()).merge(fresh)
        self._pending.clear()
        self._forget(now)
        return list(self._unreported.values())

    def reported(self, buckets: Iterable[Bucket]) -> None:
        """These have reached the ledger; nothing was noted in between."""
        for one in buckets:
            self._unreported.pop((one.provider, one.operation, one.width, one.begin), None)

    def totals(self) -> dict[tuple[str, str], Observed]:
        """By provider and operation, a copy of all that was ever noted here."""
        totals: dict[tuple[str, str], Observed] = {}
        for some in (self._gathered, self._pending):
            for key, observed in some.items():
                totals.setdefault(key, Observed()).merge(observed)
        return totals

    def _of(self, provider: str, operation: str) -> Observed:
        key = (provider, operation)
        found = self._pending.get(key)
        if found is None:
            found = self._pending[key] = Observed()
        return found

    def _add(
        self, provider: str, operation: str, grain: Grain, fresh: Observed, now: datetime
    ) -> None:
        begin = grain.begin(now)
        bucket = self._open.get((provider, operation, grain.width))
        if bucket is None or bucket.begin != begin:
            bucket = Bucket(provider, operation, grain.width, begin, Observed())
            self._open[provider, operation, grain.width] = bucket
        bucket.observed.merge(fresh)
        self._unreported[provider, operation, grain.width, begin] = bucket

    def _forget(self, now: datetime) -> None:
        kept = {grain.width: grain.kept for grain in GRAINS}
        for key, bucket in list(self._unreported.items()):
            if bucket.begin + kept[bucket.width] < now:
                del self._unreported[key]
        for slot, bucket in list(self._open.items()):
            if bucket.begin + 2 * bucket.width < now:
                del self._open[slot]
