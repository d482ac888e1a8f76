"""The control of a provider without an engine: commands, log, snapshot and details."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.catalog.catalog import configured_flags
from ackbridge.catalog.loading import load_integration
from ackbridge.contracts.breaker import BreakerState, BreakerStatus, ForceBreaker, SetLimit
from ackbridge.contracts.control import (
    CHANGED_SINCE,
    MAX_CHANGES,
    ControlChange,
    ControlDecision,
    ControlStart,
    ControlState,
    DrainResult,
    FlagState,
    FlagValue,
    IntegrationFlags,
    LearnedDeadline,
    Recovery,
    SetFlag,
)
from ackbridge.contracts.quotas import QuotaStatus
from ackbridge.contracts.wire import InvalidInputError
from tests.support.stage import INTEGRATIONS, SECRETS
from workflows.provider_control.control import Control
from workflows.provider_control.ui_details import render

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OFF = FlagValue(state=FlagState.OFF)
FILE = IntegrationFlags(flags={"prod": {"": OFF}}, operations=("order", "refund"))


class Host:
    """A fixed clock, and the number of publications."""

    def __init__(self) -> None:
        self.published = 0

    def control(self, state: ControlState | None = None, **start: Any) -> Control:
        """Acme's control."""
        started = ControlStart.model_validate({"provider": "acme", "configured": FILE, **start})
        control = Control(started, state, lambda: NOW, self._publish)
        control.begin()
        return control

    def _publish(self) -> None:
        self.published += 1


def flag(state: str, environment: str = "prod", **more: Any) -> SetFlag:
    fields = {"environment": environment, "state": state, "by": "ann", "reason": "a trial"}
    return SetFlag.model_validate({**fields, **more})


STATES = st.sampled_from(["on", "off", "internal", "default"])
COMMANDS = st.builds(
    flag,
    STATES,
    st.sampled_from(["prod", "dev"]),
    operation=st.sampled_from([None, "order", "refund"]),
    by=st.sampled_from(["ann", "bo"]),
)


@given(st.lists(COMMANDS, max_size=12))
def test_last_command_wins_and_log_has_every_change(commands: list[SetFlag]) -> None:
    """Each flag has its last value, and each logged change starts where the last one ended."""
    control = Host().control()
    last: dict[tuple[str, str], SetFlag] = {}
    for command in commands:
        version = control.snapshot.version
        control.set_flag(command)
        control.set_flag(command)
        assert control.snapshot.version <= version + 1
        last[command.environment, command.operation or ""] = command
    for (environment, operation), command in last.items():
        setting = control.snapshot.override(environment, operation)
        assert (setting.state if setting else "default") == command.state
    values: dict[str, str] = {}
    for change in reversed(control.status().changes):
        assert values.get(change.subject, change.before) == change.before
        values[change.subject] = change.after


@given(st.lists(COMMANDS, max_size=8))
def test_continue_as_new_keeps_the_state(commands: list[SetFlag]) -> None:
    """The next run has the same status, through JSON and back."""
    control = Host().control()
    for command in commands:
        control.set_flag(command)
    control.reject("a bad one")
    state = ControlState.model_validate_json(control.state().model_dump_json())
    assert Host().control(state).status() == control.status()


def test_repeated_command_changes_nothing() -> None:
    """The same command twice is one change; another reason for the same value is a change."""
    control = Host().control()
    for reason in ("a trial", "a trial", "it goes on"):
        control.set_flag(flag("off", "dev", reason=reason))
    assert [change.reason for change in control.status().changes] == ["it goes on", "a trial"]
    version = control.snapshot.version
    control.force_breaker(ForceBreaker(state=None, by="ann", reason="not forced"))
    assert control.snapshot.version == version


def test_log_is_bounded() -> None:
    """A control that runs for months keeps the newest changes."""
    control = Host().control()
    for share in range(MAX_CHANGES + 20):
        control.set_flag(flag("percentage", percentage=share / 2, by=f"n{share}"))
    changes = control.status().changes
    assert len(changes) == MAX_CHANGES
    assert changes[0].by == f"n{MAX_CHANGES + 19}"


def test_environments_are_bounded() -> None:
    """The snapshot, which workers read every second, stays small."""
    control = Host().control()
    for number in range(50):
        control.set_flag(flag("off", f"e{number}"))
    with pytest.raises(InvalidInputError, match="environment"):
        control.set_flag(flag("off", "one-too-many"))
    control.set_flag(flag("on", "e7"))


