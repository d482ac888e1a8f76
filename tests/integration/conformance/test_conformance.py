"""The conformance kit over the shipped files, and over files with special or wrong parts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from ackbridge.cli import app
from ackbridge.conformance.runner import Report, Result, Verdict, run_conformance
from ackbridge.conformance.scenarios import SCENARIOS
from tests.support.processes import run_command, started

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files"
SHIPPED = Path(__file__).parents[3] / "integrations"

# Its operations are told apart by nothing, so its scenarios are played one after the other.
OF_PARCELS = (
    *("answered", "answered-early", "error-then-well", "lost-receipt", "provider-failure"),
    *("late-response", "forged-and-malformed", "silent", "not-repeated", "refused"),
)
OF_STRIPE = (
    *("answered", "answered-early", "forged-and-malformed", "silent-but-status-knows"),
    *("provider-failure", "late-response", "cancel-awaiting", "never-a-receipt"),
)
OF_SHARED = ("answered", "lost-receipt", "provider-failure", "refused", "silent", "same-key")
OF_DOOR = (
    *("answered", "answered-early", "silent-but-status-knows", "provider-failure", "late-response"),
    *("throttled", "forged-and-malformed", "same-key-other-payload"),
)
OF_LINES = ("answered", "provider-failure", "silent-but-status-knows", "late-response", "refused")
OF_BATCHES = ("answered", "final-receipt", "provider-failure", "contradictory", "silent", "refused")
TRIED: dict[str, tuple[Path, tuple[str, ...], tuple[str, ...]]] = {
    "sandbox": (SHIPPED / "sandbox.yaml", ("create_order",), ()),
    "stripe": (SHIPPED / "stripe.yaml", ("create_payment",), OF_STRIPE),
    "norddeich": (FILES / "norddeich.yaml", ("book",), ()),
    "reports": (FILES / "reports.yaml", ("create", "rate"), ()),
    "parcels": (FILES / "parcels.yaml", ("book",), OF_PARCELS),
    "shared": (FILES / "shared.yaml", ("create", "cancel", "count"), OF_SHARED),
    "door": (FILES / "door.yaml", ("order",), OF_DOOR),
    "lines": (FILES / "lines.yaml", ("move",), OF_LINES),
    "batches": (FILES / "batches.yaml", ("pay",), OF_BATCHES),
    "wrong": (
        FILES / "wrong.yaml",
        ("order",),
        ("answered", "silent-but-status-knows", "lost-receipt"),
    ),
}


IN_EVERY_RUN = ("sandbox", "stripe", "wrong")


async def _reported(name: str) -> Report:
    """What failed beside all the others, on a busy machine, is played again by itself."""
    file, operations, only = TRIED[name]
    scenarios = [one for one in SCENARIOS if not only or one.name in only]
    payloads = dict.fromkeys(operations)
    report = await run_conformance(file, os.environ, payloads, scenarios)
    failed = {result.scenario.name for result in report.of(Verdict.FAILED)}
    if not failed or name == "wrong":
        return report
    scenarios = [one for one in scenarios if one.name in failed]
    again = await run_conformance(file, os.environ, payloads, scenarios)
    passed = [result for result in report.results if result.scenario.name not in failed]
    complaints = [*report.complaints, *again.complaints]
    return replace(again, results=[*passed, *again.results], complaints=complaints)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reports(request: pytest.FixtureRequest) -> dict[str, Report]:
    """One run for each file that is asked for, two at a time."""
    places = asyncio.Semaphore(2)
    asked_for = TRIED if _is_selected(request, "extended") else IN_EVERY_RUN

    async def one(name: str) -> Report:
        async with places:
            return await _reported(name)

    played = await asyncio.gather(*map(one, asked_for))
    return dict(zip(asked_for, played, strict=True))


def _is_selected(request: pytest.FixtureRequest, marker: str) -> bool:
    return any(
        item.get_closest_marker(marker) and item.path == request.path
        for item in request.session.items
    )


def failures(report: Report) -> list[str]:
    """The failed scenarios with their details."""
    return [_told(result) for result in report.of(Verdict.FAILED)]


def _told(result: Result) -> str:
    return "\n".join([f"{result.operation} {result.scenario.name}", *result.details])


def find(report: Report, scenario: str) -> Result:
    """The first result of a scenario."""
    return next(result for result in report.results if result.scenario.name == scenario)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.extended)
        for name in TRIED
        if name != "wrong"
    ],
)
async def test_shipped_files_conform(reports: dict[str, Report], name: str) -> None:
    """Every scenario that applies to it passes."""
    report = reports[name]
    assert failures(report) == []
    assert report.complaints == []
    assert len(report.of(Verdict.PASSED)) >= 5
    assert report.of(Verdict.SKIPPED) == []


@pytest.mark.extended
async def test_every_scenario_passes_somewhere(reports: dict[str, Report]) -> None:
    """A scenario that applies to none of the files would not be tested."""
    passed = {one.scenario.name for report in reports.values() for one in report.of(Verdict.PASSED)}
    assert {scenario.name for scenario in SCENARIOS} - passed == set()


async def test_provider_without_keys_skips_retries(
    reports: dict[str, Report],
) -> None:
    """It would do the work twice, as the file says, which is reported as skipped, not as passed."""
    result = find(reports["wrong"], "lost-receipt")
    assert result.verdict is Verdict.SKIPPED
    assert "nothing in the request identifies a retry" in result.details[0]


async def test_acknowledgement_that_identifies_no_call_is_found(
    reports: dict[str, Report],
) -> None:
    """The field is named, and so is the request."""
    result = find(reports["wrong"], "answered")
    assert result.verdict is Verdict.FAILED
    assert result.details[0] == (
        "expected an acknowledgement owed: False; seen: True; see operations.order.acknowledge.path"
    )
    assert reports["wrong"].complaints == ["POST /acknowledgements: identifies no call"]


async def test_condition_that_cannot_hold_fails(
    reports: dict[str, Report],
) -> None:
    """No message satisfies it, and there is no example, so the scenario cannot be played."""
    assert not reports["wrong"].has_examples
    result = find(reports["wrong"], "silent-but-status-knows")
    assert result.verdict is Verdict.FAILED
    assert result.details == [
        "cannot be played: no example of an answer to the status request that is a success"
        " (operations.order.response.status); add one"
    ]


@pytest.mark.extended
async def test_operations_that_share_a_path_are_told_apart(reports: dict[str, Report]) -> None:
    """By what their requests contain, by their references, or by being played one at a time."""
    played = {result.operation for result in reports["shared"].of(Verdict.PASSED)}
    assert played == {"create", "cancel", "count"}


def check(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `ackbridge check` with these arguments."""
    return run_command({**os.environ, **environ}, "check", *arguments)


