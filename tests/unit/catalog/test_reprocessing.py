"""When parked calls are reprocessed: cron expressions, intervals, and schedules in files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ackbridge.catalog.catalog import next_batch
from ackbridge.catalog.cron import Cron, next_interval
from ackbridge.catalog.loading import load_integration
from ackbridge.cli.batches import parse_start
from ackbridge.contracts.wire import InvalidInputError
from tests.support.catalog_files import problems, write

BERLIN, LONDON = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
FILE = """\
provider: acme
base_url: https://acme.example
reprocess: {reprocess}
operations:
  order:
    request: {{path: /orders}}
    response: {{mode: sync}}
"""


def at(text: str) -> datetime:
    """A time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("30 2 * * *", "2026-03-01T02:29", "2026-03-01T02:30"),
        ("30 2 * * *", "2026-03-01T02:30", "2026-03-02T02:30"),
        ("*/15 8-18 * * *", "2026-03-01T18:50", "2026-03-02T08:00"),
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("0 6 * * sun", "2026-03-02T00:00", "2026-03-08T06:00"),
        ("0 6 * * 7", "2026-03-02T00:00", "2026-03-08T06:00"),
        ("0 6 * * mon-fri", "2026-03-06T06:00", "2026-03-09T06:00"),
        ("5,10 0 1 jan,jul *", "2026-03-02T00:00", "2026-07-01T00:05"),
        ("7/20 * * * *", "2026-03-02T00:08", "2026-03-02T00:27"),
    ],
)
def test_the_next_match_of_a_cron_expression(cron: str, after: str, due: str) -> None:
    """The moment itself is not included."""
    assert Cron(cron).next(at(after), LONDON) == at(due)


def test_daylight_saving_time() -> None:
    """Local times that the clocks skip are left out."""
    night = Cron("30 2 * * *")
    assert night.next(at("2026-03-28T12:00"), BERLIN) == at("2026-03-30T00:30")
    assert night.next(at("2026-07-01T12:00"), BERLIN) == at("2026-07-02T00:30")


def test_intervals_count_from_1970() -> None:
    """So that all processes agree on them."""
    two_hours = timedelta(hours=2)
    assert next_interval(at("2026-03-01T11:59:59"), two_hours) == at("2026-03-01T12:00")
    assert next_interval(at("2026-03-01T12:00"), two_hours) == at("2026-03-01T14:00")


@pytest.mark.parametrize(
    ("cron", "complaint"),
    [
        ("30 2 * *", "must have five fields"),
        ("60 2 * * *", "minute: '60' is not from 0 to 59"),
        ("0 2-1 * * *", "hour: '2-1' matches nothing"),
        ("0 0 1 * mon", "not both"),
        ("0 0 31 2 *", "must match a day that exists"),
        ("x 0 * * *", "minute: 'x' is not from 0 to 59"),
        ("1- 0 * * *", "minute: '1-' is not a number, a name or a range"),
        ("0 0 * someday *", "month: 'someday' is not from 1 to 12"),
    ],
)
def test_invalid_cron_expressions(cron: str, complaint: str) -> None:
    """The error names the field that is wrong."""
    with pytest.raises(ValueError, match=complaint):
        Cron(cron)


@pytest.mark.parametrize(
    ("reprocess", "field", "complaint"),
    [
        ("{rate: 5}", "reprocess", "needs either cron or every"),
        ("{cron: 0 2 * * *, every: 1h}", "reprocess", "needs either cron or every"),
        ("{cron: at noon}", "reprocess.cron", "must have five fields"),
        ("{every: 1h, timezone: Moon}", "reprocess.timezone", "is not a time zone"),
        ("{every: 1h, operation: ordr}", "reprocess.operation", "Did you mean 'order'?"),
        ("{every: 1s}", "reprocess.every", "10"),
        ("{every: 1h, reason: no_reciept}", "reprocess.reason", "Did you mean 'no_receipt'?"),
    ],
)
def test_problems_of_schedules_name_the_field(
    tmp_path: Path, reprocess: str, field: str, complaint: str
) -> None:
    """As all problems of integration files."""
    (found,) = problems(tmp_path, FILE.format(reprocess=reprocess))
    assert found.field == field
    assert complaint in found.message


def test_when_a_batch_selects_a_parked_call(tmp_path: Path) -> None:
    """At the latest, by the schedule; unknown if the schedule may skip it."""
    text = FILE.format(reprocess="{every: 1h, jitter: 5m, older_than: 30m, reason: no_receipt}")
    integration = load_integration(write(tmp_path, text), {})
    now = at("2026-03-01T11:45")
    assert next_batch(integration, "order", now, "no_receipt") == at("2026-03-01T13:05")
    assert next_batch(integration, "order", now, "no_response") is None
    assert next_batch(integration, "order", now) is None
    plain = load_integration(write(tmp_path, FILE.format(reprocess="{every: 1h}")), {})
    assert next_batch(plain, "order", now) == at("2026-03-01T12:00")
    none = load_integration(write(tmp_path, FILE.format(reprocess="null")), {})
    assert next_batch(none, "order", now) is None


def test_times_on_the_command_line() -> None:
    """A time of day is the next one on the machine's clock; dates may have a zone."""
    now = datetime(2026, 3, 1, 3, 0, tzinfo=BERLIN)
    assert parse_start("02:00", now) == datetime(2026, 3, 2, 2, 0, tzinfo=BERLIN)
    assert parse_start("04:30", now) == datetime(2026, 3, 1, 4, 30, tzinfo=BERLIN)
    assert parse_start("2026-04-01T02:00", now) == datetime(2026, 4, 1, 2, 0, tzinfo=BERLIN)
    assert parse_start("2026-04-01T02:00Z", now) == at("2026-04-01T02:00")
    with pytest.raises(InvalidInputError, match="--at"):
        parse_start("at night", now)
