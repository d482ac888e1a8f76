"""Where a peer claims its keys and records its responses: one row a call."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Protocol

CREATE = "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, response TEXT)"


class Records(Protocol):
    """A database with the table `calls (key, response)`."""

    async def claim(self, key: str) -> None:
        """Take note of a call; again is the same."""

    async def record(self, key: str, response: dict[str, Any]) -> None:
        """Write its response; the first one stands."""

    async def close(self) -> None:
        """Close every connection."""


class SQLiteRecords:
    """A file, with the settings of Ackbridge's own ledger."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(CREATE)

    async def claim(self, key: str) -> None:
        """Take note of a call; again is the same."""
        self._database.execute("INSERT OR IGNORE INTO calls (key) VALUES (?)", (key,))

    async def record(self, key: str, response: dict[str, Any]) -> None:
        """Write its response; the first one stands."""
        self._database.execute(
            "UPDATE calls SET response = ? WHERE key = ? AND response IS NULL",
            (json.dumps(response), key),
        )

    async def close(self) -> None:
        """Close the file."""
        self._database.close()


async def open_records(url: str, connections: int) -> Records:
    """Open the table of a peer.

    Args:
        url: `sqlite:///path`, or of a PostgreSQL database.
        connections: how many of them, in PostgreSQL.
    """
    if url.startswith("sqlite:///"):
        return SQLiteRecords(Path(url.removeprefix("sqlite:///")))
    # Not installed where a peer keeps its records in a file.
    from .postgresql_records import PostgreSQLRecords

    return await PostgreSQLRecords.open(url, connections)
