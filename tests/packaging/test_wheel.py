"""The built wheel in a clean environment, beside a package that ships `workflows` too."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from .conftest import Installed

pytestmark = pytest.mark.slow


def test_wheel_adds_only_ackbridge(wheel: Path) -> None:
    """A top-level `workflows` or `worker` of ours would collide with other packages'."""
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ackbridge"}


@pytest.mark.extended
def test_installed_wheel_completes_calls(installed: Installed) -> None:
    """The console command runs worker, gateway and all from the wheel, and a call completes."""
    where = "from ackbridge import settings; print(settings.integrations_folder(None))"
    file = installed.run("-c", where).stdout.strip() + "/sandbox.yaml"
    played = ("--conformance", "--only", "answered", "--operation", "create_order")
    done = installed.run("-m", "ackbridge", "check", file, *played)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_installed_wheel_checks_integration_files(installed: Installed) -> None:
    """The integration files and the migrations are in the wheel."""
    where = "from ackbridge import settings; print(settings.integrations_folder(None))"
    folder = installed.run("-c", where).stdout.strip()
    assert "site-packages" in folder
    done = installed.run("-m", "ackbridge", "check", f"{folder}/stripe.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
