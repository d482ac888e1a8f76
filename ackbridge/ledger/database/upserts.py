"""Inserts that mind what is there already, on either database."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def upsert(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An insert with `ON CONFLICT` clauses, which both databases spell alike."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def insert_new(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless a unique key of it is taken; a concurrent insert is waited for.

    Returns:
        Whether the row is new.
    """
    statement = _insert_new(connection.dialect.name, table)
    return connection.execute(statement, row).rowcount == 1


# Building a statement costs as much as executing it, and every call comes through here.
@cache
def _insert_new(dialect: str, table: sa.Table) -> sa.Insert:
    statement = upsert(dialect, table).on_conflict_do_nothing()
    return statement.execution_options(preserve_rowcount=True)
