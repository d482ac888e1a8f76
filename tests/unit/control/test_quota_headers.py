"""Rate-limit headers, as providers send them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ackbridge.control.quota_headers import read_statement

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IN_30_S = NOW + timedelta(seconds=30)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            id="draft 10",
        ),
        pytest.param(
            {
                "ratelimit": '"day";r=9000;t=30, "burst";r=50;t=30',
                "ratelimit-policy": '"burst";q=100;w=60,"day";q=10000;w=86400',
            },
            id="several policies",
        ),
        pytest.param({"ratelimit": "limit=100, remaining=50, reset=30"}, id="draft 7"),
        pytest.param(
            {
                "ratelimit-limit": "100, 100;w=60",
                "ratelimit-remaining": "50",
                "ratelimit-reset": "30",
            },
            id="draft 3",
        ),
        pytest.param(
            {
                "x-ratelimit-limit": "100",
                "x-ratelimit-remaining": "50",
                "x-ratelimit-reset": str(int(IN_30_S.timestamp())),
            },
            id="unix time",
        ),
        pytest.param(
            {
                "x-rate-limit-limit": "100",
                "x-rate-limit-remaining": "50",
                "x-rate-limit-reset": str(int(IN_30_S.timestamp() * 1000)),
            },
            id="milliseconds",
        ),
        pytest.param(
            {
                "x-ratelimit-limit": "100",
                "x-ratelimit-remaining": "50",
                "x-ratelimit-reset": "2026-03-01T12:00:30Z",
            },
            id="ISO 8601",
        ),
        pytest.param(
            {
                "x-ratelimit-limit": "100",
                "x-ratelimit-remaining": "50",
                "x-ratelimit-reset": "Sun, 01 Mar 2026 12:00:30 GMT",
            },
            id="HTTP date",
        ),
    ],
)
def test_usual_headers(headers: dict[str, str]) -> None:
    """Fifty of a hundred requests are left for thirty seconds."""
    found = read_statement(headers, NOW)
    assert found is not None
    assert (found.remaining, found.limit, found.resets_at) == (50, 100, IN_30_S)


def test_named_headers() -> None:
    """A file may name headers of its own."""
    headers = {"quota-left": "7", "quota-new-in": "30"}
    found = read_statement(headers, NOW, ("Quota-Left", "Quota-New-In", None))
    assert found is not None
    assert (found.remaining, found.limit, found.resets_at) == (7, None, IN_30_S)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining": "many", "x-ratelimit-reset": "30"},
        {"x-ratelimit-remaining": "5"},
        {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "yesterday"},
        {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "0"},
        {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "9" * 400},
        {"ratelimit": ";;=,", "ratelimit-policy": "\x00"},
    ],
)
def test_useless_headers(headers: dict[str, str]) -> None:
    """What cannot be read says nothing."""
    assert read_statement(headers, NOW) is None
