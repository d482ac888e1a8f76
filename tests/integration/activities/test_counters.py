"""What the activities count: errors of the provider apart from our own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage, Timings
from ackbridge.contracts.control import ControlSnapshot, LearnedDeadline
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import (
    DUPLICATE,
    AcknowledgementKind,
    AcknowledgeStep,
    AskStep,
    ConcludeStep,
    CycleEnd,
    LookStep,
    PrepareStep,
    RecordStep,
    SendStep,
    StepFailure,
    SuppressedMessage,
)
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import Count, OperationStats, Timing
from ackbridge.stats.reporter import StatsReporter
from activities.acknowledge import Acknowledge
from activities.ask_status import AskStatus
from activities.conclude import Conclude
from activities.observe import learn_deadlines
from activities.prepare import Prepare
from activities.record import Record
from activities.send import InboxReader, Send
from activities.support.counters import count_cycle_ends

from .world import NOW, World, attempt, failed

CLOSED = BreakerStatus(state=BreakerState.CLOSED, since=NOW - timedelta(days=9), reason="well")


async def counted(of: World, operation: str = "order") -> OperationStats:
    """The statistics of an operation, read from the ledger."""
    await StatsReporter(of.deps.counters, of.ledger.stats, lambda: NOW).report()
    observed = await of.ledger.stats.totals("acme", NOW)
    return observed.get(operation, OperationStats())


def counts(observed: OperationStats) -> dict[str, int]:
    """The counters that are not zero, but for those of the breaker."""
    return {
        str(what): count
        for what, count in observed.counts.items()
        if count and what not in OF_THE_BREAKER and what not in IN_ORDER
    }


OF_THE_BREAKER = {
    Count.CALLS_ANSWERED: "answered",
    Count.CALLS_FAILED: "failed",
    Count.CALLS_RESPONDED: "responded",
    Count.CALLS_SILENT: "silent",
}


IN_ORDER = {Count.CALLS_HEARD, Count.CALLS_FAILED_OVERTAKEN, Count.CALLS_SILENT_OVERTAKEN}


async def judged(of: World) -> dict[str, int]:
    """What the breaker of the operation counts."""
    observed = await counted(of)
    return {name: observed[what] for what, name in OF_THE_BREAKER.items() if observed[what]}


def without_ledger(of: World) -> Any:
    """The same worker with an unavailable ledger."""
    absent = Ledger.open("sqlite:////nowhere/at/all.db", lambda: NOW)
    return replace(of.deps, ledger=absent)


def outcome(of: World, **changes: Any) -> CallOutcome:
    """A completed outcome."""
    fields: dict[str, Any] = {
        "call_id": of.request().call_id,
        "status": OutcomeStatus.COMPLETED,
        "timings": Timings(started_at=NOW),
    }
    return CallOutcome(**fields | changes)


def record_step(of: World, key: str = "k-1", event: str = "e-1", **fields: Any) -> RecordStep:
    """The recording of a response."""
    message = ProviderMessage(kind=MessageKind.RESPONSE, event_key=event)
    changes = {"outcome": outcome(of), **fields}
    return RecordStep(request=of.request(key=key), cycle=1, message=message, **changes)


async def record(of: World, step: RecordStep) -> None:
    """Record a response."""
    await of.ledger.calls.claim(step.request, "chain-1")
    await attempt().run(Record(of.deps, Acknowledge(of.deps)).record, step)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, {"receipts": 1}),
        (422, {"refused": 1}),
        (429, {"throttled": 1}),
        (503, {"unanswered": 1}),
    ],
)
async def test_each_attempt_of_a_send_is_counted_once(
    world: World, status: int, expected: dict[str, int]
) -> None:
    """As received, refused, throttled or unanswered."""
    world.script.says({"id": "r-1"}, status)
    run = attempt().run(Send(world.deps).send, SendStep(request=world.request(), cycle=1))
    await (run if status == 200 else failed(run))
    observed = await counted(world)
    assert expected == counts(observed)
    assert observed.times[Timing.RECEIPT].count == (status == 200)


async def test_unreachable_provider_is_counted_as_unanswered(deserted: World) -> None:
    """It is not an error of ours."""
    step = SendStep(request=deserted.request(), cycle=1)
    await failed(attempt().run(Send(deserted.deps).send, step))
    assert counts(await counted(deserted)) == {"unanswered": 1}


@pytest.mark.parametrize(
    ("status", "first", "again"),
    [
        (200, {"answered": 1}, {}),
        (422, {"answered": 1}, {}),
        (429, {}, {}),
        (503, {"failed": 1}, {}),
    ],
)
async def test_the_breaker_counts_each_call_once(
    world: World, status: int, first: dict[str, int], again: dict[str, int]
) -> None:
    """Whatever the number of its attempts; a success after a failure is another outcome."""
    step = SendStep(request=world.request(), cycle=1)
    repeated = step.model_copy(update={"tried": 1, "answered": status != 503, "failed": True})
    for sent, expected in ((repeated, again), (step, first)):
        world.script.says({"id": "r-1"}, status)
        run = attempt().run(Send(world.deps).send, sent)
        if status == 200:
            await run
        else:
            (details,) = (await failed(run)).details
            assert details.throttled is (status == 429)
        assert await judged(world) == expected


async def test_a_silence_is_counted_by_the_look_that_finds_no_answer(world: World) -> None:
    """At the deadline, in the inbox or at the provider, and not with the next request."""
    silence = CycleEnd(silent=True, after=timedelta(seconds=30), sent_at=NOW)
    look = LookStep(request=world.request(), silence=silence)
    await attempt().run(InboxReader(world.deps).look_inbox, look)
    assert await judged(world) == {"silent": 1}
    ask = AskStep(request=world.request(), cycle=1, reference="r-1", silence=silence)
    for answer, silences in (({"state": "done"}, 1), ({"state": "working"}, 2)):
        world.script.says(answer)
        asked = await attempt().run(AskStatus(world.deps).ask_status, ask)
        assert (asked.message is None) is (silences == 2)
        assert await judged(world) == {"silent": silences}
    again = look.model_copy(update={"silence": silence.model_copy(update={"again": True})})
    await attempt().run(InboxReader(world.deps).look_inbox, again)
    observed = await counted(world)
    assert await judged(world) == {"silent": 2}
    assert observed[Count.SILENCES] == 3


async def test_failures_of_requests_sent_before_a_change_do_not_count(world: World) -> None:
    """They say nothing about the provider as it is now."""
    changed = CLOSED.model_copy(update={"judged_from": NOW})
    of = controlled(world, breaker=changed)
    await of.deps.snapshots.snapshot("acme")
    for sent_at in (NOW - timedelta(seconds=1), NOW):
        end = CycleEnd(silent=True, after=timedelta(seconds=30), sent_at=sent_at)
        count_cycle_ends(of.deps, of.request(), [end])
    assert await judged(of) == {"silent": 1}


async def test_a_silence_is_judged_by_the_breaker_as_it_is_now(world: World) -> None:
    """Also where no call has asked for that since the breaker has changed."""
    of = controlled(world, breaker=CLOSED.model_copy(update={"judged_from": NOW}))
    silence = CycleEnd(silent=True, sent_at=NOW - timedelta(seconds=30))
    look = LookStep(request=of.request(), silence=silence)
    await attempt().run(InboxReader(of.deps).look_inbox, look)
    assert await judged(of) == {}


async def test_what_was_sent_before_an_answered_call_is_not_the_last_in_a_row(
    world: World,
) -> None:
    """And a response counts once more at its deadline, beside the silences of its time."""
    before, due = NOW - timedelta(seconds=30), NOW - timedelta(seconds=1)
    sent = outcome(world, timings=Timings(started_at=before, sent_at=before))
    await record(world, record_step(world, outcome=sent, due=due))
    for sent_at in (before - timedelta(seconds=1), NOW):
        end = CycleEnd(silent=True, sent_at=sent_at)
        count_cycle_ends(world.deps, world.request(), [end])
    observed = await counted(world)
    assert await judged(world) == {"responded": 1, "silent": 2}
    assert (observed[Count.CALLS_HEARD], observed[Count.CALLS_SILENT_OVERTAKEN]) == (1, 1)
    world.deps.counters.order.answered("acme", "order", Count.CALLS_ANSWERED, due)
    for later, overtaken in ((due, 0), (NOW + timedelta(seconds=1), 1)):
        world.deps.counters.order.answered("acme", "order", Count.CALLS_ANSWERED, later)
        world.script.says({}, 503)
        await failed(
            attempt().run(Send(world.deps).send, SendStep(request=world.request(), cycle=1))
        )
        assert (await counted(world))[Count.CALLS_FAILED_OVERTAKEN] == overtaken


@pytest.mark.parametrize("state", BreakerState)
async def test_a_request_obeys_the_breaker_when_it_is_sent(
    world: World, state: BreakerState
) -> None:
    """Open, it is not sent; not closed, its response is awaited up to the ceiling."""
    learned = LearnedDeadline(deadline=timedelta(seconds=4), reason="learned", samples=99)
    own = CLOSED.model_copy(update={"state": state, "until": NOW + timedelta(seconds=25)})
    of = controlled(world, breakers={"order": own}, deadlines={"order": learned})
    run = attempt().run(Send(of.deps).send, SendStep(request=of.request(), cycle=1))
    if state is BreakerState.OPEN:
        error = await failed(run)
        assert (error.type, error.message) == (
            StepFailure.NOT_NOW,
            "the breaker of order is open: well",
        )
        assert error.next_retry_delay == timedelta(seconds=25)
        assert of.script.asked == []
        assert await judged(of) == {}
        return
    sent = await run
    ceiling = timedelta(minutes=10)
    is_closed = state is BreakerState.CLOSED
    assert sent.deadline == (learned.deadline if is_closed else ceiling)
    assert sent.delayed_after == (None if is_closed else learned.deadline)


async def test_own_errors_are_counted_apart(world: World) -> None:
    """A missing secret or an unavailable ledger does not count against the provider."""
    del world.environ["ACME_TOKEN"]
    await failed(attempt().run(Send(world.deps).send, SendStep(request=world.request(), cycle=1)))
    away = without_ledger(world)
    step = ConcludeStep(request=world.request(), stage=Stage.FAILED)
    await failed(attempt().run(Conclude(away).conclude, step))
    assert counts(await counted(world)) == {"ours": 2}


async def test_cycle_ends_are_counted_once(world: World) -> None:
    """A retried send does not count them again."""
    ended = (CycleEnd(silent=True, after=timedelta(seconds=4)), CycleEnd(silent=False))
    step = SendStep(request=world.request(), cycle=2, ended=ended)
    for number in (1, 2):
        await attempt(number).run(Send(world.deps).send, step)
    observed = await counted(world)
    assert counts(observed) == {"receipts": 2, "silences": 1, "failures": 1}
    assert observed.times[Timing.SILENCE].count == 1
    assert observed.times[Timing.ANSWER].count == 0


async def test_response_is_counted_once(world: World) -> None:
    """A step that runs twice, because its worker died, counts one response."""
    step = record_step(world, took=timedelta(seconds=3))
    await record(world, step)
    await record(world, step)
    observed = await counted(world)
    assert counts(observed) == {"answers": 1}
    assert observed.times[Timing.ANSWER].quantile(1) == pytest.approx(3, rel=0.02)


async def test_late_response_replaces_its_silence(world: World) -> None:
    """The counted silence is subtracted, whichever worker had counted it."""
    told = (CycleEnd(silent=True, after=timedelta(seconds=4)),)
    concluded = ConcludeStep(request=world.request(), stage=Stage.PARKED, ended=told)
    await attempt().run(Conclude(world.deps).conclude, concluded)
    late: dict[str, Any] = {"outcome": outcome(world, late=True), "overdue": True}
    took, waited = timedelta(seconds=9), (timedelta(seconds=4),)
    await record(world, record_step(world, took=took, taken_back=waited, **late))
    observed = await counted(world)
    assert counts(observed) == {"answers": 1, "silences": 1, "late": 1}
    assert [
        observed.times[name].count for name in (Timing.SILENCE, Timing.ANSWER, Timing.OVERDUE)
    ] == [0, 1, 1]


async def test_duplicates_are_counted(world: World) -> None:
    """Those suppressed by the call, and one applied by another call."""
    await record(world, record_step(world))
    await record(world, record_step(world, key="k-2"))
    suppressed = [SuppressedMessage(event_key="e", reason=why) for why in (DUPLICATE, "late")]
    step = ConcludeStep(
        request=world.request(), stage=Stage.COMPLETED, suppressed=tuple(suppressed)
    )
    await attempt().run(Conclude(world.deps).conclude, step)
    assert counts(await counted(world)) == {"answers": 1, "duplicates": 2}


async def test_status_requests_and_acknowledgements_are_counted(world: World) -> None:
    """With and without an answer."""
    told = AcknowledgeStep(
        request=world.request(), cycle=1, kind=AcknowledgementKind.FAILED, reference="r-1"
    )
    asked = AskStep(request=world.request(), cycle=1, reference="r-1")
    for status in (200, 503):
        world.script.says({}, status)
        run = attempt().run(Acknowledge(world.deps).acknowledge, told)
        await (run if status == 200 else failed(run))
        world.script.says({}, status)
        question = attempt().run(AskStatus(world.deps).ask_status, asked)
        await (question if status == 200 else failed(question))
    assert counts(await counted(world)) == {
        "acknowledged": 1,
        "unacknowledged": 1,
        "asked": 1,
        "asked_in_vain": 1,
    }


async def test_invalid_or_unknown_requests_are_not_counted(world: World) -> None:
    """They are neither the provider's errors nor ours."""
    for request in (world.request("nothing"), world.request("nowhere", payload="x" * 600_000)):
        step = PrepareStep(request=request, run_chain="chain-1")
        await failed(attempt().run(Prepare(world.deps, Send(world.deps)).prepare, step))
        assert counts(await counted(world, request.operation)) == {}


