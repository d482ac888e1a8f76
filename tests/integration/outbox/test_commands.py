"""`ackbridge outbox`, without an engine."""

from __future__ import annotations

import asyncio
import json

import pytest
import sqlalchemy as sa

from ackbridge.outbox import ddl, enqueue
from ackbridge.outbox.rows import OutboxStore
from tests.support.commands import Ran, routed_output, run_here

from .shop import order_request


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: object) -> None:
    """The commands' environment; there is no ledger."""
    monkeypatch.setenv("ACKBRIDGE_OUTBOX_URL", url)
    monkeypatch.setenv("ACKBRIDGE_LEDGER_URL", f"sqlite:///{tmp_path}/none/ledger.db")


def run(*arguments: str) -> Ran:
    """Run `ackbridge outbox`."""
    with routed_output():
        return run_here(["outbox", *arguments])


async def reject(store: OutboxStore) -> None:
    """Set aside every row."""
    rows = await store.lease(10)
    await store.store([], {row.id: "unknown operation 'create_ordr'" for row in rows}, {})


async def test_rejected_rows_are_listed_and_retried(shop: sa.Engine, store: OutboxStore) -> None:
    """Rejected ones first, with the reason and without the payload."""
    with shop.begin() as connection:
        enqueue(connection, order_request("o-1", amount=4711))
    await reject(store)
    with shop.begin() as connection:
        enqueue(connection, order_request("o-2"))
    listed = await asyncio.to_thread(run, "--json")
    rejected, pending = json.loads(listed.out)
    assert rejected["call_id"] == "sandbox.create_order.o-1"
    assert (rejected["state"], pending["state"]) == ("rejected", "pending")
    assert "create_ordr" in rejected["reason"]
    assert "4711" not in listed.out
    shown = await asyncio.to_thread(run)
    assert "sandbox.create_order.o-2" in shown.out

    assert (await asyncio.to_thread(run, "retry")).status == 2
    retried = await asyncio.to_thread(run, "retry", str(rejected["id"]), "--json")
    assert json.loads(retried.out) == {"retried": 1}
    assert "not in the audit log" in retried.err
    assert (await asyncio.to_thread(run, "retry", "--all")).out == "0 rows are pending again\n"
    assert (await store.depth()).pending == 2


def test_the_definition_is_printed(shop: sa.Engine) -> None:
    """For each database."""
    for dialect in ("postgresql", "sqlite"):
        assert run("sql", "--dialect", dialect).out == ddl(dialect)


def test_a_missing_table_or_setting_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do about it."""
    ran = run("list")
    assert ran.status == 4
    assert "ACKBRIDGE_OUTBOX_URL" in ran.err
    assert "ackbridge outbox sql" in ran.err
    monkeypatch.setenv("ACKBRIDGE_OUTBOX_URL", "")
    for arguments in (["outbox"], ["relay"]):
        with routed_output():
            ran = run_here(arguments)
        assert ran.status == 2
        assert "ACKBRIDGE_OUTBOX_URL" in ran.err
