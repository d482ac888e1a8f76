"""The control of a provider without an engine: what it is told, what it keeps, what it shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.catalog.catalog import configured_flags
from ackbridge.catalog.loading import load_integration
from ackbridge.contracts.breaker import BreakerState, BreakerStatus, ForceBreaker
from ackbridge.contracts.control import (
    MAX_CHANGES,
    ControlDecision,
    ControlStart,
    ControlState,
    FlagState,
    FlagValue,
    IntegrationFlags,
    LearnedDeadline,
    SetFlag,
)
from ackbridge.contracts.wire import InvalidInputError
from tests.support.stage import INTEGRATIONS, SECRETS
from workflows.provider_control.control import Control
from workflows.provider_control.ui_details import tell_control

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OFF = FlagValue(state=FlagState.OFF)
FILE = IntegrationFlags(flags={"prod": {"": OFF}}, operations=("order", "refund"))


class Host:
    """A clock that stands still, and a count of what was published."""

    def __init__(self) -> None:
        self.published = 0

    def control(self, memory: ControlState | None = None, **start: Any) -> Control:
        """Acme's control."""
        started = ControlStart.model_validate({"provider": "acme", "configured": FILE, **start})
        control = Control(started, memory, lambda: NOW, self._publish)
        control.begin(started, is_continued=memory is not None)
        return control

    def _publish(self) -> None:
        self.published += 1


def word(state: str, environment: str = "prod", **more: Any) -> SetFlag:
    """An operator's word."""
    said = {"environment": environment, "state": state, "by": "ann", "reason": "a trial"}
    return SetFlag.model_validate({**said, **more})


STATES = st.sampled_from(["on", "off", "internal", "default"])
WORDS = st.builds(
    word,
    STATES,
    st.sampled_from(["prod", "dev"]),
    operation=st.sampled_from([None, "order", "refund"]),
    by=st.sampled_from(["ann", "bo"]),
)


@given(st.lists(WORDS, max_size=12))
def test_the_last_word_counts_and_the_log_has_every_change(orders: list[SetFlag]) -> None:
    """For each flag the last word stands, and the changes of it are one unbroken line."""
    control = Host().control()
    last: dict[tuple[str, str], SetFlag] = {}
    for order in orders:
        version = control.snapshot.version
        control.set_flag(order)
        control.set_flag(order)
        assert control.snapshot.version <= version + 1
        last[order.environment, order.operation or ""] = order
    for (environment, operation), order in last.items():
        setting = control.snapshot.override(environment, operation)
        assert (setting.state if setting else "default") == order.state
    lines: dict[str, str] = {}
    for change in reversed(control.status().changes):
        assert lines.get(change.subject, change.before) == change.before
        lines[change.subject] = change.after


@given(st.lists(WORDS, max_size=8))
def test_nothing_is_lost_when_it_continues(orders: list[SetFlag]) -> None:
    """The run that goes on is the one before, through JSON and back."""
    control = Host().control()
    for order in orders:
        control.set_flag(order)
    control.reject("a bad one")
    memory = ControlState.model_validate_json(control.memory().model_dump_json())
    assert Host().control(memory).status() == control.status()


def test_the_same_word_again_is_none() -> None:
    """An order that is given twice is one; another reason for the same is another."""
    control = Host().control()
    for reason in ("a trial", "a trial", "it goes on"):
        control.set_flag(word("off", "dev", reason=reason))
    assert [change.reason for change in control.status().changes] == ["it goes on", "a trial"]
    version = control.snapshot.version
    control.force_breaker(ForceBreaker(state=None, by="ann", reason="nobody holds it"))
    assert control.snapshot.version == version


def test_only_so_many_changes_are_remembered() -> None:
    """A control that runs for months does not grow for ever; the newest are kept."""
    control = Host().control()
    for share in range(MAX_CHANGES + 20):
        control.set_flag(word("percentage", percentage=share / 2, by=f"n{share}"))
    changes = control.status().changes
    assert len(changes) == MAX_CHANGES
    assert changes[0].by == f"n{MAX_CHANGES + 19}"


