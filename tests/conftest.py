"""What holds for the whole test run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import pytest

from ackbridge.workarounds.process_exit import exit_process

LONGEST_FIRST = (
    "test_kill.py",
    "test_upgrade.py",
    "test_wheel.py",
    "test_demo.py",
    "test_conformance.py",
    "test_flags_under_load.py",
    "test_two_workers.py",
    "test_breaker_engine.py",
    "test_chaos_smoke.py",
    "test_outage_smoke.py",
    "test_batch_kill.py",
    "test_cli.py",
    "test_batches.py",
)
"""Files whose tests wait for processes to die and come back: begun first, others fill the gaps."""

PATIENCE = 240
"""Seconds an asynchronous test may take; `faulthandler_timeout` ends what does not hear of it."""

_status: list[int] = []
P = ParamSpec("P")


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start.

    Whoever runs us in the background of a shell has it ignored, and every process that we start
    would inherit that: those that wait for an interrupt would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one at the end.

    And none waits for ever: a test that asks again and again fails at the line where it waits.
    """
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    @functools.wraps(test)
    async def within(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(PATIENCE):
            await test(*args, **kwargs)

    return within


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember how the tests went."""
    _status.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave like our own processes do, or the engine's client may abort a run that has passed."""
    if _status:
        exit_process(_status[0])
