"""The clock as a dependency, which tests and virtual clocks replace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the current time, aware, in UTC."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
