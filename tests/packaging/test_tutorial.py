"""Every command of docs/tutorial.md, in a folder of its own, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "tutorial.md").read_text()
pytestmark = pytest.mark.extended
COMMAND = (sys.executable, "-m", "ackbridge")
ENDS_WITH = {"fail": 1, "silent": 3}
READY = "Ctrl-C stops everything"


def tutorial() -> list[list[str]]:
    """The commands, without `ackbridge` itself."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ACKBRIDGE_", "TEMPORAL_"))}
    return {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}


class Shell:
    """Runs the commands; `up` in the background, until the end."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self.up: subprocess.Popen[bytes] | None = None
        self.log = folder / "up.log"

    def run(self, words: list[str]) -> None:
        if words[0] == "cd":
            self.folder /= words[1]
        elif words == ["ackbridge", "up"]:
            self._start()
        else:
            self._check(words[1:])

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self.up = subprocess.Popen(
                [*COMMAND, "up"], cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        until = time.monotonic() + 60
        while READY not in (printed := self.log.read_text()):
            assert self.up.poll() is None, printed
            assert time.monotonic() < until, printed
            time.sleep(0.1)
        # A usual port may be taken on this machine; a user copies this line then.
        (address,) = re.findall(r"export TEMPORAL_ADDRESS=(\S+)", printed)
        self.environ = {**self.environ, "TEMPORAL_ADDRESS": address}

    def _check(self, words: list[str]) -> None:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        expected = next((code for what, code in ENDS_WITH.items() if f'"{what}"' in words[-1]), 0)
        assert done.returncode == expected, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.fixture
def shell(home: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    used = Shell(tmp_path, home)
    yield used
    if used.up is not None:
        used.up.send_signal(signal.SIGINT)
        used.up.wait(30)


def test_every_command_of_the_tutorial(shell: Shell) -> None:
    """And the files are loaded again when they change."""
    for words in tutorial():
        shell.run(words)
    integration = shell.folder / "integrations" / "shop.yaml"
    integration.write_text(integration.read_text().replace("Try again later.", "Ask us."))
    until = time.monotonic() + 60
    while "have changed, and are loaded" not in (printed := shell.log.read_text()):
        assert time.monotonic() < until, printed
        time.sleep(0.2)
    order = ["call", "shop", "create_order", "--key", "o-9", "--payload", '{"item": "fail"}']
    done = subprocess.run(
        [*COMMAND, *order], cwd=shell.folder, env=shell.environ, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Ask us." in " ".join(done.stdout.split()), done.stdout + done.stderr
