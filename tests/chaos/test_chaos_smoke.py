"""A short run of the whole harness, as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ackbridge.settings import app_folder

pytestmark = pytest.mark.slow


def test_sixty_calls_and_two_kills_lose_nothing(tmp_path: Path) -> None:
    """Exit 0, a report of zeros, and neither a process nor a folder is left behind."""
    _run(tmp_path, 60, "--seed", "14", "--rate", "20", "--kill-every", "20", "--kills", "2")


@pytest.mark.extended
def test_the_bulk_lane_loses_nothing(tmp_path: Path) -> None:
    """The process that calls `call_many` is killed as well, and asks again."""
    arguments = ("--lane", "both", "--seed", "26", "--rate", "15", "--kill-every", "12")
    shown = _run(tmp_path, 60, *arguments, "--kills", "4")
    assert re.search(r"^ *calls in hosts +[1-9]", shown, re.MULTILINE), shown
    assert re.search(r"caller [1-9]", shown), shown


def _run(folder: Path, calls: int, *arguments: str) -> str:
    """Make calls in a clean run, and check that it leaves nothing behind; gives its report."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--calls", str(calls), *arguments],
        cwd=app_folder(),
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for what, count in {
        "calls": calls,
        "lost": 0,
        "untrue": 0,
        "unacknowledged": 0,
        "hung": 0,
    }.items():
        assert re.search(rf"^ *{what} +{count} *$", ran.stdout, re.MULTILINE), ran.stdout
    assert re.search(r"^ *kills +[1-9]", ran.stdout, re.MULTILINE), ran.stdout
    assert list(folder.iterdir()) == []
    assert list(_processes_of(folder)) == []
    return ran.stdout


def _processes_of(folder: Path) -> Iterator[list[str]]:
    """The command lines of what was started for a run in this folder."""
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("ACKBRIDGE_LEDGER_URL", ""):
                yield process.cmdline()
        except psutil.Error:
            continue
