"""Read the header Retry-After."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ackbridge.contracts.wire import parse_duration

MAX_RETRY_AFTER = timedelta(hours=1)
"""A Retry-After is honoured up to this."""

# The header may be repeated, and HTTP dates contain commas themselves.
_NEXT_VALUE = re.compile(r",\s*(?=[-+\d.]+\s*(?:,|$)|[A-Za-z]{3,9},)")
_SECONDS = re.compile(r"\s*(?:seconds?|secs?)$", re.IGNORECASE)


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Parse a Retry-After header; None when it is absent or invalid.

    Besides seconds and HTTP dates, servers send ISO 8601, and seconds in quotes or with a unit.

    Args:
        value: repeated headers are joined with commas; the longest delay counts.
    """
    if value is None:
        return None
    found = [_seconds_until(part.strip(' "'), now) for part in _NEXT_VALUE.split(value)]
    seconds = [one for one in found if one is not None and math.isfinite(one)]
    if not seconds:
        return None
    return timedelta(seconds=min(max(*seconds, 0), MAX_RETRY_AFTER.total_seconds()))


def _seconds_until(value: str, now: datetime) -> float | None:
    try:
        return float(value)
    except ValueError:
        moment = _moment(value)
    if moment is None:
        return _duration(value)
    # HTTP dates are in UTC, with or without a zone.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now).total_seconds()


def _duration(value: str) -> float | None:
    try:
        span = parse_duration(_SECONDS.sub("s", value))
    except ValueError:
        return None
    return span.total_seconds() if isinstance(span, timedelta) else None


def _moment(value: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(value)
        except (ValueError, TypeError, OverflowError):
            continue
    return None
