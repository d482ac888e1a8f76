"""The view of what waits for a provider."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from ackbridge.cli.queue import HeldBack, HeldBackCount, QueueView, _breakers, render
from ackbridge.client.queues import QueueStatus, time_to_empty
from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import ControlSnapshot, IntegrationFlags

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("waiting", "oldest", "limit", "taken", "seconds"),
    [
        (0, 0, 0, 0.0, 0),
        (10, 5, 0, 3.0, None),
        (10, 5, 2.0, 0.1, 5),
        (10, 60, 2.0, 0.1, 100),
        (10, 60, 2.0, 50.0, 5),
        (10, 5, None, 2.5, 4),
        (10, 5, None, 0.0, None),
    ],
)
def test_when_the_last_one_goes(
    waiting: int, oldest: float, limit: float | None, taken: float, seconds: float | None
) -> None:
    """By the limit, until the measured rate is of a time in which requests have waited."""
    found = time_to_empty(waiting, timedelta(seconds=oldest), limit, taken)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


def test_fits_into_80_columns() -> None:
    """But for ids, which are not broken."""
    sends = QueueStatus(
        queue="ackbridge.provider",
        waiting=12_345,
        oldest=timedelta(minutes=3),
        added=123.456,
        taken=0.5,
        limit=0.5,
        empty_in=timedelta(hours=7),
    )
    view = QueueView(
        provider="provider",
        queues=(sends, sends.model_copy(update={"limit": 0})),
        breaker="closed: no failures",
        breakers={"pay": "open: 10 of 20 calls failed within 30 s; pause of 30 s"},
        counts=(
            HeldBackCount(waits_for="breaker", code="breaker_open", calls=40, oldest=AT),
            HeldBackCount(waits_for="lease", calls=2, oldest=AT),
        ),
        calls=(
            HeldBack(call="provider.pay.1", waits_for="operator", since=AT, quarantined=True),
            HeldBack(call="provider.pay.2", waits_for="breaker", since=AT, code="breaker_open"),
        ),
    )
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render(view))
    shown = capture.get()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    for text in ("12345", "in 7 h", "stopped", "42 calls are held back", "provider.pay.1"):
        assert text in shown
    assert "breaker of provider.pay: open: 10 of 20" in shown
    assert "No worker polls a queue in which requests wait." in shown
    assert "and 40 more: --limit 42" in shown


def test_nothing_waits_and_the_engine_is_away() -> None:
    """The ledger's part is shown all the same."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render(QueueView(provider="acme", problem="no engine at localhost:7233")))
    assert "not known: no engine" in capture.get()
    assert "No calls are held back." in capture.get()


def test_breakers_of_operations_are_shown() -> None:
    """Calls that wait for one were listed below a breaker of the provider that is closed."""
    snapshot = ControlSnapshot.initial("acme", IntegrationFlags(), AT)
    open_since = BreakerStatus.initial(AT).model_copy(
        update={"state": BreakerState.OPEN, "reason": "10 of 20 calls failed"}
    )
    breakers = {"pay": open_since, "ask": BreakerStatus.initial(AT)}
    shown = _breakers(snapshot.model_copy(update={"breakers": breakers}))
    assert shown["breaker"].startswith("closed")
    assert shown["breakers"] == {"pay": "open: 10 of 20 calls failed"}
