"""What holds for the whole test run."""

from __future__ import annotations

import pytest

from ackbridge.engine import leave

_status: list[int] = []


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember how the tests went."""
    _status.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave like our own processes do, or the engine's client may abort a run that has passed."""
    if _status:
        leave(_status[0])
