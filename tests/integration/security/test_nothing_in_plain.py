"""A full run with planted secrets and personal data, and a search of everything it has written."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import MASKED, CallOutcome, CallRequest, Stage
from ackbridge.contracts.control import FlagState, SetFlag
from ackbridge.errors import CallFailedError
from ackbridge.ledger.database.engines import parse_url
from ackbridge.local.stack import Stack
from tests.support.postgres import PostgreSQL, postgresql
from tests.support.processes import run_command
from tests.support.serving import serve
from tests.support.subscribers import SECRET, Subscriber, configure, subscribing

from .bank import (
    CARD,
    FILE,
    HEADER_KEY,
    IBAN,
    KEY,
    NAME,
    QUERY_TOKEN,
    SECRETS,
    SENSITIVE,
    WEBHOOK,
    Collector,
    bank,
)

pytestmark = [pytest.mark.slow, pytest.mark.extended]

TIMEOUT = timedelta(seconds=60)
ENCRYPTION_KEY = base64.b64encode(secrets.token_bytes(32)).decode()
PLANTED = (NAME, *SENSITIVE, *SECRETS, SECRET.removeprefix("whsec_"), ENCRYPTION_KEY)


def forms(text: str) -> Iterator[bytes]:
    """How a text may be written: as it is, in hexadecimal, and within base64."""
    plain = text.encode()
    yield plain
    yield plain.hex().encode()
    for skipped in range(3):
        # What precedes it decides which of three forms it has; its ends depend on its neighbours.
        encoded = base64.b64encode(b"\0" * skipped + plain)
        yield encoded[4 if skipped else 0 : len(encoded) // 4 * 4 - 4]


def planted_in(content: bytes, planted: tuple[str, ...] = PLANTED) -> list[str]:
    """Which of the planted texts something contains, in any form."""
    return [text for text in planted if any(form in content for form in forms(text))]


@dataclass
class Run:
    """A stack with encryption, and all that it has answered."""

    stack: Stack
    folder: Path
    calls: AckbridgeClient
    subscriber: Subscriber
    collector: Collector
    http: httpx.AsyncClient
    answers: list[bytes] = field(default_factory=list)

    async def start(self, operation: str, key: str, name: str = NAME) -> Call:
        """Start a call whose payload has personal data."""
        request = CallRequest(
            provider="bank",
            operation=operation,
            key=key,
            payload={"name": name, "card": CARD},
            reply_to="shop",
        )
        return await self.calls.start(request)

    async def say(self, event: Mapping[str, Any], token: str = WEBHOOK) -> int:
        """Send a callback with credentials that nobody signs, and keep the answer."""
        reply = await self.http.post(
            f"{self.stack.addresses.gateway}/callbacks/bank?token={QUERY_TOKEN}",
            json={"document": {"owner": NAME, "iban": IBAN}, "card": CARD, **event},
            headers={"X-Token": token, "X-Api-Key": HEADER_KEY},
        )
        self.answers.append(repr(reply.headers).encode() + reply.content)
        return reply.status_code

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator, and keep what it prints."""
        done = run_command(self.stack.environment, *arguments)
        self.answers.append((done.stdout + done.stderr).encode())
        return done


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """The setting of a ledger on each kind of database, and what gives all its content."""
    if request.param == "sqlite":
        yield {}, lambda: b""
        return
    with postgresql() as server:
        url = server.new_database()
        yield {"ACKBRIDGE_LEDGER_URL": url}, lambda: _rows(server, url)


def _rows(server: PostgreSQL, url: str) -> bytes:
    address = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        query = sql.SQL("SELECT t::text FROM {} t")
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        dumped = [
            connection.execute(query.format(sql.Identifier(name))).fetchall()
            for (name,) in tables.fetchall()
        ]
        connection.execute("CHECKPOINT")
    files = [path.read_bytes() for path in server.data.rglob("*") if path.is_file()]
    return repr(dumped).encode() + b"".join(files)


@asynccontextmanager
async def running(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Run]:
    """Worker, gateway and engine as processes, provider and subscriber in this one."""
    integrations = folder / "integrations"
    integrations.mkdir()
    (integrations / "bank.yaml").write_text(FILE)
    collector = Collector()
    with ExitStack() as servers:
        subscriber = servers.enter_context(subscribing())
        configure(integrations, "shop", subscriber.url, response=True)
        exported = servers.enter_context(serve(collector.app()))
        stack = servers.enter_context(
            Stack(
                folder / "state",
                environ={
                    "OTEL_EXPORTER_OTLP_ENDPOINT": exported,
                    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
                },
                integrations=integrations,
                parts=("worker", "gateway"),
                settings={
                    "BANK_URL": servers.enter_context(serve(bank())),
                    "BANK_KEY": KEY,
                    "BANK_WEBHOOK": WEBHOOK,
                    "DATA_KEY": ENCRYPTION_KEY,
                    "ACKBRIDGE_ENCRYPTION_KEYS": "k1=env:DATA_KEY",
                    "ACKBRIDGE_REQUIRE_ENCRYPTED": "true",
                    **settings,
                },
            )
        )
        calls = await AckbridgeClient.connect(stack.environment)
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Run(stack, folder, calls, subscriber, collector, http)


