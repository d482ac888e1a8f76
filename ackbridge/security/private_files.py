"""Files and folders that only their owner may read: with payloads, logs of them, or secrets."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
UMASK: Final = 0o077
"""Of child processes, whose files are theirs to create."""


def make_private_folder(path: Path) -> None:
    """Create a folder and its missing parents; folders that exist keep their mode."""
    if path.is_dir():
        return
    make_private_folder(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Create an empty file if it is missing; one of ours that others may read becomes private."""
    os.close(open_private(str(path), os.O_CREAT | os.O_RDWR))
    with contextlib.suppress(PermissionError):
        path.chmod(FILE_MODE)


def open_private(path: str, flags: int) -> int:
    """An `opener` of `open` that creates private files."""
    return os.open(path, flags, FILE_MODE)
