"""`make fuzz`: fuzz for some minutes; ends with 1, the seed and the input at the first finding."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from .gateway import Gateway, running_gateway
from .mutation import Source
from .parsers import Target, targets

MAX_SECONDS = 5.0
"""CPU time of one input."""
HANGS_AFTER = 60
"""Seconds; then the stack is printed and the process ends."""
MAX_SHOWN = 3000
"""Characters of a finding."""
WARM_UP = 0.1
"""The part of the run after which memory must not grow any more."""
MAX_GROWTH = 200 * 1024 * 1024
"""Bytes."""
MAX_FILES = 50
"""File descriptors by which an idle gateway may have grown."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"fuzzing for {options.seconds:g} s, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = fuzz_parsers(Path(folder), options.seed, options.seconds / 2)
            done += fuzz_gateway(Path(folder), options.seed, options.seconds / 2)
        except AssertionError as finding:
            print(f"seed {options.seed}: {str(finding)[:MAX_SHOWN]}", file=sys.stderr)
            return 1
    for name, times in sorted(done.items()):
        print(f"{times:9,} {name}")
    return 0


def fuzz_parsers(folder: Path, seed: int, seconds: float) -> Counter[str]:
    """Run all targets in turn.

    Raises:
        AssertionError: an error that is not documented, or too much time or memory.
    """
    done: Counter[str] = Counter()
    spent = dict.fromkeys(targets(folder), 0.0)
    growth = Growth(lambda: psutil.Process().memory_info().rss, seconds)
    while growth.goes_on():
        number = done.total()
        # The same time for each.
        target = min(spent, key=lambda one: spent[one])
        # A seed of its own, so that a finding can be repeated alone.
        spent[target] += _run(target, seed * 1_000_000_007 + number)
        done[target.name] += 1
    return done


def fuzz_gateway(folder: Path, seed: int, seconds: float) -> Counter[str]:
    """Send requests, as `fuzz_parsers`."""
    done: Counter[str] = Counter()
    with running_gateway(folder) as gateway:
        files = gateway.files
        growth = Growth(lambda: gateway.memory, seconds)
        while growth.goes_on():
            number = done.total()
            status = gateway.send(Source(seed * 1_000_000_007 + number))
            done[f"gateway: {status or 'closed'}"] += 1
            if number % 100 == 0:
                gateway.check()
        _check_files(gateway, files)
    return done


def _run(target: Target, seed: int) -> float:
    """Run a target once; returns the CPU time in seconds."""
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    started = time.process_time()
    try:
        target.run(Source(seed))
    except target.allowed:
        pass
    except Exception as error:
        raise AssertionError(f"{target.name}, source {seed}: {error!r}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    if (spent := time.process_time() - started) > MAX_SECONDS:
        raise AssertionError(f"{target.name}, source {seed}: {spent:.1f} s")
    return spent


def _check_files(gateway: Gateway, before: int) -> None:
    time.sleep(1)
    if gateway.files > before + MAX_FILES:
        raise AssertionError(f"{gateway.files} open files, {before} at first")


class Growth:
    """Ends after some seconds, and fails if the memory has grown since the warm-up."""

    def __init__(self, memory: Callable[[], int], seconds: float) -> None:
        self._memory = memory
        self._started = time.monotonic()
        self._seconds = seconds
        self._first: int | None = None

    def goes_on(self) -> bool:
        spent = time.monotonic() - self._started
        if self._first is None and spent > self._seconds * WARM_UP:
            self._first = self._memory()
        if spent < self._seconds:
            return True
        if self._first is not None and self._memory() > self._first + MAX_GROWTH:
            raise AssertionError(f"memory: {self._first:,} bytes, then {self._memory():,}")
        return False


if __name__ == "__main__":
    sys.exit(main())
