"""Cron expressions and intervals: when a scheduled batch is due. Pure.

Schedules in Temporal are built from the parsed fields, so that both mean the same times.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_RANGE = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")
_YEARS: Final = 9
"""How many years are searched for a date: a 29 February can be eight years away."""


@dataclass(frozen=True)
class _Field:
    attribute: str
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_WEEKDAY: Final = _Field("weekdays", "day of the week", 0, 7, _DAYS)
_FIELDS: Final = (
    _Field("minutes", "minute", 0, 59),
    _Field("hours", "hour", 0, 23),
    _Field("days", "day of the month", 1, 31),
    _Field("months", "month", 1, 12, ("", *_MONTHS)),
    _WEEKDAY,
)


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields: minute, hour, day of the month, month, day of the week.

    Attributes:
        text: the expression, as in the file.
        minutes, hours, days, months, weekdays: the numbers it matches, sorted; Sunday is 0.

    Raises:
        ValueError: the text is not valid; says what is wrong.
    """

    text: str
    minutes: tuple[int, ...] = field(init=False)
    hours: tuple[int, ...] = field(init=False)
    days: tuple[int, ...] = field(init=False)
    months: tuple[int, ...] = field(init=False)
    weekdays: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        parts = self.text.lower().split()
        if len(parts) != len(_FIELDS):
            raise ValueError("must have five fields: minute hour day month weekday")
        if parts[2] != "*" and parts[4] != "*":
            # In cron one of them has to match, in Temporal both have to.
            raise ValueError("must restrict the day of the month or of the week, not both")
        for part, of in zip(parts, _FIELDS, strict=True):
            numbers = {number % 7 if of is _WEEKDAY else number for number in _numbers(part, of)}
            object.__setattr__(self, of.attribute, tuple(sorted(numbers)))
        longest = max(29 if month == 2 else monthrange(2025, month)[1] for month in self.months)
        if self.days[0] > longest:
            raise ValueError("must match a day that exists")

    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        """The first match after a moment, in UTC."""
        # Cached, because it is computed for every call and is the same for a whole minute.
        return _next(self, after.replace(second=0, microsecond=0), zone)

    def on(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        """The matches of a day, in UTC."""
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), zone)
                moment = local.astimezone(UTC)
                # In spring, local times that the clocks skip do not exist.
                if moment.astimezone(zone).time() == local.time():
                    yield moment


@lru_cache(maxsize=256)
def _next(cron: Cron, after: datetime, zone: ZoneInfo) -> datetime:
    today = after.astimezone(zone).date()
    for day in _days_from(today, cron.months, cron.days, cron.weekdays):
        for moment in cron.on(day, zone):
            if moment > after:
                return moment
    raise ValueError(f"{cron.text} matches no day in the next {_YEARS} years")


def next_interval(after: datetime, every: timedelta) -> datetime:
    """The first multiple of the interval, counted from 1970-01-01T00:00Z, after a moment."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((after - epoch) // every + 1) * every


def _numbers(text: str, of: _Field) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"{of.name}: {part!r} is not a number, a name or a range")
        step = int(found["step"] or 1)
        first, last = _bounds(found, of)
        if step < 1 or first > last:
            raise ValueError(f"{of.name}: {part!r} matches nothing")
        numbers |= set(range(first, last + 1, step))
    return numbers


def _bounds(found: re.Match[str], of: _Field) -> tuple[int, int]:
    if found["first"] == "*":
        # 7 is Sunday too.
        return of.first, 6 if of is _WEEKDAY else of.last
    first = _number(found["first"], of)
    if found["last"] is not None:
        return first, _number(found["last"], of)
    return first, of.last if found["step"] else first


def _number(text: str, of: _Field) -> int:
    if text in of.names and text:
        return of.names.index(text)
    if not text.isascii() or not text.isdigit() or not of.first <= int(text) <= of.last:
        raise ValueError(f"{of.name}: {text!r} is not from {of.first} to {of.last}")
    return int(text)


def _days_from(
    day: date, months: tuple[int, ...], days: tuple[int, ...], weekdays: tuple[int, ...]
) -> Iterator[date]:
    for year in range(day.year, day.year + _YEARS):
        for month in months:
            length = monthrange(year, month)[1]
            for number in days:
                if number > length:
                    break
                found = date(year, month, number)
                if found >= day and found.isoweekday() % 7 in weekdays:
                    yield found