def test_command_reports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """One line for each scenario, exit 0 when all passed; no file of the run stays."""
    done = check(
        *(str(SHIPPED / "sandbox.yaml"), "--conformance", "--only", "answered"),
        *("--operation", "quote", "--payload", 'quote={"amount": 7, "currency": "SEK"}'),
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quote\tanswered\tpassed\tthe provider answers at once" in done.stdout
    assert done.stdout.endswith("\n1 passed, 0 failed, 0 skipped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extended
def test_command_reports_failures_as_json() -> None:
    """And exits with 1."""
    done = check(
        *(str(FILES / "wrong.yaml"), "--conformance", "--only", "answered", "--json"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert [result["verdict"] for result in told["results"]] == ["failed"]
    assert told["complaints"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "answred"), "--only: unknown scenario 'answred'; known scenarios: "),
        (("--operation", "qoute"), "unknown operation 'qoute'"),
        (("--payload", "quote"), "expected OPERATION=JSON"),
        (("--payload", "quote={"), "--payload quote: not JSON"),
        (("--payload", 'quote={"amount": -1}'), "payload.amount: is not more than 0"),
    ],
)
def test_invalid_options_exit_with_2(arguments: tuple[str, ...], complaint: str) -> None:
    """In one line, before anything is started."""
    file = str(SHIPPED / "sandbox.yaml")
    done = CliRunner().invoke(app, ["check", file, "--conformance", *arguments])
    assert done.exit_code == 2, done.output
    assert complaint in done.stderr


def test_payload_that_cannot_be_generated_is_required(tmp_path: Path) -> None:
    """The error names the option."""
    file = tmp_path / "odd.yaml"
    file.write_text(
        "provider: odd\nbase_url: https://odd.example\noperations:\n  do:\n"
        "    payload_schema: {type: string, pattern: '^[A-Z]{40}#$'}\n"
        "    request: {path: /do}\n    response: {mode: sync}\n"
    )
    done = CliRunner().invoke(app, ["check", str(file), "--conformance"])
    assert done.exit_code == 2
    assert "give one: --payload do=JSON" in done.stderr


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Engine and worker end, and their folder is removed."""
    command = [sys.executable, "-m", "ackbridge", "check", str(SHIPPED / "sandbox.yaml")]
    with started(
        [*command, "--conformance"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as running:
        children: list[psutil.Process] = []
        while len(children) < 2 and running.poll() is None:
            children = psutil.Process(running.pid).children()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) != 0
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extended
async def test_first_file_of_the_docs_conforms(tmp_path: Path) -> None:
    """The one that a newcomer copies."""
    page = (SHIPPED.parent / "docs" / "integrations.md").read_text()
    written = page.partition("## A first file")[2].partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "rates.yaml"
    file.write_text(written)
    report = await run_conformance(file, os.environ, {"convert": None}, SCENARIOS)
    assert failures(report) == []
    assert report.complaints == []
    assert report.of(Verdict.PASSED)
