"""CPU time and memory of processes with all their descendants."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil
import psycopg


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """These processes and all their descendants that live, parents first; of us, only we."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if pid == os.getpid():
                found[pid] = process
                continue
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
            if process.pid != os.getpid():
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


def postmaster(url: str) -> int:
    """The process of a PostgreSQL server whose children are its connections."""
    with psycopg.connect(url) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()
