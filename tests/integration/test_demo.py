"""`make demo`, small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil


def test_demo_adds_up_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Real calls, a report, exit status 0, and no process left."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ackbridge", "demo"),
            *("--calls", "30", "--payments", "2", "--state", str(tmp_path)),
        ],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Does it add up?" in done.stdout
    assert "NO" not in done.stdout
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or ())
    ]
    assert left == []
