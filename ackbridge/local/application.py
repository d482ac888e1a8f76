"""Where the application lies: the checkout when there is one, else what the wheel carries."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def app_folder() -> Path:
    """The folder with `worker.py`, `workflows/`, `activities/` and `integrations/`."""
    checkout = _PACKAGE.parent
    if (checkout / "worker.py").is_file() and (checkout / "workflows").is_dir():
        return checkout
    return _PACKAGE / "_app"


def integrations_folder(configured: Path | None) -> Path:
    """The folder of integration files: the configured one, or those we ship."""
    return configured if configured is not None else app_folder() / "integrations"
