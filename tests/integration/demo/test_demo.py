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
from ackbridge.demo.facts import CallFacts
from ackbridge.demo.outcomes import play
from ackbridge.demo.records import Archive
from ackbridge.demo.scenarios import KINDS, DemoScenario
from ackbridge.demo.short_deadlines import own_integrations, put_in_a_hurry
from ackbridge.settings import integrations_folder
from ackbridge.terminal.exit_codes import ExitCode
from tests.support.stage import SECRETS, Stage

TWICE = "\N{MULTIPLICATION SIGN}2"
BY_NAME = {kind.name: kind for kind in KINDS}


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
            *("--calls", "30", "--payments", "2", "--state", str(state)),
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
    """What it says of each kind of end, by the kind's name."""
    pieces = re.split(r"\n *\d+  (?=[^\n]+ \(\w+\) *\n)", done.stdout)[1:]
    assert len(pieces) == len(KINDS)
    return {kind.name: piece for kind, piece in zip(KINDS, pieces, strict=True)}


def test_demo_adds_up_and_leaves_nothing_running(
    done: subprocess.CompletedProcess[str], state: Path
) -> None:
    """Real calls, a report, exit status 0, no process and no copy of integration files left."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Does it add up?" in done.stdout
    assert not re.search(r"\bNO\b", done.stdout)
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(state) in " ".join(process.info["cmdline"] or ())
    ]
    assert left == []
    assert list(state.glob("demo-integrations-*")) == []


def test_every_kind_of_end_is_told(blocks: dict[str, str]) -> None:
    """Each has its heading, what both sides did, and how it ended."""
    for name, told in blocks.items():
        assert told.startswith(f"{BY_NAME[name].title}  ({BY_NAME[name].operation})")
        lines = [line.split("  ")[0] for line in map(str.strip, told.splitlines()[1:])]
        assert lines[:3] == ["provider", "Ackbridge", "end"], told


def test_the_flag_in_the_middle_is_told(done: subprocess.CompletedProcess[str]) -> None:
    """Switched off by somebody for a reason, calls parked with their notice, on, and drained."""
    told = done.stdout.split("A flag switched off in the middle")[1].split("One call of each")[0]
    for line in (
        "Ada, on call: flag of create_booking in dev: on (integration file) → off",
        "the next 10 are parked: nothing of them is sent",
        "“Your booking takes longer”",
        "create_booking in dev: off → on (they are back)",
        "drained in",
    ):
        assert line in told


def test_users_read_what_the_operations_say(blocks: dict[str, str]) -> None:
    """Wherever somebody is left without an answer, the notice is the operation's own."""
    sandbox = load_integration(integrations_folder(None) / "sandbox.yaml", SECRETS)
    for name, told in blocks.items():
        kind = BY_NAME[name]
        for notice in kind.expected.notices:
            text = getattr(sandbox.operations[kind.operation].notices, notice)
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
            "sent it (…:1) → asked how it stands → acknowledged failed (…:1) → sent it (…:2)",
        ),
        (
            "lost-receipt",
            f"sent it (…:1) {TWICE} → recorded the answer → acknowledged success (…:1)",
        ),
        ("forced", "was forced by Ada, on call (their console says: work_"),
        ("no-receipt", "was told to reprocess it by Grace, on call → sent it (…:1)"),
        ("late", "kept a later answer for people"),
        ("owed", "the acknowledgement was owed, and paid"),
        ("reused", "already belongs to a call with another payload"),
        (
            "forged",
            f"called back: a forged answer (answered 401) {TWICE} → called back: completed",
        ),
    ],
)
def test_the_lines_say_what_has_happened(blocks: dict[str, str], name: str, what: str) -> None:
    """They are read off the records, one thing after the other."""
    assert what in blocks[name]


def test_the_people_who_wait_are_told(done: subprocess.CompletedProcess[str]) -> None:
    """A service got every notice, verified, in its user's language, and no provider's words."""
    told = done.stdout[done.stdout.index("The people who wait") :]
    for line in (
        "1. call.completed ",
        "1. call.delayed ",
        "2. call.completed_late ",
        "2. call.failed ",
        "1. call.cancelled ",
        "“Done, later than usual”",
        "“Das wurde nicht angenommen”",
        "“Annulé”",
        "“Choose another room, or call the house.”",
        "7 signatures verified.",
    ):
        assert line in told
    assert "ORA-00600" not in told


def test_one_is_told_where_to_look(done: subprocess.CompletedProcess[str], state: Path) -> None:
    """The stack is gone: how to have it back, and where one of the calls is then."""
    call_id = re.search(
        r"ackbridge status (sandbox\.create_order\.demo-\w+-silence)\n", done.stdout
    )
    assert call_id is not None
    assert f"/namespaces/default/workflows/{call_id[1]}\n" in done.stdout
    assert f"ackbridge up --state {state}\n" in done.stdout


def test_only_waiting_is_shorter_in_the_demos_own_copy(tmp_path: Path) -> None:
    """Deadlines and the time to live of parked calls; all else is as it is shipped."""
    with own_integrations(tmp_path) as folder:
        shipped = parse_yaml((folder / "sandbox.yaml").read_text()).value
        changes = put_in_a_hurry(folder)
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
def archive(stage: Stage) -> Archive:
    """The records of the stage."""
    return Archive(stage.calls, stage.client, stage.ledger, stage.http, stage.provider_url)


async def test_a_call_that_ends_otherwise_is_told_with_both(archive: Archive) -> None:
    """What was expected and what was seen, and the exit status is 1."""
    wrong: DemoScenario = replace(
        BY_NAME["refused"], expected=CallFacts(sent=(2,), notices=("refused",))
    )
    ending = await play(archive, wrong, "test-1")
    assert list(ending.troubles) == [
        "end: expected completed, seen failed",
        "sent: expected (2,), seen (1,)",
        "done: expected 1, seen 0",
        "told: expected (('success',),), seen ()",
        "recorded: expected 1, seen 0",
    ]
    assert report.verdict([], [ending], []) is ExitCode.FAILED


async def test_a_call_that_ends_as_it_should_is_fine(archive: Archive) -> None:
    """Nothing is told, and the exit status is 0."""
    ending = await play(archive, BY_NAME["refused"], "test-2")
    assert list(ending.troubles) == []
    assert report.verdict([], [ending], []) is ExitCode.COMPLETED
