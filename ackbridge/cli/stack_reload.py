"""What `up` does while its stack runs: restart the parts whose files have changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from ackbridge.catalog.loading import load_catalog
from ackbridge.errors import ConfigurationError, UnavailableError
from ackbridge.local.stack import Stack

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks that every process of the stack still runs."""

ENV_FILE: Final = Path(".env")

_Versions = dict[Path, tuple[int, int]]


@dataclass
class StackReloader:
    """Restarts worker and gateway for other integration files or settings, the stub for its own.

    What has mistakes is reported, and what runs goes on with what was there before.

    Attributes:
        folder: of the integration files; None where nothing is loaded again.
        read_settings: the settings of the parts; raises `ConfigurationError`.
        say: takes a sentence for whoever started the stack.
    """

    stack: Stack
    folder: Path | None
    stub: Path | None
    read_settings: Callable[[], Mapping[str, str]]
    say: Callable[[str], None]
    _known: _Versions = field(init=False)

    def __post_init__(self) -> None:
        self._known = self._versions()

    def run(self) -> NoReturn:
        """Check and reload for ever; raises `ProcessDiedError` when a part has ended by itself."""
        while True:
            time.sleep(CHECK_INTERVAL)
            self.stack.check()
            self.reload()

    def reload(self) -> None:
        """Restart what reads a file that has changed."""
        now = self._versions()
        changed = {path for path, _ in now.items() ^ self._known.items()}
        self._known = now
        if not changed:
            return
        if changed == {self.stub}:
            self._restart(("stub",), f"{self.stub} has changed, and is started again.")
            return
        try:
            self._load(has_settings=ENV_FILE in changed)
        except ConfigurationError as error:
            self.say(f"Not loaded, the files before stay in use:\n{error}")
            return
        what = "The settings" if ENV_FILE in changed else "The integration files"
        stub = ("stub",) if self.stub and changed & {self.stub, ENV_FILE} else ()
        self._restart((*stub, "worker", "gateway"), f"{what} have changed, and are loaded.")

    def _load(self, *, has_settings: bool) -> None:
        settings = self.read_settings() if has_settings else None
        environ = self.stack.environment_with(settings)
        if self.folder is not None:
            load_catalog(self.folder, environ)
        if settings is not None:
            self.stack.configure(settings)

    def _restart(self, parts: Sequence[str], done: str) -> None:
        try:
            for part in parts:
                self.stack.restart(part)
        except UnavailableError as error:
            self.say(f"{error}\nWaiting for the files to change.")
        else:
            self.say(done)

    def _versions(self) -> _Versions:
        if self.folder is None:
            return {}
        own = [ENV_FILE, *([self.stub] if self.stub else [])]
        found = {}
        for path in [*self.folder.rglob("*"), *own]:
            # Bytecode of hooks is written when they are loaded.
            if "__pycache__" in path.parts:
                continue
            with contextlib.suppress(OSError):
                state = path.stat()
                found[path] = (0, 0) if path.is_dir() else (state.st_mtime_ns, state.st_size)
        return found
