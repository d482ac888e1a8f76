"""Exit without finalizing the interpreter; see the package for when this can go."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def exit_process(status: int) -> NoReturn:
    """End a process that has used a Temporal client, with this exit status.

    Threads of the SDK's core may still call into Python while the interpreter finalizes, and the
    process would abort with another status. Call it last: no `finally`, `atexit` or destructor runs
    after it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
