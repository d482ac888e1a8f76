"""The help of the command line: complete, and quick."""

from __future__ import annotations

import subprocess
import sys

from ackbridge.cli import COMMANDS

PROGRAM = """
import sys
from ackbridge.cli import main
main(["-h"])
print([name for name in sys.modules if name.startswith("ackbridge.cli.")])
"""


def test_help_lists_every_command_and_imports_none() -> None:
    """Together they take seconds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    *lines, imported = done.stdout.splitlines()
    assert imported == "[]"
    listed = {line.split()[1] for line in lines if len(line.split()) > 2}
    assert listed >= COMMANDS.keys()
    assert "Start a call, and wait for its outcome." in done.stdout
