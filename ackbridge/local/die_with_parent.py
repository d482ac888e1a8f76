"""Replace this process by a command that dies with its parent.

Run as a script, `die_with_parent.py PARENT COMMAND...`. It uses only the standard library, so that
`python -I -S` runs it in milliseconds. A `preexec_fn` would run in a copy of a threaded process
instead, and could deadlock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process by a command; on Linux it is killed when `parent` ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # The parent ended before the call above.
        sys.exit(1)
    # Python ignores SIGPIPE, and an ignored signal stays ignored in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 -- the command is our caller's own, and no shell reads it


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