async def test_missing_secret_is_counted_as_ours(world: World) -> None:
    """Whatever activity needs it."""
    del world.environ["ACME_TOKEN"]
    step = PrepareStep(request=world.request(), run_chain="chain-1")
    await failed(attempt().run(Prepare(world.deps, Send(world.deps)).prepare, step))
    assert counts(await counted(world)) == {"ours": 1}


def controlled(of: World, **published: Any) -> World:
    """The same worker, with a control that has published this."""
    fields = {"provider": "acme", "version": 3, "at": NOW, "breaker": CLOSED, **published}
    snapshot = ControlSnapshot(**fields)

    async def fetch(_provider: str) -> ControlSnapshot:
        return snapshot

    control = Snapshots(fetch)
    deps = replace(of.deps, snapshots=control, admission=Admission(control, "test"))
    return replace(of, deps=deps)


async def test_plan_has_the_learned_deadline_and_its_reason(world: World) -> None:
    """From the control's snapshot; calls that wait longer say so."""
    learned = LearnedDeadline(
        deadline=timedelta(seconds=4),
        reason="learned p99 2.67 s × 1.5, 812 samples",  # noqa: RUF001 -- the sign people write
        samples=812,
        scouts=0.5,
        scout_deadline=timedelta(seconds=30),
    )
    told = controlled(world, deadlines={"order": learned, "quote": learned})
    reasons = {await deadline_reason(told, "order", f"k-{number}") for number in range(20)}
    assert reasons == {
        f"4 s: {learned.reason}",
        f"30 s: 50% of calls wait longer than 4 s, to measure slower responses ({learned.reason})",
    }
    # Its file does not ask for learning.
    assert await deadline_reason(told, "quote", "k-1") == "30 s (configured initial value)"


