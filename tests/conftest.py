"""Hooks for the whole test run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import pytest
from hypothesis import HealthCheck, settings

from ackbridge.workarounds.temporal_sdk import exit_process

TEST_TIMEOUT = 240
"""Seconds an asynchronous test may take; `faulthandler_timeout` ends what does not hear of it."""
SLOW_SECONDS = 20
"""A test that takes longer, with its fixtures, belongs into a module that is marked `slow`."""

_status: list[int] = []
P = ParamSpec("P")

# How long an example takes depends on what else the machine does.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell that runs pytest in the background has SIGINT ignored. Child processes would inherit
    that, and those that wait for an interrupt would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, and end each test that waits for ever where it waits.

    A file runs in one process: slow ones that came last would leave the other processes idle.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    @functools.wraps(test)
    async def within(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(TEST_TIMEOUT):
            await test(*args, **kwargs)

    return within


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the slow tests that are not marked, so that they are not begun last."""
    took: defaultdict[str, float] = defaultdict(float)
    marked = set()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            took[report.nodeid] += report.duration
            if "slow" in report.keywords:
                marked.add(report.nodeid)
    for test, seconds in took.items():
        if seconds > SLOW_SECONDS and test not in marked:
            terminalreporter.line(f"took {seconds:.0f} s, and is not marked slow: {test}")


def pytest_sessionfinish(exitstatus: int) -> None:
    """Store the exit status for `pytest_unconfigure`."""
    _status.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Exit like our own processes, or the engine's client may abort a run that has passed."""
    if _status:
        exit_process(_status[0])
