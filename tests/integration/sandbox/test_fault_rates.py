"""Random faults, and the command that takes their rates."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.local.processes import StackProcess, sandbox_plan
from ackbridge.sandbox.behaviour import Behaviour
from ackbridge.sandbox.fault_rates import REALISTIC, Rates
from tests.support.sandbox_client import (
    API_KEY,
    TIMEOUT,
    WEBHOOK_SECRET,
    CallbackReceiver,
    SandboxClient,
    sandbox_client,
)

MAGNITUDES = {"delay_ms", "seed", "most", "slow_ms", "extend_ms", "late_ms", "retry_after"}
MAGNITUDES |= {"acknowledgement_down_ms"}
SHARES = [name for name in Rates.model_fields if name not in MAGNITUDES]
DOCUMENT = Path(__file__).parents[3] / "docs" / "sandbox.md"


def test_rates_are_repeatable_and_met() -> None:
    """The same key gets the same fault, and the shares are about right."""
    rates = Rates(duplicate=0.1, early=0.05, seed=7)
    drawn = [rates.draw(f"k{number}") for number in range(2000)]
    assert drawn == [rates.draw(f"k{number}") for number in range(2000)]
    assert 150 < sum(behaviour.duplicates > 0 for behaviour in drawn) < 250
    assert 60 < sum(behaviour.early for behaviour in drawn) < 140
    assert Rates().draw("k") == Behaviour()


def test_faults_are_drawn_independently() -> None:
    """Another rate of one fault changes no other fault; another seed does."""
    keys = [f"k{number}" for number in range(500)]
    alone = [Rates(silent=0.3).draw(key).silent for key in keys]
    assert alone == [Rates(silent=0.3, stuck=0.5, fail=0.5).draw(key).silent for key in keys]
    assert alone != [Rates(silent=0.3, seed=2).draw(key).silent for key in keys]


def test_every_rate_is_a_fault_of_its_own() -> None:
    """Rate 1 always happens, and no two rates are the same fault."""
    certain = [Rates.model_validate({share: 1}).draw("k") for share in SHARES]
    assert Behaviour() not in certain
    assert len({behaviour.model_dump_json() for behaviour in certain}) == len(SHARES)


def test_every_fault_can_be_drawn() -> None:
    """Every fault of a request has a rate, except for some details."""
    details = {"reason", "error_status", "extend_wait_ms"}
    drawn = [
        Rates.model_validate({share: 1, "retry_after": 3, "late_ms": 5}).draw(str(number))
        for share in SHARES
        for number in range(20)
    ]
    found = {name for one in drawn for name in one.model_dump(exclude_defaults=True)}
    assert set(Behaviour.model_fields) - details == found


def test_documentation_has_every_fault_and_every_rate() -> None:
    """The tables are complete, and have no others."""
    _, _, rest = DOCUMENT.read_text().partition("## The faults")
    tables, _, _ = rest.partition("\n## ")
    rows = [line.split("|") for line in tables.splitlines() if line.startswith("| `")]
    fields = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    shares = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert fields == set(Behaviour.model_fields)
    assert shares == set(SHARES)


def test_documentation_has_the_realistic_rates() -> None:
    """As JSON that the command accepts, equal to the code."""
    (shown,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert Rates.model_validate_json(shown) == REALISTIC
    assert json.loads(shown) == json.loads(REALISTIC.model_dump_json(exclude_defaults=True))


def test_behaviour_of_a_request_overrides_rates() -> None:
    """Also an empty one."""
    with sandbox_client(rates=Rates(delay_ms=0, refuse=1)) as client:
        assert client.job().send().status_code == 422
        assert client.job(silent=True).send().status_code == 202
        calm = client.job()
        calm.body["behaviour"] = {}
        assert calm.send().status_code == 202


def run(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ackbridge.sandbox", *options],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_names_a_missing_secret(tmp_path: Path) -> None:
    """Exit 2 and the variable's name, without a traceback."""
    done = run(tmp_path, "--webhook-secret-env", "MY_SECRET", SANDBOX_API_KEY="x")
    assert (done.returncode, done.stderr) == (2, "the sandbox needs MY_SECRET in its environment\n")


@pytest.mark.parametrize(
    ("rates", "complaint"),
    [
        ('{"silnet": 0.1}', "silnet: Extra inputs are not permitted"),
        ('{"silent": 2}', "silent: Input should be less than or equal to 1"),
        ("silent", "JSON: Invalid JSON"),
    ],
)
def test_command_names_an_invalid_rate(tmp_path: Path, rates: str, complaint: str) -> None:
    """Exit 2 and the field's name."""
    done = run(tmp_path, "--rates", rates)
    assert done.returncode == 2
    assert f"argument --rates: {complaint}" in done.stderr


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of the command."""
    return {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SANDBOX_API_KEY": API_KEY,
        "SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }


def test_process_injects_connection_faults(tmp_path: Path, environ: dict[str, str]) -> None:
    """It is configured by JSON, and resets connections as in the other tests."""
    port = LoopbackPort()
    rates: dict[str, Any] = {"reset_receipt": 1, "most": 1, "delay_ms": 0}
    part = StackProcess(
        "sandbox",
        sandbox_plan(port.number, ("--rates", json.dumps(rates), "--keep", "5")),
        environ=environ,
        log=tmp_path / "sandbox.log",
        folder=tmp_path,
        start_timeout=timedelta(seconds=TIMEOUT),
    )
    part.start()
    try:
        with httpx.Client(
            base_url=f"http://{HOST}:{port.number}",
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=TIMEOUT,
            trust_env=False,
        ) as http:
            quote = SandboxClient(http, CallbackReceiver(), "").job("quote")
            with pytest.raises(httpx.ReadError):
                quote.send()
            assert quote.send().json()["total"] == 10
            assert http.get("/_summary").json()["journal"]["kept"] == 5
    finally:
        part.stop(timedelta(seconds=10))
    assert (tmp_path / "sandbox.log").read_text() == ""
