"""`ackbridge call-many`, on the real engine."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran, run_all
from tests.support.stage import Stage

PAYLOAD = {"amount": 5, "currency": "EUR"}
CALLS = 30


@pytest.fixture(autouse=True)
def environment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process connect to the stage."""
    for name, value in stage.namespace.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACKBRIDGE_LEDGER_URL", stage.settings.ledger_url)


async def call_many(file: Path, *options: str) -> Ran:
    """Run it on a file."""
    (ran,) = await run_all([("call-many", "sandbox", "create_order", f"@{file}", *options)])
    return ran


def results(file: Path) -> dict[str, dict[str, Any]]:
    """The last result of each key."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["key"]: line for line in lines}


async def test_a_file_of_calls_is_made_once(stage: Stage, tmp_path: Path) -> None:
    """A second run, after one that was killed, makes what is missing and repeats nothing."""
    run = uuid.uuid4().hex
    keys = [f"{run}-{number}" for number in range(CALLS)]
    lines = [{"key": key, "payload": PAYLOAD} for key in keys]
    lines.append({"key": f"{run}-refused", "payload": {"amount": "none"}})
    lines.append({"key": f"{run}-failed", "payload": {**PAYLOAD, "behaviour": {"fail": 9}}})
    file = tmp_path / "orders.ndjson"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    first = await call_many(file, "--json")
    assert first.status == 1, first.out + first.err
    summary = json.loads(first.out)
    assert (summary["completed"], summary["failed"], summary["refused"]) == (CALLS, 1, 1)
    found = results(tmp_path / "orders.ndjson.results")
    assert all(found[key]["response"]["status"] == "completed" for key in keys)
    assert "amount" in found[f"{run}-refused"]["error"]

    kept = (tmp_path / "orders.ndjson.results").read_text().splitlines(keepends=True)
    killed = "".join(kept[:-10]) + kept[-10][:20]
    (tmp_path / "orders.ndjson.results").write_text(killed)
    second = await call_many(file)
    assert second.status == 1, second.out + second.err
    assert f"{CALLS + 2} calls: {CALLS} completed, 1 failed, 1 refused" in second.out
    assert "10 ended now" in second.out
    assert results(tmp_path / "orders.ndjson.results").keys() == found.keys()
    for key in keys:
        assert await stage.acknowledged(f"sandbox.create_order.{key}") == ["success"]


async def test_nothing_is_started_if_a_line_is_wrong(tmp_path: Path) -> None:
    """The line and the field are named."""
    file = tmp_path / "orders.ndjson"
    file.write_text('{"key": "never", "payload": 1}\n{"key": ""}\n')
    done = await call_many(file)
    assert done.status == 2
    assert "line 2: CallRequest: key" in done.err
    assert not (tmp_path / "orders.ndjson.results").exists()
