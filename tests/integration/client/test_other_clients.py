"""What docs/services.md says for other languages, as it is written there.

TypeScript with npm's `@temporalio/client`, and the `temporal` command.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ackbridge.local.dev_server import find_binary
from tests.support.locked_tools import ToolUnavailableError, node, npm_packages
from tests.support.stage import Stage

pytestmark = [pytest.mark.extended, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = (CHECKOUT / "docs" / "services.md").read_text()
MAIN = """
import { Client, Connection } from '@temporalio/client';
import { call } from './services.js';

const connection = await Connection.connect({ address: process.env.TEMPORAL_ADDRESS! });
const client = new Client({ connection, namespace: process.env.TEMPORAL_NAMESPACE! });
const results = [];
for (const [request, timeout] of JSON.parse(process.argv[2]!)) {
  try {
    results.push({ outcome: await call(client, request, timeout) });
  } catch (error) {
    results.push({ error: String(error) });
  }
}
console.log(JSON.stringify(results));
await connection.close();
"""
OPTIONS = ("--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck")
PATIENCE = 120
"""Seconds."""


def run(*command: str, folder: Path, **environ: str) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled code of the page, with a program that calls it.

    The compiler comes from npm's registry; without one its tests are skipped, and the summary says
    why.
    """
    try:
        packages = npm_packages("temporal-client")
    except ToolUnavailableError as error:
        pytest.skip(f"TypeScript cannot be had: {error}")
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(packages / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "services.ts").write_text("\n".join(re.findall(r"```ts\n(.*?)```", PAGE, re.DOTALL)))
    (folder / "main.ts").write_text(MAIN)
    compiler = str(packages / "node_modules" / "typescript" / "bin" / "tsc")
    run(str(node()), compiler, *OPTIONS, "main.ts", "services.ts", folder=folder)
    return folder / "main.js"


async def played(
    program: Path, stage: Stage, *calls: tuple[dict[str, Any], str]
) -> list[dict[str, Any]]:
    """The outcomes and errors of these calls, one after the other."""
    printed = await asyncio.to_thread(
        run,
        *(str(node()), str(program), json.dumps(calls)),
        folder=program.parent,
        **stage.namespace.environment,
    )
    found: list[dict[str, Any]] = json.loads(printed)
    return found


async def test_the_same_key_is_the_same_call(program: Path, stage: Stage) -> None:
    """While it is open, and after it has ended; another payload is refused in both cases."""
    requests = (stage.request(), stage.request(delay_ms=3000), stage.request(refuse=422))
    ended, slow, failed = (one.model_dump(mode="json", exclude_defaults=True) for one in requests)
    first, second, reused, pending, open_reused, late, refused, again = await played(
        program,
        stage,
        (ended, "20s"),
        (ended, "20s"),
        (ended | {"payload": {"amount": 6, "currency": "EUR"}}, "20s"),
        (slow, "100ms"),
        (slow | {"payload": {"amount": 6, "currency": "EUR"}}, "100ms"),
        (slow, "20s"),
        (failed, "20s"),
        (failed, "20s"),
    )
    assert first["outcome"]["status"] == "completed"
    assert second["outcome"]["response"] == first["outcome"]["response"]
    assert "KeyReused" in reused["error"]
    assert pending == {"outcome": None}
    assert "KeyReused" in open_reused["error"]
    assert late["outcome"]["status"] == "completed"
    assert (refused["outcome"]["status"], refused["outcome"]["effect"]) == ("failed", "none")
    assert again == refused
    for request in (ended, slow):
        assert await stage.effects(f"sandbox.create_order.{request['key']}") == 1


async def test_the_temporal_command(stage: Stage) -> None:
    """Each command of the page works, in its order; what comes too late is refused."""
    section = PAGE.partition("## Without our client")[2].partition("## The contract")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.removeprefix("$ ")) for line in lines]
    assert {words[0] for words in commands} == {"temporal"}

    async def temporal(words: list[str]) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [str(find_binary()), *words[1:]],
            env={**os.environ, **stage.namespace.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    start, result, query, start_slow, update, cancel, cancelled = commands
    started = await temporal(start)
    for words in (start, result, query, start_slow, update, cancel):
        done = await temporal(words)
        assert done.returncode == 0, done.stderr
    ended = await temporal(cancelled)
    assert ended.returncode == 1
    assert "cancelled by ann: a mistake" in ended.stdout
    for words in (update, cancel):
        late = await temporal(words)
        assert late.returncode == 1
        assert "workflow execution already completed" in late.stderr
    assert (await temporal(query)).returncode == 0
    assert (await temporal(start)).stdout == started.stdout, "it is the same run"
