"""What `make demo` prints by default: what happened, does it add up, where to look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ackbridge.demo.scenarios import SCENARIOS

pytestmark = pytest.mark.extended

LINES = 60


def test_demo_in_short(tmp_path: Path) -> None:
    """On a terminal of 80 columns."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ackbridge", "demo"),
            *("--calls", "30", "--payments", "2", "--state", str(tmp_path)),
        ],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= LINES, done.stdout
    assert sum(line.rstrip().endswith(" ok") for line in lines) == len(SCENARIOS)
    assert "checks of their records match" in " ".join(done.stdout.split())
