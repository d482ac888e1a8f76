"""Every command of docs/tutorial.md, from the installed wheel, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import CHECKOUT, Installed

PAGE = (CHECKOUT / "docs" / "tutorial.md").read_text()
pytestmark = pytest.mark.extended
ENDS_WITH = {"fail": 1, "silent": 3}
READY = "Ctrl-C stops everything"


def tutorial() -> list[list[str]]:
    """The commands, without `ackbridge` itself."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has set nothing, without access to the checkout."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ACKBRIDGE_", "TEMPORAL_"))}
    return {**kept, "HOME": str(tmp_path), "PYTHONPATH": ""}


class Shell:
    """Runs the commands; `up` in the background, until the end."""

    def __init__(self, python: Path, folder: Path, environ: dict[str, str]) -> None:
        self.command = (str(python), "-m", "ackbridge")
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
                [*self.command, "up"], cwd=self.folder, env=self.environ, stdout=log, stderr=log
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
            [*self.command, *words],
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

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def wait_for(self, sentence: str) -> None:
        until = time.monotonic() + 60
        while sentence not in (printed := self.log.read_text()):
            assert time.monotonic() < until, printed
            time.sleep(0.2)

    def failed_order(self, key: str) -> str:
        """What is printed of an order that fails, in one line."""
        order = ["call", "shop", "create_order", "--key", key, "--payload", '{"item": "fail"}']
        done = subprocess.run(
            [*self.command, *order, "--wait", "60s", "--json"],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return " ".join(done.stdout.split())


@pytest.fixture
def shell(home: dict[str, str], tmp_path: Path, installed: Installed) -> Iterator[Shell]:
    used = Shell(installed.python, tmp_path, home)
    yield used
    if used.up is not None:
        used.up.send_signal(signal.SIGINT)
        used.up.wait(30)


def test_every_command_of_the_tutorial(shell: Shell) -> None:
    """And the files are loaded again when they change: integrations, `.env`, and the stub."""
    for words in tutorial():
        shell.run(words)
    shell.edit("integrations/shop.yaml", "Try again later.", "Ask ${SHOP_HELP:-us}.")
    shell.wait_for("The integration files have changed, and are loaded.")
    assert "Ask us." in shell.failed_order("o-9")
    shell.edit(".env", "SHOP_API_KEY=", "SHOP_HELP=the shop\nSHOP_API_KEY=other-")
    shell.wait_for("The settings have changed, and are loaded.")
    # The stub has the other key, too: it is started again.
    assert "Ask the shop." in shell.failed_order("o-10")
    shell.edit("provider.py", "out of stock", "sold out")
    shell.wait_for("provider.py has changed, and is started again.")
    assert "sold out" in shell.failed_order("o-11")
