"""Ledger URLs: two databases, one driver each."""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ackbridge.errors import ConfigurationError

_POSTGRESQL: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"})
_EXPECTED: Final = "the ledger's URL must be sqlite:///path or postgresql://user@host/database"


def address_of(url: str) -> URL:
    """Read a ledger's URL.

    Raises:
        ConfigurationError: it is neither of the two databases'; never shows a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(_EXPECTED) from None
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in _SQLITE:
        raise ConfigurationError(f"{_EXPECTED}, not {parsed.drivername}://")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(f"{_EXPECTED}; an SQLite ledger must be a file")
    return parsed.set(drivername="sqlite")


def is_sqlite(url: URL) -> bool:
    """Whether it is a file of ours rather than a server."""
    return url.get_backend_name() == "sqlite"
