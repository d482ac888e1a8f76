"""Transactions: functions of a connection, each run in one, on either database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

from .postgresql import Postgresql
from .sqlite import Sqlite
from .urls import address_of, is_sqlite

P = ParamSpec("P")
R = TypeVar("R")


class Database(Protocol):
    """Runs plain functions: a whole transaction costs one switch out of asynchronous code."""

    async def write(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `work` in one transaction: everything it wrote stands, or nothing.

        Raises:
            LedgerUnavailable: the database does not answer, or not in time.
        """

    async def read(
        self, work: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `work`, each of whose statements sees what is committed by then.

        Raises:
            LedgerUnavailable: the database does not answer, or not in time.
        """

    async def close(self) -> None:
        """Close every connection."""


def open_database(url: str, within: timedelta) -> Database:
    """Open a database; the first use connects.

    Args:
        url: `sqlite:///path` or `postgresql://…`.
        within: how long one transaction may take, waiting for its turn included.

    Raises:
        ConfigurationError: the URL is neither of the two databases'.
    """
    address = address_of(url)
    return Sqlite(address, within) if is_sqlite(address) else Postgresql(address, within)
