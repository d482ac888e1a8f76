"""The delay before a retry: Retry-After, or exponential backoff with jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ackbridge.http.retry_after import parse_retry_after
from activities.support.retry import retry_delay

NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        (None, None),
        ("7", timedelta(seconds=7)),
        ("0.5", timedelta(seconds=0.5)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("-5", timedelta(0)),
        ("99999", HOUR),
        ("1e300", HOUR),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("30, 30", timedelta(seconds=30)),
        ("30,60", timedelta(seconds=60)),
        ("Sun, 06 Nov 1994 08:50:07 GMT, Sun, 06 Nov 1994 08:50:08 GMT", timedelta(seconds=31)),
        ("30, Sun, 06 Nov 1994 08:49:38 GMT", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 08:50:07 GMT, 7", timedelta(seconds=30)),
        ("1994-11-06T08:50:07Z", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 08:50:07 GMT", timedelta(seconds=30)),
        ("Sunday, 06-Nov-94 08:50:07 GMT", timedelta(seconds=30)),
        ("Sun Nov  6 08:50:07 1994", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 09:50:07 +0100", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 08:50:07 -0000", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 08:49:07 GMT", timedelta(0)),
        ("Sun, 06 Nov 2094 08:49:37 GMT", HOUR),
        ('"7"', timedelta(seconds=7)),
        ("7s", timedelta(seconds=7)),
        ("7 Seconds", timedelta(seconds=7)),
        ("500ms", timedelta(seconds=0.5)),
        ("5m", timedelta(minutes=5)),
        ("7 sheep", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, delay: timedelta | None) -> None:
    """The past is now, more than an hour is an hour, an invalid value is None."""
    assert delay == parse_retry_after(value, NOW)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.5), (2, 1), (3, 2), (10, 256), (11, 300), (10_000, 300)]
)
def test_backoff_has_jitter(attempt: int, seconds: float) -> None:
    """Half a second, doubled up to five minutes, of which jitter takes away up to a half."""
    delays = [retry_delay(attempt).total_seconds() for _ in range(200)]

    assert all(seconds / 2 <= delay <= seconds for delay in delays)
    assert len(set(delays)) > 150
    assert max(delays) - min(delays) > seconds / 5


def test_retry_after_is_honoured() -> None:
    """Never earlier, and up to a tenth later, whatever the attempt."""
    for attempt in (1, 20):
        delays = [retry_delay(attempt, timedelta(seconds=40)).total_seconds() for _ in range(200)]
        assert all(40 <= delay <= 44 for delay in delays)
        assert len(set(delays)) > 150


def test_retry_after_zero_is_no_busy_loop() -> None:
    """The engine would also take a delay of 0 for none."""
    assert all(0.25 <= retry_delay(1, timedelta(0)).total_seconds() <= 0.5 for _ in range(100))
