"""What a call reports to the statistics: durations of responses, timeouts, failures, each once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from ackbridge.contracts import names
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.plan import OnFailure
from ackbridge.contracts.signals import ForceAck
from ackbridge.contracts.steps import CycleEnd, RecordStep, Sent
from tests.support.simulated_host import START, SimulatedHost, plan, response
from workflows.hosting.host import Condition


def seconds(number: float) -> timedelta:
    """A span."""
    return timedelta(seconds=number)


def sent(reference: str = "r-1", **changes: Any) -> Sent:
    """A receipt."""
    receipt = Sent(sent_at=START, receipt_at=START, reference=reference)
    return receipt.model_copy(update=changes)


def said(host: SimulatedHost, at: float, message: ProviderMessage) -> SimulatedHost:
    """Let a message arrive so many seconds after the start."""
    return host.at(at, lambda protocol: protocol.receive(message))


def ends(host: SimulatedHost) -> list[CycleEnd]:
    """Everything that was reported, in the order and in whichever step."""
    found = []
    for _, step in host.performed:
        silence = getattr(step, "silence", None)
        found += [*getattr(step, "ended", ()), *([silence] if silence else [])]
    return found


def silence(after: timedelta | None, **more: Any) -> CycleEnd:
    return CycleEnd(silent=True, after=after, sent_at=START, **more)


def recorded(host: SimulatedHost) -> RecordStep:
    """The one record of the call."""
    (step,) = host.steps(names.RECORD)
    assert isinstance(step, RecordStep)
    return step


async def test_a_response_reports_its_duration() -> None:
    """From the sending, within the deadline; and nothing else."""
    host = said(SimulatedHost(plan()), 4, response())
    await host.protocol.run()
    step = recorded(host)
    assert (step.took, step.overdue, step.taken_back) == (seconds(4), False, ())
    assert step.due == START + seconds(30)
    assert ends(host) == []


async def test_the_gateways_time_counts_where_it_makes_sense() -> None:
    """A worker that was away must not make the provider slow, nor a clock that is wrong."""
    plausible = response(received_at=START + seconds(1))
    early = response(received_at=START - seconds(100))
    for message, took in ((plausible, 1), (early, 4)):
        host = said(SimulatedHost(plan()), 4, message)
        await host.protocol.run()
        assert recorded(host).took == seconds(took)


async def test_timeouts_and_failures_are_reported_once() -> None:
    """When they happen, with a step that is there anyway: none is there for statistics alone."""
    failure = ProviderMessage(kind=MessageKind.FAILURE, event_key="f", reference="r-2")
    host = SimulatedHost(plan(), send=[sent("r-1"), sent("r-2")])
    said(host, 37, failure)
    await host.protocol.run()
    sent_at, due = START + seconds(30), START + seconds(60)
    failed = CycleEnd(silent=False, after=seconds(7), sent_at=sent_at, due=due)
    assert ends(host) == [silence(seconds(30)), failed]
    steps = [name for name, step in host.performed if getattr(step, "silence", None)]
    assert steps == [names.LOOK_INBOX], "before the next request, not with it"
    assert set(names_of(host)) <= {
        *(names.PREPARE, names.SEND, names.LOOK_INBOX, names.ACKNOWLEDGE, names.CONCLUDE),
    }


class Overloaded(SimulatedHost):
    """Its timers fire two seconds late."""

    async def wait(self, condition: Condition, until: datetime | None, summary: str = "") -> bool:
        has_timer = until is not None and until > self._now
        is_true = await super().wait(condition, until, summary)
        if has_timer and not is_true:
            self._now += timedelta(seconds=2)
        return is_true


async def test_an_overloaded_workflow_counts_a_silence_after_its_look() -> None:
    """Answers may wait for it: with the step that follows, and once."""
    host = Overloaded(plan(cycles=1, on_failure=OnFailure.FAIL))
    async with asyncio.timeout(10):
        await host.protocol.run()
    (timeout,) = ends(host)
    assert timeout.silent
    steps = [name for name, step in host.performed if getattr(step, "silence", None)]
    assert steps == []


def names_of(host: SimulatedHost) -> list[str]:
    """The steps of a call."""
    return [name for name, _ in host.performed]


async def test_a_late_response_takes_its_timeout_back() -> None:
    """And tells how long it has really taken, from the sending of its own cycle."""
    parked = plan(cycles=1, on_failure=OnFailure.PARK, undoes=False)
    host = said(SimulatedHost(parked), 42, response())
    await host.protocol.run()
    step = recorded(host)
    assert (step.took, step.overdue) == (seconds(42), True)
    assert step.taken_back == (seconds(30),)
    assert ends(host) == [silence(seconds(30))]


async def test_a_late_answer_of_a_parked_call_counts() -> None:
    """However long it has been parked."""
    host = SimulatedHost(plan(cycles=1, on_failure=OnFailure.PARK, undoes=False))
    said(host, 5000, response())
    await host.protocol.run()
    step = recorded(host)
    assert (step.took, step.taken_back) == (seconds(5000), (seconds(30),))
    assert step.due is None


async def test_an_extended_answer_is_overdue() -> None:
    """It came after the deadline of its plan, though nobody had given up."""
    more = ProviderMessage(kind=MessageKind.EXTENSION, event_key="x", until=START + seconds(100))
    host = said(said(SimulatedHost(plan()), 20, more), 90, response())
    await host.protocol.run()
    assert (recorded(host).took, recorded(host).overdue) == (seconds(90), True)
    assert ends(host) == []


async def test_two_sends_under_one_key_report_no_duration() -> None:
    """The response may belong to either of them."""
    host = said(SimulatedHost(plan(), send=[sent(again=True)]), 4, response())
    await host.protocol.run()
    assert recorded(host).took is None

    without = plan(acknowledge=None)
    host = said(SimulatedHost(without), 35, response())
    await host.protocol.run()
    assert host.sent_cycles == [1, 1]
    assert recorded(host).took is None
    assert ends(host) == [silence(seconds(30))]


async def test_a_forced_response_reports_no_duration() -> None:
    """It says nothing about the provider."""
    operator = ForceAck(by="ops", reason="seen", response={"ok": True})
    host = SimulatedHost(plan()).at(4, lambda protocol: protocol.force_ack(operator))
    await host.protocol.run()
    assert recorded(host).took is None
