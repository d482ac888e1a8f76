"""The HTTP edge: provider callbacks in."""

from .app import create_app
from .serving import build_config

__all__ = ["build_config", "create_app"]