def test_too_many_environments_are_refused() -> None:
    """What workers read every second has to stay small."""
    control = Host().control()
    for number in range(50):
        control.set_flag(word("off", f"e{number}"))
    with pytest.raises(InvalidInputError, match="environment"):
        control.set_flag(word("off", "one-too-many"))
    control.set_flag(word("on", "e7"))


def test_a_new_file_does_not_undo_a_word() -> None:
    """It is told and logged; an operator's word stands, and without it the new file holds."""
    control = Host().control()
    control.set_flag(word("internal"))
    control.configure(FILE)
    version = control.snapshot.version
    control.configure(IntegrationFlags(operations=("order",)))
    assert control.snapshot.version == version + 1
    assert control.status().changes[0].subject == "file's flag of the provider in prod"
    assert control.set_flag(word("default")).after == "on (integration file)"


def test_a_breaker_that_is_held_stays() -> None:
    """Decisions move a breaker until somebody holds it, and again when it is let go."""
    control = Host().control()
    opened = BreakerStatus(state=BreakerState.OPEN, since=NOW, reason="8 of 10 failed")
    closed = opened.model_copy(update={"state": BreakerState.CLOSED, "reason": "it is up"})
    control.decide(ControlDecision(breaker=opened))
    control.force_breaker(ForceBreaker(state=BreakerState.OPEN, by="ann", reason="not yet"))
    control.decide(ControlDecision(breaker=closed))
    held = control.snapshot.breaker
    assert (held.state, held.forced_by) == (BreakerState.OPEN, "ann")
    change = control.force_breaker(ForceBreaker(state=None, by="bo", reason="now"))
    assert (change.before, change.after) == ("open, held by ann", "open")
    control.decide(ControlDecision(breaker=closed))
    assert control.snapshot.breaker == closed


def test_a_learned_deadline_is_published_and_logged() -> None:
    """From what to what, and why."""
    control = Host().control()
    for seconds in (4, 6):
        learned = LearnedDeadline(
            deadline=timedelta(seconds=seconds), reason="learned p99", samples=80
        )
        control.decide(ControlDecision(deadlines={"order": learned}))
    change = control.status().changes[0]
    assert (change.subject, change.before, change.after) == ("deadline of order", "4 s", "6 s")
    assert control.snapshot.deadlines["order"].deadline == timedelta(seconds=6)


def test_one_that_was_ended_is_taken_over() -> None:
    """All it knew goes on, and the log says so."""
    before = Host().control()
    before.set_flag(word("off", "dev"))
    again = Host().control(taken_over=before.snapshot, configured=IntegrationFlags())
    assert again.snapshot.flags == before.snapshot.flags
    assert again.snapshot.version > before.snapshot.version
    assert again.status().changes[-1].subject == "control"


def test_the_story_keeps_what_people_write_in_its_cell() -> None:
    """A reason with a bar or a line break does not break the table."""
    control = Host().control()
    control.set_flag(word("off", "dev", reason="a | b\nc" + "x" * 500))
    row = tell_control(control.status()).splitlines()[-1]
    assert r"a \| b c" in row
    assert row.replace(r"\|", "").count("|") == 7


def test_the_flags_of_a_file_are_told_by_environment() -> None:
    """Provider and operations, as words and as shares, and the names of all operations."""
    integration = load_integration(INTEGRATIONS / "sandbox.yaml", SECRETS)
    quote = integration.operations["quote"].model_copy(update={"flag": {"prod": 25.0}})
    edited = integration.model_copy(
        update={
            "flag": {"dev": "internal", "prod": "on"},
            "operations": {**integration.operations, "quote": quote},
        }
    )
    told = configured_flags(edited)
    assert str(told.flag("dev")) == "internal"
    assert str(told.flag("prod", "quote")) == "25 %"
    assert str(told.flag("prod", "create_order")) == "on"
    assert set(told.operations) == set(integration.operations)
