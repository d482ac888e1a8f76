"""Environments of their own for what the project itself does not need, below `.ackbridge/peers`.

Each is made from a lock with hashes, once, and again when its lock has changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .testbed import CHECKOUT

FOLDER = CHECKOUT / ".ackbridge" / "peers"
LOCKS = Path(__file__).parent / "locks"
_NPM_SERVER = "node_modules/@restatedev/restate-server"


class NotInstalledError(Exception):
    """An environment could not be made; the text says why."""


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made first where it is missing.

    Args:
        name: of a lock in `LOCKS`.

    Raises:
        NotInstalledError: it could not be made.
    """
    lock = LOCKS / f"{name}.lock"
    folder = FOLDER / name
    if not _is_current(folder, lock):
        print(f"Setting up {folder.relative_to(CHECKOUT)} from {lock.name} (once)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        run((sys.executable, "-m", "venv", str(folder)), name)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
        run((*pip, "install", "--quiet", "--require-hashes", "-r", str(lock)), name)
        _stamp(folder, lock)
    return folder / "bin" / "python"


def restate_server() -> Path:
    """The Restate server's binary, from its npm package.

    Raises:
        NotInstalledError: there is no npm, or it found nothing for this machine.
    """
    lock = LOCKS / "restate-server" / "package-lock.json"
    folder = FOLDER / "restate-server"
    if not _is_current(folder, lock):
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalledError("Restate's server comes from an npm package: install npm")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(lock.with_name(file), folder)
        # Its scripts only report the installation to somebody.
        run((npm, "ci", "--silent", "--ignore-scripts", "--prefix", str(folder)), "restate-server")
        _stamp(folder, lock)
    # The package itself starts the binary from Node.js, which would be measured as well.
    binaries = list(folder.glob(f"{_NPM_SERVER}-*/bin/restate-server"))
    if not binaries:
        raise NotInstalledError("Restate's npm package has no server for this machine")
    return binaries[0]


def version_in(name: str, package: str) -> str:
    """Which version of a package a lock names."""
    if name == "restate-server":
        lock = json.loads((LOCKS / name / "package-lock.json").read_text())
        return str(lock["packages"][_NPM_SERVER]["version"])
    for line in (LOCKS / f"{name}.lock").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.removeprefix(f"{package}==").split()[0]
    raise NotInstalledError(f"{name}.lock does not name {package}")


def _is_current(folder: Path, lock: Path) -> bool:
    stamp = folder / ".lock"
    return stamp.is_file() and stamp.read_text() == _digest(lock)


def _stamp(folder: Path, lock: Path) -> None:
    (folder / ".lock").write_text(_digest(lock))


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def run(command: Sequence[str], name: str) -> None:
    """Run a command from the checkout to its end.

    Raises:
        NotInstalledError: it failed; the text names `name`.
    """
    done = subprocess.run(  # noqa: S603 -- our own command, and no shell reads it
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotInstalledError(f"{name} failed:\n{done.stderr.strip()}")
