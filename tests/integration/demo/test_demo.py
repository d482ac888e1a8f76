"""`make demo`, small; and what it says when a call does not end as it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from pydantic import TypeAdapter

from ackbridge.catalog.loading import load_catalog, load_integration
from ackbridge.catalog.yaml_document import parse_yaml
from ackbridge.contracts.notices import DEFAULT_NOTICES
from ackbridge.contracts.wire import Duration
from ackbridge.demo import report
from ackbridge.demo.records import RecordSources
from ackbridge.demo.scenario_run import CallFacts
from ackbridge.demo.scenarios import SCENARIOS, DemoScenario, run_scenario
from ackbridge.demo.short_deadlines import copy_integrations, shorten_deadlines
from ackbridge.settings import integrations_folder
from ackbridge.terminal.exit_codes import ExitCode
from tests.support.stage import SECRETS, Stage

pytestmark = pytest.mark.slow

TWICE = "\N{MULTIPLICATION SIGN}2"
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo keeps its files."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(state: Path) -> subprocess.CompletedProcess[str]:
    """The demo, after it has run."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "ackbridge", "demo"),
            *("--calls", "30", "--payments", "2", "--state", str(state), "--verbose"),
        ],
        # A line for each line, however long.
        env={**os.environ, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def blocks(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What it prints of each scenario, by name."""
    pieces = re.split(r"\n *\d+  (?=[^\n]+ \(\w+\) *\n)", done.stdout)[1:]
    assert len(pieces) == len(SCENARIOS)
    return {scenario.name: piece for scenario, piece in zip(SCENARIOS, pieces, strict=True)}


def test_demo_succeeds_and_leaves_nothing_running(
    done: subprocess.CompletedProcess[str], state: Path
) -> None:
    """Real calls, a report, exit status 0, no process and no copy of integration files left."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reconciliation" in done.stdout
    assert not re.search(r"\bNO\b", done.stdout)
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(state) in " ".join(process.info["cmdline"] or ())
    ]
    assert left == []
    assert list(state.glob("demo-integrations-*")) == []


def test_every_scenario_is_printed(blocks: dict[str, str]) -> None:
    """Each has its heading, the steps of both sides, and its end."""
    for name, told in blocks.items():
        assert told.startswith(f"{BY_NAME[name].title}  ({BY_NAME[name].operation})")
        lines = [line.split("  ")[0] for line in map(str.strip, told.splitlines()[1:])]
        assert lines[:3] == ["provider", "Ackbridge", "end"], told


def test_flag_switch_is_printed(done: subprocess.CompletedProcess[str]) -> None:
    """Switched off by an operator, calls parked with a notice, switched on, and reprocessed."""
    told = done.stdout.split("A flag is switched off and on")[1].split("One call for each")[0]
    for line in (
        "Ada, on call: flag of create_booking in dev: on (integration file) → off",
        "the next 10 are parked: nothing is sent",
        "“Your booking takes longer”",
        "create_booking in dev: off → on (their API answers again)",
        "all ended after",
    ):
        assert line in told


def test_users_read_the_notices_of_the_operations(blocks: dict[str, str]) -> None:
    """A user without a response reads the operation's own notice."""
    sandbox = load_integration(integrations_folder(None) / "sandbox.yaml", SECRETS)
    for name, told in blocks.items():
        scenario = BY_NAME[name]
        for notice in scenario.expected.notices:
            text = getattr(sandbox.operations[scenario.operation].notices, notice)
            default = DEFAULT_NOTICES[notice]
            text = text and text.choose(None)
            own = (text.title, text.message, text.alternative) if text else None
            parts = own or (default.title, default.message, default.alternative)
            quoted = " ".join(f"“{getattr(part, 'source', part)}”" for part in parts if part)
            assert quoted in told


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (
            "silence",
            "sent it (…:1) → requested its status → acknowledged failed (…:1) → sent it (…:2)",
        ),
        (
            "lost-receipt",
            f"sent it (…:1) {TWICE} → recorded the response → acknowledged success (…:1)",
        ),
        ("forced", "was forced by Ada, on call (their console shows work_"),
        ("no-receipt", "was reprocessed by Grace, on call → sent it (…:1)"),
        ("late", "held a later message"),
        ("owed", "the acknowledgement was owed, and accepted"),
        ("reused", "already belongs to a call with another payload"),
        (
            "forged",
            f"callback: forged (answered 401) {TWICE} → callback: completed",
        ),
    ],
)
def test_lines_are_read_from_the_records(blocks: dict[str, str], name: str, what: str) -> None:
    """They list the steps in order."""
    assert what in blocks[name]