async def play(run: Run) -> None:
    """Calls that complete, fail, are parked, held and steered, with all that is said of them."""
    looked = await (await run.start("look", "done")).outcome(TIMEOUT)
    assert looked.response["iban"] == IBAN
    assert looked.response["sent"] == {"name": NAME, "card": CARD}
    assert KEY not in looked.model_dump_json()
    large = await (await run.start("look", "large", "large")).outcome(TIMEOUT)
    assert large.status == "completed"

    refused = await ended(await run.start("look", "refused", "refuse"))
    assert refused.reason is not None
    assert NAME in refused.reason
    assert CARD not in refused.reason
    assert refused.notice is not None
    assert refused.notice.message == f"Your card {MASKED} did not do."

    assert await run.say({"id": "early", "type": "paid", "call": "bank.pay.done"}) in (200, 202)
    paying = await run.start("pay", "done")
    paid = await paying.outcome(TIMEOUT)
    assert paid.response == {"owner": NAME, "iban": IBAN}
    assert paid.receipt == NAME
    assert await run.say({"id": "early", "type": "paid", "call": paying.id}) == 200

    failing = await run.start("pay", "failed")
    why = f"{NAME} with {CARD} is poor"
    assert await run.say({"id": "f", "type": "failed", "call": failing.id, "why": why}) in (
        200,
        202,
    )
    failed = await ended(failing)
    assert CARD not in (failed.reason or CARD)
    assert await run.say({"id": "late", "type": "paid", "call": failing.id}) in (200, 202)
    assert await run.say({"id": "lost", "type": "paid", "call": "bank.pay.nobody"}) in (200, 202)
    assert await run.say({"id": "what", "type": "unknown", "call": failing.id}) in (200, 202)
    assert await run.say({"id": "forged", "type": "paid"}, token="wrong") == 401

    parked = await run.start("keep", "parked")
    async with asyncio.timeout(60):
        while (await parked.status()).stage is not Stage.PARKED:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
    await run.calls.control("bank").set_flag(
        SetFlag(by="op", reason="a test", environment="dev", state=FlagState.ON)
    )
    why, given = f"{NAME} called", {"owner": NAME, "iban": IBAN}
    await parked.force_ack(by="op", reason=why, response=given)
    forced = await parked.outcome(TIMEOUT, settled=True)
    assert forced.response == given
    assert (await run.subscriber.until(failing.id, 1))[0].body["data"]["call_id"] == failing.id
    completed = [one.body for one in run.subscriber.accepted if "iban" in json.dumps(one.body)]
    assert completed
    assert not any(IBAN in json.dumps(body) for body in completed)


async def ended(call: Call) -> CallOutcome:
    """The outcome of a call that fails."""
    with pytest.raises(CallFailedError) as failed:
        await call.outcome(TIMEOUT)
    return failed.value.outcome


async def inspect(run: Run) -> None:
    """What operators are shown has nothing sensitive, and no secrets."""
    for arguments in (
        ("status", "bank.look.done", "--json"),
        ("status", "bank.pay.done"),
        ("list", "--json"),
        ("held", "--json"),
        ("inbox", "list", "--state", "all", "--json"),
        ("notices", "--json"),
        ("owed", "--json"),
        ("audit", "list", "--json"),
    ):
        done = run.command(*arguments)
        assert done.stdout, done.stderr
        assert planted_in(done.stdout.encode() + done.stderr.encode(), (*SENSITIVE, *SECRETS)) == []
    for path in ("healthz", "readyz"):
        reply = await run.http.get(f"{run.stack.addresses.gateway}/{path}")
        assert planted_in(repr(reply.headers).encode() + reply.content) == []


async def exported(stack: Stack) -> AsyncIterator[tuple[str, bytes]]:
    """Every history and description, as a client without keys gets them."""
    plain = await Client.connect(stack.addresses.engine)
    async for found in plain.list_workflows():
        handle = plain.get_workflow_handle(found.id, run_id=found.run_id)
        yield found.id, (await handle.fetch_history()).to_json().encode()
        described = await handle.describe()
        yield found.id, described.raw_description.SerializeToString()


async def test_nothing_is_readable_in_what_was_written(
    tmp_path: Path, ledger: tuple[dict[str, str], Any]
) -> None:
    """Files, rows, histories, logs, traces, metrics and answers, with encryption on."""
    assert planted_in(base64.b64encode(f"xy{NAME}z".encode())) == [NAME]
    settings, content = ledger
    async with running(tmp_path, settings) as run:
        await play(run)
        await inspect(run)
        histories = [one async for one in exported(run.stack)]
        await asyncio.sleep(2)
    assert {"bank.look.done", "bank.pay.failed", "bank.keep.parked", "control.bank"} <= {
        workflow for workflow, _ in histories
    }
    assert [name for name, history in histories if planted_in(history)] == []

    state = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {"engine.db", "worker.log", "gateway.log"} <= {path.name for path in state}
    assert [path.name for path in state if planted_in(path.read_bytes())] == []
    everything = content() + b"".join(path.read_bytes() for path in state)
    assert planted_in(everything) == []
    # The search sees what is not encrypted.
    assert everything.count(b"bank.pay.failed") > 10

    assert run.collector.received.keys() == {"traces", "metrics"}
    assert planted_in(b"".join(run.collector.received.values())) == []
    callbacks = [answer for answer in run.answers if b"content-length" in answer]
    assert callbacks
    assert planted_in(b"".join(callbacks)) == []