def test_integration_file_does_not_undo_an_override() -> None:
    """The new file is logged; the override stays, and the new file applies without it."""
    control = Host().control()
    control.set_flag(flag("internal"))
    control.configure(FILE)
    version = control.snapshot.version
    control.configure(IntegrationFlags(operations=("order",)))
    assert control.snapshot.version == version + 1
    assert control.status().changes[0].subject == "file's flag of the provider in prod"
    assert control.set_flag(flag("default")).after == "on (integration file)"


def test_forced_breaker_keeps_its_state() -> None:
    """Decisions change the breaker until it is forced, and again once it is released."""
    control = Host().control()
    opened = BreakerStatus(state=BreakerState.OPEN, since=NOW, reason="8 of 10 failed")
    closed = opened.model_copy(update={"state": BreakerState.CLOSED, "reason": "it is up"})
    control.apply(ControlDecision(breaker=opened))
    control.force_breaker(ForceBreaker(state=BreakerState.OPEN, by="ann", reason="not yet"))
    control.apply(ControlDecision(breaker=closed))
    held = control.snapshot.breaker
    assert (held.state, held.forced_by) == (BreakerState.OPEN, "ann")
    change = control.force_breaker(ForceBreaker(state=None, by="bo", reason="now"))
    assert (change.before, change.after) == ("open, held by ann", "open")
    control.apply(ControlDecision(breaker=closed))
    assert control.snapshot.breaker == closed


def test_what_operations_saw_while_their_provider_was_held_closed_is_over() -> None:
    """Released, the provider is judged anew; an operation that an operator forced stays forced."""
    control = Host().control()
    opened = BreakerStatus(state=BreakerState.OPEN, since=NOW, reason="24 calls failed in a row")
    closed = ForceBreaker(state=BreakerState.CLOSED, by="ann", reason="a drill")
    control.force_breaker(closed)
    stopped = {"operation": "refund", "state": BreakerState.OPEN, "reason": "a mistake of theirs"}
    control.force_breaker(closed.model_copy(update=stopped))
    control.apply(ControlDecision(breakers={"order": opened}))
    assert control.snapshot.breakers["order"] == opened

    change = control.force_breaker(ForceBreaker(state=None, by="ann", reason="the drill is over"))

    assert change.after == "closed"
    assert control.snapshot.breaker_of("order").state is BreakerState.CLOSED
    assert control.snapshot.breakers["order"].judged_from == NOW
    assert control.snapshot.breakers["refund"].forced_by == "ann"


def breaker(state: BreakerState, since: datetime | None = NOW) -> ControlDecision:
    status = BreakerStatus(state=state, since=NOW, reason="-", opened_at=since)
    return ControlDecision(breaker=status)


def test_a_breaker_that_closes_drains_what_its_outage_has_parked() -> None:
    """Once, unless it is open again by then; what has yet to be started is kept."""
    control = Host().control()
    assert control.next_drain() is None
    control.apply(breaker(BreakerState.OPEN))
    control.apply(breaker(BreakerState.CLOSED))
    control.apply(breaker(BreakerState.OPEN))
    assert control.next_drain() is None
    control.apply(breaker(BreakerState.CLOSED))
    state = ControlState.model_validate_json(control.state().model_dump_json())
    control = Host().control(state)
    step = control.next_drain()
    assert step is not None
    assert (step.since, step.previous) == (NOW, ())
    recovery = Recovery(since=NOW, batch="batch.acme:recovery-5")
    control.drained(step, DrainResult(recovery=recovery, quarantined=("acme.order.poisoned",)))
    assert control.next_drain() is None
    assert control.status().changes[0].after == "acme.order.poisoned"
    details = render(control.status())
    assert "batch.acme:recovery-5" in details
    assert "they fail again and again alone: `acme.order.poisoned`" in details
    control = Host().control(ControlState.model_validate_json(control.state().model_dump_json()))
    assert control.status().quarantined == ("acme.order.poisoned",)
    assert control.observe_step().quarantined == ("acme.order.poisoned",)
    control.apply(ControlDecision(quarantined=()))
    assert control.status().quarantined == ()
    assert "in quarantine, because" not in render(control.status())
    control.apply(breaker(BreakerState.OPEN))
    control.apply(breaker(BreakerState.CLOSED))
    step = control.next_drain()
    assert step is not None
    assert step.previous == (recovery,)


