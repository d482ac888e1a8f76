"""The HTTP edge: provider callbacks in."""

from .app import create_app

__all__ = ["create_app"]
