"""The wheel, built once, and an environment where it is installed."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NOT_BUILT_FROM = (".git", ".venv", ".ackbridge", "*.egg-info", "__pycache__", ".*_cache")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel.

    Attributes:
        python: its interpreter.
        folder: an empty folder to run in, outside the checkout.
    """

    python: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python there, without access to the checkout."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": "", "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network, from a copy: a build leaves nothing in the checkout."""
    source = tmp_path_factory.mktemp("source") / "ackbridge"
    shutil.copytree(CHECKOUT, source, ignore=shutil.ignore_patterns(*NOT_BUILT_FROM))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(source / "dist"), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel installed next to a `workflows` of another distribution.

    The dependencies are those of this environment, by a path file: they are pinned already, and
    need no network.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "env" / "lib" / version / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # As pip does: the processes of a demo need not compile everything, each for itself.
    compileall.compile_dir(site / "ackbridge", quiet=1)
    other = site / "workflows"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('another distribution\\'s workflows')\n")
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "ackbridge" not in entry.name:
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    (folder / "env" / "bin" / "temporal").symlink_to(Path(sys.executable).with_name("temporal"))
    run_in = folder / "elsewhere"
    run_in.mkdir()
    return Installed(python, run_in)
