"""Processes with all their descendants: what they use, and how they are kept quiet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """These processes and all their descendants that live, parents first."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for member in (process, *process.children(recursive=True)):
                found[member.pid] = member
    return list(found.values())


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of a family, with that of its members that have ended."""
    total = 0.0
    for process in family(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            # Of descendants that have ended: a server's connections, say.
            total += times.children_user + times.children_system
    return total


def memory(pids: Iterable[int]) -> float:
    """MiB; what several members share is divided among them where the system tells."""
    members = family(pids)
    total = 0
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            full = process.memory_full_info() if len(members) > 1 else process.memory_info()
            total += getattr(full, "pss", full.rss)
    return total / 2**20


@contextmanager
def at_rest(everybody: Iterable[int], but: Iterable[int]) -> Iterator[None]:
    """Stop the families of everybody (SIGSTOP) but those; let them go on afterwards."""
    working = {process.pid for process in family(but)}
    resting = [process for process in family(everybody) if process.pid not in working]
    try:
        for process in resting:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in reversed(resting):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