def test_subscriber_receives_notices(done: subprocess.CompletedProcess[str]) -> None:
    """Every notice is verified, in the user's language, and without the provider's texts."""
    told = done.stdout[done.stdout.index("Notices to a subscriber") :]
    for line in (
        "1. call.completed ",
        "1. call.delayed ",
        "2. call.completed_late ",
        "1. call.failed ",
        "1. call.cancelled ",
        "“Done, later than usual”",
        "“Das wurde nicht angenommen”",
        "“Annulé”",
        "“Choose another room, or call the house.”",
        "6 signatures verified.",
    ):
        assert line in told
    assert "ORA-00600" not in told


def test_report_says_where_to_look(done: subprocess.CompletedProcess[str], state: Path) -> None:
    """How to start the stack again, and where to find one of the calls."""
    call_id = re.search(
        r"ackbridge status (sandbox\.create_order\.demo-\w+-silence)\n", done.stdout
    )
    assert call_id is not None
    assert f"/namespaces/default/workflows/{call_id[1]}\n" in done.stdout
    assert f"ackbridge up --state {state}\n" in done.stdout


def test_copy_differs_in_deadlines_only(tmp_path: Path) -> None:
    """Deadlines and the time to live of parked calls; all else is as shipped."""
    with copy_integrations(tmp_path) as folder:
        shipped = parse_yaml((folder / "sandbox.yaml").read_text()).value
        changes = shorten_deadlines(folder)
        copy = parse_yaml((folder / "sandbox.yaml").read_text()).value
        load_catalog(folder, SECRETS)
    assert {change.field for change in changes} == {"response.deadline.initial", "parked_for"}
    for change in changes:
        part = copy["operations"][change.operation]
        *path, last = change.field.split(".")
        for step in path:
            part = part[step]
        assert part[last] == change.after
        assert _span(change.after) < _span(change.before)
        part[last] = change.before
    assert copy == shipped


def _span(text: str) -> timedelta:
    return TypeAdapter(Duration).validate_python(text)


@pytest.fixture
def sources(stage: Stage) -> RecordSources:
    """The records of the stage."""
    return RecordSources(stage.calls, stage.client, stage.ledger, stage.http, stage.provider_url)


async def test_unexpected_end_is_a_problem(sources: RecordSources) -> None:
    """Each difference is one line, and the exit code is 1."""
    wrong: DemoScenario = replace(
        BY_NAME["refused"], expected=CallFacts(sent=(2,), notices=("refused",))
    )
    result = await run_scenario(sources, wrong, "test-1")
    assert list(result.problems) == [
        "end: expected completed, seen failed",
        "effect: expected done, seen none",
        "sent: expected (2,), seen (1,)",
        "done: expected 1, seen 0",
        "acknowledged: expected (('success',),), seen ()",
        "recorded: expected 1, seen 0",
    ]
    assert report.exit_code([], [result], []) is ExitCode.FAILED


async def test_expected_end_is_no_problem(sources: RecordSources) -> None:
    """There are no lines, and the exit code is 0."""
    result = await run_scenario(sources, BY_NAME["refused"], "test-2")
    assert list(result.problems) == []
    assert report.exit_code([], [result], []) is ExitCode.COMPLETED


def test_page_of_the_run(done: subprocess.CompletedProcess[str], state: Path) -> None:
    """A picture of each call that reached the provider; it loads nothing from elsewhere."""
    page = (state / "demo.html").read_text()
    assert str(state / "demo.html") in done.stdout
    assert page.count("<h2>") == len(SCENARIOS)
    assert page.count("<svg") >= len(SCENARIOS) - 1
    assert "http" not in page.replace("HTTP", "")
