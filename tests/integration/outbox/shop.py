"""A service with an outbox: it writes an order and its request in one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from ackbridge.contracts.calls import CallRequest
from ackbridge.ledger.database.engines import is_sqlite, parse_url
from ackbridge.outbox import ddl, outbox_table

ORDERS = sa.Table("orders", sa.MetaData(), sa.Column("number", sa.Text, primary_key=True))


def open_shop(url: str) -> sa.Engine:
    """The service's own engine, which keeps no connection open."""
    return sa.create_engine(parse_url(url), poolclass=sa.NullPool)


def create_shop(url: str) -> sa.Engine:
    """The service's tables, by its migration."""
    address = parse_url(url)
    if is_sqlite(address):
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = open_shop(url)
    dialect: Literal["sqlite", "postgresql"] = "sqlite" if is_sqlite(address) else "postgresql"
    with engine.begin() as connection:
        ORDERS.create(connection)
        for statement in ddl(dialect).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    return engine


def drop_shop(engine: sa.Engine) -> None:
    """Remove the service's tables, and close its connections."""
    with engine.begin() as connection:
        for table in (ORDERS, outbox_table(sa.MetaData())):
            table.drop(connection, checkfirst=True)
    engine.dispose()


def order_request(number: str, amount: int = 5) -> CallRequest:
    """The request for an order."""
    payload = {"amount": amount, "currency": "EUR"}
    return CallRequest(provider="sandbox", operation="create_order", key=number, payload=payload)


def orders(engine: sa.Engine) -> set[str]:
    """The numbers of the orders that are committed."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(ORDERS.c.number)))