async def deadline_reason(of: World, operation: str, key: str) -> str:
    """The reason of a call's deadline, the same when it is prepared again."""
    step = PrepareStep(request=of.request(operation, key=key), run_chain="chain-1")
    plans = [
        (await attempt().run(Prepare(of.deps, Send(of.deps)).prepare, step)).plan for _ in range(2)
    ]
    assert plans[0] == plans[1]
    assert plans[0] is not None
    return plans[0].deadline_reason


async def test_deadlines_are_learned_from_counters(world: World) -> None:
    """From the activities through the ledger to a decision."""
    integration = world.deps.catalog.integration("acme")
    for _ in range(60):
        world.deps.counters.time("acme", "order", Timing.ANSWER, timedelta(seconds=2))
        world.deps.counters.count("acme", "quote", Count.ANSWERS)
    await counted(world)
    learned = await learn_deadlines(world.ledger, integration, {}, NOW)
    assert learned.keys() == {"order"}
    assert learned["order"].deadline.total_seconds() == pytest.approx(3, rel=0.03)
    assert await learn_deadlines(world.ledger, integration, learned, NOW) == {}


async def test_an_extended_deadline_is_learned_from_later_calls_only(world: World) -> None:
    """What was counted before it was extended is left out, in fine and in coarse buckets."""
    integration = world.deps.catalog.integration("acme")
    for _ in range(60):
        world.deps.counters.time("acme", "order", Timing.ANSWER, timedelta(seconds=2))
    await counted(world)
    known = LearnedDeadline(
        deadline=timedelta(seconds=40),
        reason="extended",
        samples=0,
        since=NOW + timedelta(seconds=10),
        usual=timedelta(seconds=3),
    )
    for minutes in (1, 20):
        later = NOW + timedelta(minutes=minutes)
        assert await learn_deadlines(world.ledger, integration, {"order": known}, later) == {}
        before = known.model_copy(update={"since": NOW - timedelta(minutes=6)})
        found = await learn_deadlines(world.ledger, integration, {"order": before}, later)
        assert found["order"].usual is None