def test_maintenance_drains_what_it_has_parked() -> None:
    """Even if the breaker is released at once, before the recovery begins."""
    control = Host().control()
    hold = ForceBreaker(state=BreakerState.OPEN, by="ann", reason="maintenance")
    for state in (BreakerState.OPEN, BreakerState.CLOSED, None):
        control.force_breaker(hold.model_copy(update={"state": state}))
    step = control.next_drain()
    assert step is not None
    assert step.since == NOW


def test_learned_deadline_is_published_and_logged() -> None:
    """The log has the deadline before and after."""
    control = Host().control()
    for seconds in (4, 6):
        learned = LearnedDeadline(
            deadline=timedelta(seconds=seconds), reason="learned p99", samples=80
        )
        control.apply(ControlDecision(deadlines={"order": learned}))
    change = control.status().changes[0]
    assert (change.subject, change.before, change.after) == ("deadline of order", "4 s", "6 s")
    assert control.snapshot.deadlines["order"].deadline == timedelta(seconds=6)


def test_terminated_control_is_restored() -> None:
    """The new control has the last snapshot, and logs it."""
    before = Host().control()
    before.set_flag(flag("off", "dev"))
    again = Host().control(taken_over=before.snapshot, configured=IntegrationFlags())
    assert again.snapshot.flags == before.snapshot.flags
    assert again.snapshot.version > before.snapshot.version
    assert again.status().changes[-1].subject == "control"


def test_changes_are_sentences() -> None:
    """The Temporal UI cuts off wide tables; a reason with a line break stays in its line."""
    control = Host().control()
    control.set_flag(flag("off", "dev", reason="a | b\nc" + "x" * 500))
    details = render(control.status())
    line = details.splitlines()[-1]
    assert "on (integration file) → **off**, by ann: " in line
    assert r"a \| b c" in line
    assert "|---" not in details


def test_configured_flags_by_environment() -> None:
    """Flags of the provider and of operations, as states and percentages, and all operations."""
    integration = load_integration(INTEGRATIONS / "sandbox.yaml", SECRETS)
    quote = integration.operations["quote"].model_copy(update={"flag": {"prod": 25.0}})
    edited = integration.model_copy(
        update={
            "flag": {"dev": "internal", "prod": "on"},
            "operations": {**integration.operations, "quote": quote},
        }
    )
    flags = configured_flags(edited)
    assert str(flags.flag("dev")) == "internal"
    assert str(flags.flag("prod", "quote")) == "25 %"
    assert str(flags.flag("prod", "create_order")) == "on"
    assert set(flags.operations) == set(integration.operations)


def test_accepted_rate_is_published_and_an_operators_limit_starts_it_over() -> None:
    """The log says what was rejected; monitoring forgets what was learned before the limit."""
    control = Host().control()
    quota = QuotaStatus(per_second=8.5, since=NOW, reason="12 of 109 requests were answered 429")
    control.apply(ControlDecision(quotas={"": quota}))
    assert control.snapshot.is_throttled
    assert control.observe_step().quotas == {"": quota}
    change = control.status().changes[0]
    assert (change.subject, change.before, change.after) == ("accepted rate", "no limit", "8.5/s")
    assert "8.5/s" in render(control.status())
    assert control.observe_step().limit_changed_at is None
    control.set_limit(SetLimit(per_second=None, by="ann", reason="they raised it"))
    assert control.observe_step().limit_changed_at == NOW
    control.apply(ControlDecision(quotas={}))
    assert not control.snapshot.is_throttled


def test_a_change_that_expects_another_setting_is_refused() -> None:
    """So that nobody overwrites what was set since he has read it; repeating reads it again."""
    control = Host().control()
    commands: list[tuple[Callable[[str], ControlChange], Callable[[], str]]] = [
        (
            lambda expected: control.set_flag(flag("on", expected=expected)),
            lambda: control.snapshot.flag_tag("prod", None),
        ),
        (
            lambda expected: control.set_limit(
                SetLimit(per_second=2, by="ann", reason="slow", expected=expected)
            ),
            lambda: control.snapshot.limit_tag(),
        ),
        (
            lambda expected: control.force_breaker(
                ForceBreaker(
                    state=BreakerState.OPEN,
                    operation="order",
                    by="ann",
                    reason="a drill",
                    expected=expected,
                )
            ),
            lambda: control.snapshot.breaker_tag("order"),
        ),
    ]
    for change, tag in commands:
        read = tag()
        change(read)
        assert tag() != read
        with pytest.raises(InvalidInputError, match=CHANGED_SINCE):
            change(read)
        change(tag())
