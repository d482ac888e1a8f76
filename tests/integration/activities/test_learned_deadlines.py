"""A learned deadline end to end: counters, ledger, observe, control and the next plan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest_asyncio

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Timings
from ackbridge.contracts.control import ControlSnapshot, ControlStart, LearnedDeadline
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.plan import Plan
from ackbridge.contracts.steps import CycleEnd, PrepareStep, RecordStep
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.stats.reporter import StatsReporter
from activities.observe import Observe
from activities.prepare import Prepare
from activities.send import Send
from activities.support.counters import count_cycle_ends, count_response
from workflows.provider_control.control import Control

from . import world as made
from .world import NOW, Script, World, attempt

WINDOW = timedelta(minutes=70)
"""After which nothing is left of what was observed before: a window is an hour."""


class Simulation:
    """A worker, the control of its provider, and a clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW
        self.control = Control(ControlStart(provider="acme"), None, self.clock, lambda: None)
        self.world: World | None = None

    def clock(self) -> datetime:
        """What everybody takes for the time."""
        return self.now

    @property
    def deadline(self) -> LearnedDeadline:
        """What the control publishes for orders."""
        return self.control.snapshot.deadlines["order"]

    async def after(self, answers: dict[float, int], silences: dict[float, int]) -> ControlSnapshot:
        """An hour later calls have ended so, by seconds; what the control publishes then."""
        assert self.world is not None
        self.now += WINDOW
        request = self.world.request()
        outcome = CallOutcome(
            call_id=request.call_id,
            status=OutcomeStatus.COMPLETED,
            timings=Timings(started_at=self.now),
        )
        message = ProviderMessage(kind=MessageKind.RESPONSE, event_key="e-1")
        answered = RecordStep(request=request, cycle=1, message=message, outcome=outcome)
        for seconds, calls in answers.items():
            took = timedelta(seconds=seconds)
            for _ in range(calls):
                count_response(self.world.deps, answered.model_copy(update={"took": took}))
        for seconds, calls in silences.items():
            end = CycleEnd(silent=True, after=timedelta(seconds=seconds))
            count_cycle_ends(self.world.deps, request, [end] * calls)
        await StatsReporter(self.world.deps.counters, self.world.ledger.stats, self.clock).report()
        # The first watch finds out how fast is sent, the second one learns.
        for _ in range(2):
            await self._watch(self.world)
        return self.control.snapshot

    async def _watch(self, world: World) -> None:
        environment = attempt()
        environment.worker_shutdown()
        step = self.control.observe_step()
        decision = await environment.run(Observe(world.deps).observe, step)
        self.control.apply(decision)
        if decision.rate is not None:
            self.control.rate_applied(decision.rate)

    async def plan(self, key: str) -> Plan:
        """How a call would be made now."""
        assert self.world is not None

        async def fetch(_provider: str) -> ControlSnapshot:
            return self.control.snapshot

        control = Snapshots(fetch)
        deps = replace(self.world.deps, snapshots=control, admission=Admission(control, "test"))
        step = PrepareStep(request=self.world.request(key=key), run_chain="chain-1")
        plan = (await attempt().run(Prepare(deps, Send(deps)).prepare, step)).plan
        assert plan is not None
        return plan


@pytest_asyncio.fixture
async def play(served: tuple[Script, str], tmp_path: Path) -> AsyncIterator[Simulation]:
    """Everything of it, at a time when nothing is known of the provider."""
    playing = Simulation()
    script, url = served
    async with made.world(tmp_path, script, url, playing.clock) as playing.world:
        yield playing


def seconds(deadline: LearnedDeadline) -> int:
    """How long is waited; sketches are exact to two per cent."""
    return round(deadline.deadline.total_seconds())


async def test_a_deadline_follows_its_provider_and_no_silence(play: Simulation) -> None:
    """A provider that becomes slower has it raised, by what scouts see and by no silence; one that
    drops requests has it lowered to what its answers need; the next plan has it, and why."""
    assert (await play.plan("k-1")).deadline_reason == "30 s (configured initial value)"
    await play.after({2.0: 100}, {})
    assert seconds(play.deadline) == 3
    # A third takes twice as long: who waits for 3 s gives up on those, who scouts sees them.
    await play.after({2.0: 70, 4.0: 3}, {3.0: 27})
    slower = play.deadline
    assert seconds(slower) == 6
    assert slower.reason.startswith("learned p99 3.97 s")
    reasons = set()
    for number in range(20):
        plan = await play.plan(f"k-2-{number}")
        assert plan.deadline in (slower.deadline, slower.scout_deadline)
        assert slower.reason in plan.deadline_reason
        reasons.add(plan.deadline_reason)
    assert f"{slower.deadline.total_seconds():.3g} s: {slower.reason}" in reasons
    # As many calls stay silent as before, and now nobody sees an answer, however long he waits.
    await play.after({2.0: 70}, {6.0: 27, 30.0: 3})
    assert seconds(play.deadline) == 3
    # Nobody is answered any more: slower, or silent? At first calls wait longer.
    lower = play.deadline
    waiting = await play.after({}, {3.0: 45, 30.0: 5})
    assert waiting.breaker.state is BreakerState.CLOSED
    longer = play.deadline
    assert (seconds(longer), longer.usual) == (60, lower.deadline)
    silent = await play.after({}, {60.0: 50})
    assert silent.breaker.state is BreakerState.OPEN
    assert play.deadline == longer
    told = [
        change.after for change in play.control.status().changes if "deadline" in change.subject
    ]
    assert told[:3] == [f"{one.deadline.total_seconds():g} s" for one in (longer, lower, slower)]
    assert len(told) == 4
