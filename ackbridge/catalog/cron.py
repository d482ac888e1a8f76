"""When a scheduled batch begins: a cron expression or an interval. Pure.

The engine is given what is read here, field by field, so that both mean the same.
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
_PART = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")
_ATTRIBUTES: Final = ("minutes", "hours", "days", "months", "weekdays")
_YEARS: Final = 9
"""How far to look for a date: a 29 February may be eight years away."""


@dataclass(frozen=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("", *_MONTHS)),
    _Field("day of the week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields: minute, hour, day of the month, month, day of the week.

    Attributes:
        text: as it is written in the file.
        minutes, hours, days, months, weekdays: what it matches, in order; Sunday is 0.
    """

    text: str
    minutes: tuple[int, ...] = field(init=False)
    hours: tuple[int, ...] = field(init=False)
    days: tuple[int, ...] = field(init=False)
    months: tuple[int, ...] = field(init=False)
    weekdays: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the text.

        Raises:
            ValueError: saying what is wrong with it.
        """
        parts = self.text.lower().split()
        if len(parts) != len(_FIELDS):
            raise ValueError("must have five fields: minute hour day month weekday")
        if parts[2] != "*" and parts[4] != "*":
            # Cron means either of them, most people and the engine mean both.
            raise ValueError("must restrict the day of the month or of the week, not both")
        read = [_numbers(part, one) for part, one in zip(parts, _FIELDS, strict=True)]
        read[4] = {number % 7 for number in read[4]}
        for name, numbers in zip(_ATTRIBUTES, read, strict=True):
            object.__setattr__(self, name, tuple(sorted(numbers)))
        longest = max(29 if month == 2 else monthrange(2025, month)[1] for month in self.months)
        if self.days[0] > longest:
            raise ValueError("must match a day that exists")

    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        """The first moment after another one that matches, in UTC."""
        # Every call asks, and the answer is the same for a whole minute.
        return _next(self, after.replace(second=0, microsecond=0), zone)

    def on(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        """The moments of a day, in UTC."""
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), zone)
                moment = local.astimezone(UTC)
                # An hour that the clocks skip in spring does not come.
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
    """The first moment after another one that is a multiple of the interval since 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((after - epoch) // every + 1) * every


def _numbers(text: str, of: _Field) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(f"{of.name}: {part!r} does not read")
        step = int(found["step"] or 1)
        first, last = _range(found, of)
        if step < 1 or first > last:
            raise ValueError(f"{of.name}: {part!r} matches nothing")
        numbers |= set(range(first, last + 1, step))
    return numbers


def _range(found: re.Match[str], of: _Field) -> tuple[int, int]:
    if found["first"] == "*":
        # 7 is another name of Sunday.
        return of.first, min(of.last, 6) if of.names and of.first == 0 else of.last
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
