"""Every command in every trouble: one sentence, the documented status, soon, and no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from ackbridge.cli import COMMANDS, Group
from ackbridge.client import control as control_client
from ackbridge.contracts import names
from ackbridge.local.dev_server import EmbeddedEngine
from tests.integration.activities.world import unreachable_url
from tests.support.commands import Ran, run_all
from tests.support.engine import new_namespace
from tests.support.processes import run_command
from tests.support.stage import Stage

WITHIN = 9
"""Seconds, without the start of a process; a request to the engine may take ten."""
WHY = ("--reason", "a drill", "--by", "ann")
NOT_HERE = {"worker", "gateway", "api", "relay", "up", "demo"}
"""They run until they are stopped: see `test_processes_that_cannot_start`, and for the relay
`tests/integration/outbox`."""

_PATIENCE = timedelta(seconds=60)
DONE, REFUSED, PENDING, AWAY, CLOSED = 0, 2, 3, 4, 141
NOTES = ("waiting for", "not in the audit log")
"""Of lines that are not about what went wrong."""
SHIPPED = Path(__file__).parents[3] / "integrations"


def commands(call_id: str) -> list[list[str]]:
    """Every command that talks to the engine or the ledger, for one call."""
    key = call_id.rpartition(".")[2]
    order = ("--key", key, "--payload", '{"amount": 5, "currency": "EUR"}', "--wait", "1s")
    lines: list[tuple[str, ...]] = [
        ("call", "sandbox", "create_order", *order),
        ("status", call_id),
        ("list", "--limit", "3"),
        ("cancel", call_id, *WHY),
        ("force-ack", call_id, *WHY),
        ("resolve", call_id, "--as", "done", *WHY),
        ("reprocess", call_id, "--by", "ann"),
        ("reprocess", "sandbox", "--dry-run", "--by", "ann"),
        ("unknown",),
        ("batches",),
        ("batch", "status", "nope"),
        ("batch", "pause", "nope", *WHY),
        ("batch", "resume", "nope", *WHY),
        ("batch", "stop", "nope", *WHY),
        ("queue", "sandbox"),
        ("flag", "sandbox"),
        ("flag", "nope", "on", *WHY),
        ("breaker", "sandbox"),
        ("breaker", "nope", "open", *WHY),
        ("limit", "sandbox"),
        ("limit", "nope", "5/s", *WHY),
        ("providers",),
        ("purge", "--dry-run"),
        ("purge",),
        ("catch-up", "nope", "--since", "1h"),
        ("owed", "list"),
        ("owed", "write-off", call_id, "--cycle", "1", *WHY),
        ("held", "list"),
        ("held", "apply", "999999", *WHY),
        ("held", "discard", "999999", *WHY),
        ("inbox", "list"),
        ("inbox", "replay", "999999", *WHY),
        ("notices",),
        ("notices", "replay", "nope"),
        ("schedules", "list"),
        ("schedules", "remove", "nope"),
        ("deployment", "status"),
        ("deployment", "promote", "nope", "--wait", "1s"),
        ("audit", "list"),
        ("audit", "verify"),
        ("audit", "export"),
        ("schema",),
    ]
    return [list(line) for line in lines]


def offline_commands(call_id: str) -> list[list[str]]:
    """Those that need neither engine nor ledger for what they are asked here."""
    key = call_id.rpartition(".")[2]
    lines: list[tuple[str, ...]] = [
        ("api-key", "list"),
        ("api-key", "new", key, "--name", "ci", "--role", "read"),
        ("api-key", "remove", "nope"),
        ("encrypt-again",),
        ("init", "no good name"),
        ("check", "nope.yaml"),
        ("check", "--json", str(SHIPPED / "slack.yaml")),
        ("try", "nope", "create_order", "--key", key),
        ("try", "sandbox", "create_order", "--key", key, "--payload", "{}"),
        ("record", "nope"),
        ("call-many", "sandbox", "create_order", "@nope.ndjson"),
        ("outbox", "list"),
        ("outbox", "retry", "1"),
        ("outbox", "sql"),
    ]
    return [list(line) for line in lines]


@pytest.fixture
def settings(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The stage's own, as the commands read them."""
    for name in os.environ:
        if name.startswith(("ACKBRIDGE_", "TEMPORAL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(stage.folder)
    known = {**stage.environ, **stage.namespace.environment}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACKBRIDGE_LEDGER_URL", stage.settings.ledger_url)
    monkeypatch.setenv("ACKBRIDGE_DEPLOYMENT", "nowhere")
    monkeypatch.setenv("ACKBRIDGE_AUTH_API_KEYS", str(tmp_path / "keys.json"))
    # Typer sets and deletes it for each parameter; here many commands run at once in one process.
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "1")
    return monkeypatch


@pytest.fixture
def frozen() -> Iterator[str]:
    """The address of a server that accepts connections and is silent."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def check(ran: Sequence[Ran], allowed: set[int]) -> None:
    """What holds for every command in every trouble."""
    wrong = [problem for one in ran for problem in _problems(one, allowed)]
    assert not wrong, "\n".join(wrong)


def _problems(one: Ran, allowed: set[int]) -> Iterator[str]:
    told = one.err.splitlines()
    said_that_it_waits = any("waiting for" in line for line in told)
    about = f"{' '.join(one.arguments)} -> {one.status} after {one.seconds:.1f} s: {one.err}"
    if one.raised is not None:
        yield f"raises {one.raised!r}: {about}"
    if one.arguments[:2] == ("deployment", "promote"):
        # There are no workers of any version.
        allowed = allowed | {AWAY}
    if one.status not in allowed:
        yield f"the status is none of {sorted(allowed)}: {about}"
    # `check` prints what it finds, as linters do.
    has_said = told or (one.arguments[0] == "check" and one.out)
    if one.status not in (DONE, PENDING, CLOSED) and not has_said:
        yield f"it does not say why: {about}"
    if len([line for line in told if not any(note in line for note in NOTES)]) > 1:
        yield f"more than a sentence: {about}"
    if any(word in one.err for word in ("Traceback", "internal error", "tonic::", "RPCError")):
        yield f"a dump: {about}"
    if one.seconds > WITHIN and not said_that_it_waits:
        yield f"too slow: {about}"


def only(ran: Sequence[Ran], *names: str) -> list[Ran]:
    """Those of single commands."""
    return [one for one in ran if one.arguments[0] in names]


def test_every_command_is_played() -> None:
    """A new command is added above, or named as one that has its own tests."""
    lines = commands("a.b.c") + offline_commands("a.b.c")
    played = {word for line in lines for word in line[:2]}
    known = set()
    for name, found in COMMANDS.items():
        known |= {name, *(found.commands if isinstance(found, Group) else ())}
    assert known <= played | NOT_HERE


async def test_finished_call(stage: Stage, settings: pytest.MonkeyPatch) -> None:
    """What is too late says so, with the status of a refused request."""
    request = stage.request()
    await stage.calls.start_and_wait(request, timeout=_PATIENCE)
    ran = await run_all(commands(request.call_id) + offline_commands(request.call_id))
    check(ran, {DONE, REFUSED})
    late = only(ran, "cancel", "force-ack")
    assert {one.status for one in late} == {REFUSED}
    assert all("too late" in one.err for one in late)
    (listed,) = await run_all([["list", "--limit", "1000", "--json"]])
    assert request.call_id in listed.out


async def test_unknown_call(stage: Stage, settings: pytest.MonkeyPatch) -> None:
    """There is no such call."""
    ran = await run_all(commands("sandbox.create_order.nobody")[1:])
    check(ran, {DONE, REFUSED})
    wanted = only(ran, "status", "cancel", "force-ack")
    assert all("no such call" in one.err and one.status == REFUSED for one in wanted)


async def test_wrong_namespace(stage: Stage, settings: pytest.MonkeyPatch) -> None:
    """The namespace is named, and not a call that is somewhere else."""
    settings.setenv("TEMPORAL_NAMESPACE", "nowhere")
    ran = await run_all(commands(stage.request().call_id))
    check(ran, {DONE, REFUSED})
    for one in only(ran, "status", "cancel", "list", "flag", "batches", "schedules", "call"):
        assert "Namespace nowhere is not found" in one.err, one
        assert "TEMPORAL_NAMESPACE" in one.err


async def test_wrong_address(stage: Stage, settings: pytest.MonkeyPatch) -> None:
    """The address is named."""
    address = unreachable_url().removeprefix("http://")
    settings.setenv("TEMPORAL_ADDRESS", address)
    ran = await run_all(commands(stage.request().call_id))
    check(ran, {DONE, REFUSED, AWAY})
    for one in only(ran, "status", "list", "flag", "batches", "call"):
        assert one.status == AWAY
        assert f"no Temporal server answers at {address}" in one.err


async def test_frozen_engine(stage: Stage, settings: pytest.MonkeyPatch, frozen: str) -> None:
    """It accepts connections, and says nothing."""
    settings.setenv("TEMPORAL_ADDRESS", frozen)
    ran = await run_all(commands(stage.request().call_id))
    check(ran, {DONE, REFUSED, AWAY})
    for one in only(ran, "status", "list", "flag", "batches", "call"):
        assert one.status == AWAY
        assert "does not answer within 3 s" in one.err


async def test_no_worker(
    stage: Stage, settings: pytest.MonkeyPatch, engine: EmbeddedEngine
) -> None:
    """Calls start and requests are stored; what needs an answer says that no worker runs."""
    namespace = await new_namespace(engine)
    settings.setenv("TEMPORAL_NAMESPACE", namespace.name)
    request = stage.request()
    first, *others = commands(request.call_id)
    started = await run_all([first])
    assert started[0].status == PENDING, started
    assert "no worker has answered yet" in " ".join(started[0].out.split())
    ran = started + await run_all(others)
    check(ran, {DONE, REFUSED, PENDING, AWAY})
    (status,) = only(ran, "status")
    assert "no worker polls the queue ackbridge" in status.err
    for one in only(ran, "cancel", "force-ack"):
        assert one.status == PENDING, one
        assert "the request is stored" in one.err


async def test_a_provider_is_switched_off_without_a_worker(
    settings: pytest.MonkeyPatch, engine: EmbeddedEngine
) -> None:
    """The change is stored in its control, for the next worker."""
    settings.setattr(control_client, "UPDATE_TIMEOUT", timedelta(seconds=1))
    namespace = await new_namespace(engine)
    settings.setenv("TEMPORAL_NAMESPACE", namespace.name)
    client = await Client.connect(namespace.address, namespace=namespace.name)
    control = await client.start_workflow(
        names.PROVIDER_CONTROL,
        id=names.control_id("sandbox"),
        task_queue=names.control_queue("sandbox"),
    )
    (ran,) = await run_all([["flag", "sandbox", "off", *WHY]])
    assert ran.status == PENDING, ran
    assert "The change is stored" in ran.out
    kinds = [event.event_type async for event in control.fetch_history_events()]
    assert EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED in kinds


@pytest.mark.parametrize("folder", ["no-folder", "."])
async def test_no_ledger(
    stage: Stage, settings: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """The path and the setting are named; what the engine knows is shown all the same."""
    url = f"sqlite:///{tmp_path / folder / 'ledger.db'}"
    settings.setenv("ACKBRIDGE_LEDGER_URL", url)
    request = stage.request()
    await stage.calls.start_and_wait(request, timeout=_PATIENCE)
    ran = await run_all(commands(request.call_id))
    check(ran, {DONE, REFUSED, AWAY})
    for one in only(ran, "unknown", "owed", "held", "inbox", "notices", "queue"):
        assert one.status == AWAY, one
        assert url.removeprefix("sqlite:///") in one.err
        assert "ACKBRIDGE_LEDGER_URL" in one.err
    assert {one.status for one in only(ran, "status", "call", "batches")} == {DONE}


async def test_closed_pipe(stage: Stage, settings: pytest.MonkeyPatch) -> None:
    """As with `| head`: nothing is said about it, and the status is that of any command."""
    request = stage.request()
    await stage.calls.start_and_wait(request, timeout=_PATIENCE)

    with contextlib.ExitStack() as opened:

        def closed_pipe() -> IO[str]:
            reading, writing = os.pipe()
            os.close(reading)
            return opened.enter_context(os.fdopen(writing, "w"))

        lines = commands(request.call_id) + offline_commands(request.call_id)
        ran = await run_all(lines, into=closed_pipe)
    check(ran, {REFUSED, CLOSED})
    assert {one.status for one in only(ran, "status", "list", "schema", "unknown")} == {CLOSED}


PROCESSES = {
    "no ledger": (("ACKBRIDGE_LEDGER_URL", "sqlite:////dev/null/ledger.db"), AWAY),
    "no integrations": (("ACKBRIDGE_INTEGRATIONS", "no-such-folder"), REFUSED),
    "no such setting": (("ACKBRIDGE_LOG_LEVEL", "LOUD"), REFUSED),
    "wrong namespace": (("TEMPORAL_NAMESPACE", "nowhere"), REFUSED),
}


NO_TROUBLE = {("gateway", "wrong namespace"), ("up", "wrong namespace"), ("up", "no ledger")}
"""The gateway goes on without the engine; `up` starts an engine and has a ledger of its own."""


@pytest.mark.extended
@pytest.mark.parametrize(
    ("process", "trouble"),
    [
        (process, trouble)
        for process in (("worker",), ("gateway", "--port", "1"), ("up",))
        for trouble in PROCESSES
        if (process[0], trouble) not in NO_TROUBLE
    ],
)
async def test_processes_that_cannot_start(
    stage: Stage, settings: pytest.MonkeyPatch, process: tuple[str, ...], trouble: str
) -> None:
    """They end with one sentence that names the setting, instead of running without it."""
    (name, value), status = PROCESSES[trouble]
    settings.setenv(name, value)
    settings.delenv("ACKBRIDGE_AUTH_API_KEYS")
    done = await asyncio.to_thread(run_command, os.environ, *process, timeout=30)
    # The documented status of a worker that cannot start is always the same.
    assert done.returncode == (REFUSED if process[0] == "worker" else status), done
    assert name in done.stderr, done
    assert "Traceback" not in done.stderr
