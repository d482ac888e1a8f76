"""`audit`, `api-key`, and who a command acts as; over a ledger without an engine."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ackbridge.cli import app
from ackbridge.clock import utc_now
from ackbridge.contracts.audit import AuditOrigin, AuditRequest
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger

NOBODY = {"HOME": "/nonexistent", "TEMPORAL_ADDRESS": "127.0.0.1:1"}


@dataclass
class Shell:
    folder: Path

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=NOBODY)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a folder with a ledger that has two entries."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACKBRIDGE_LEDGER_URL", url)
    monkeypatch.setenv("ACKBRIDGE_AUTH_API_KEYS", str(tmp_path / "keys.json"))
    migrate(url)
    asyncio.run(_fill(url))
    return Shell(tmp_path)


async def _fill(url: str) -> None:
    ledger = Ledger.open(url, utc_now)
    for number in (1, 2):
        request = AuditRequest(
            id=str(number),
            at=utc_now(),
            origin=AuditOrigin.SIGNAL,
            action="cancel",
            subject=f"acme.order.{number}",
            by="anna",
            reason="left",
        )
        await ledger.audit.append(request, client="ui")
    await ledger.close()


def test_list_verify_export(shell: Shell) -> None:
    """An export shows later what was changed, and what was removed at the end."""
    listed = shell.run("audit", "--json")
    assert [one["subject"] for one in json.loads(listed.stdout)] == ["acme.order.1", "acme.order.2"]
    only = shell.run("audit", "list", "--subject", "acme.order.2", "--json")
    assert [one["seq"] for one in json.loads(only.stdout)] == [2]
    assert shell.run("audit", "verify").exit_code == 0
    export = shell.folder / "export.jsonl"
    export.write_text(shell.run("audit", "export").stdout)
    assert shell.run("audit", "verify", "--against", str(export)).exit_code == 0
    with closing(sqlite3.connect(shell.folder / "ledger.db")) as database:
        database.execute("DELETE FROM audit WHERE seq = 2")
        database.commit()
    assert shell.run("audit", "verify").exit_code == 0
    found = shell.run("audit", "verify", "--against", str(export), "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["problems"] == [{"seq": 2, "reason": "is in the export only"}]


def test_api_keys(shell: Shell) -> None:
    """They are created, listed without the key, removed; each is in the audit log."""
    created = shell.run("api-key", "new", "ci", "--name", "the build", "--role", "read")
    assert created.exit_code == 0
    key = created.stdout.strip()
    assert key.startswith("abk_ci_")
    again = shell.run("api-key", "new", "ci", "--name", "x", "--role", "read")
    assert again.exit_code == 2
    assert shell.run("api-key", "new", "C I", "--name", "x", "--role", "read").exit_code == 2
    listed = shell.run("api-key", "--json")
    assert key not in listed.stdout
    assert [(one["id"], one["roles"]) for one in json.loads(listed.stdout)] == [("ci", "read")]
    assert shell.run("api-key", "remove", "co").exit_code == 2
    assert shell.run("api-key", "remove", "ci").exit_code == 0
    assert json.loads(shell.run("api-key", "--json").stdout) == []
    audited = json.loads(shell.run("audit", "--json").stdout)
    assert [one["action"] for one in audited[2:]] == ["new_api_key", "remove_api_key"]


def test_the_engine_knows_who_acts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--by` is refused where the engine knows somebody else."""
    # The claims are {"sub": "anna"}.
    monkeypatch.setenv("TEMPORAL_API_KEY", "a.eyJzdWIiOiJhbm5hIn0.c")
    arguments = ("held", "discard", "1", "--reason", "old")
    refused = shell.run(*arguments, "--by", "ben")
    assert refused.exit_code == 2
    assert "anna (token)" in refused.output
    for by in ((), ("--by", "anna")):
        assert "no message 1 is held" in shell.run(*arguments, *by).output
