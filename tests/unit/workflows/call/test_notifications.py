"""The notices of a call, and when they are sent: the protocol on a simulated host."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.continuation import CallSnapshot, NotificationsState
from ackbridge.contracts.deliveries import NoticeEvent, ReplyPlan, event_id
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.notices import default_notices
from ackbridge.contracts.plan import OnFailure, Plan, Prepared
from ackbridge.contracts.signals import Cancel, Reprocess
from ackbridge.contracts.steps import Concluded
from tests.support.simulated_host import REQUEST, START, SimulatedHost, plan, response
from workflows.call.notifications import Notifications
from workflows.call.protocol import CallProtocol
from workflows.call.state import CallState
from workflows.hosting.host import StepError

EVERYTHING = ReplyPlan(subscriber="shop", events=tuple(NoticeEvent))


def planned(**changes: Any) -> Plan:
    """A plan of a call that is parked, whose subscriber wants everything."""
    fields = {"on_failure": OnFailure.PARK, "cycles": 1, "undoes": False, "reply": EVERYTHING}
    return plan(notices=dict(default_notices("en")), **{**fields, **changes})


def types_of(host: SimulatedHost) -> list[tuple[int, str]]:
    """Sequence and type of every notice."""
    return [(one.body.call.sequence, one.body.type) for one in host.deliveries]


async def test_in_time() -> None:
    """One notice, whether or not the provider accepts that we have its response."""
    host = SimulatedHost(planned()).at(1, lambda call: call.receive(response()))
    host.answers[names.ACKNOWLEDGE] = [StepError("NotAccepted", "their acknowledgements are down")]
    await host.protocol.run()
    assert types_of(host) == [(1, "call.completed")]
    (delivery,) = host.deliveries
    assert delivery.subscriber == "shop"
    assert delivery.body.id == "acme.order.k-1:1.completed"
    assert delivery.body.call.reference == "r-1"
    assert delivery.body.call.notice == default_notices("en")["completed"]


async def test_parked_and_then_late() -> None:
    """Delayed, then late; in order, each under an id of its own."""
    host = SimulatedHost(planned()).at(100, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert types_of(host) == [(1, "call.delayed"), (2, "call.completed_late")]
    assert outcome.late
    assert host.deliveries[1].body.call.late
    assert host.deliveries[0].body.timestamp == START + timedelta(seconds=30)


async def test_completed_by_a_batch_is_late() -> None:
    """After a notice of a delay, the confirmation is a late one."""
    host = SimulatedHost(planned())
    host.at(100, lambda call: call.reprocess(Reprocess(by="batch")))
    host.at(101, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert types_of(host) == [(1, "call.delayed"), (2, "call.completed_late")]
    assert outcome.late


async def test_parked_again_notifies_only_of_changes() -> None:
    """The same delay is sent once, and then the end of the call."""
    host = SimulatedHost(planned())
    for seconds in (100, 200, 300):
        host.at(seconds, lambda call: call.reprocess(Reprocess(by="batch")))
    host.at(400, lambda call: call.cancel(Cancel(by="ann", reason="enough")))
    await host.protocol.run()
    assert types_of(host) == [(1, "call.delayed"), (2, "call.cancelled")]


async def test_the_expected_time_is_that_of_the_next_batch() -> None:
    """A call that is parked again gets another notice with the new time."""
    tonight, tomorrow = START + timedelta(hours=1), START + timedelta(hours=25)
    host = SimulatedHost(planned(reprocess_attempts=5))
    host.answers[names.CONCLUDE] = [
        Concluded(next_batch=tonight),
        Concluded(next_batch=tomorrow),
    ]
    host.at(3700, lambda call: call.reprocess(Reprocess(by="batch")))
    host.at(3900, lambda call: call.receive(response()))
    await host.protocol.run()
    assert types_of(host) == [
        (1, "call.delayed"),
        (2, "call.delayed"),
        (3, "call.completed_late"),
    ]
    notices = [one.body.call.notice for one in host.deliveries]
    assert [notice and notice.expected_at for notice in notices] == [tonight, tomorrow, None]
    assert host.shown[-1].answer == "completed"


async def test_failed_with_the_alternative_and_without_the_providers_words() -> None:
    """The notice of the operation, and nothing of what the provider said."""
    said = ProviderMessage(kind=MessageKind.FAILURE, event_key="e-1", reason="ORA-600 at 10.0.0.7")
    host = SimulatedHost(planned(on_failure=OnFailure.FAIL))
    host.at(1, lambda call: call.receive(said))
    outcome = await host.protocol.run()
    (delivery,) = host.deliveries
    assert delivery.body.type == "call.failed"
    assert delivery.body.call.notice == outcome.notice == default_notices("en")["failed"]
    assert "ORA-600" in str(outcome.reason)
    assert "ORA-600" not in delivery.model_dump_json()


async def test_only_subscribed_events_are_sent_and_counted() -> None:
    """What a subscriber does not want leaves no gap in what it gets."""
    wanted = ReplyPlan(subscriber="shop", events=(NoticeEvent.COMPLETED_LATE,))
    host = SimulatedHost(planned(reply=wanted)).at(100, lambda call: call.receive(response()))
    await host.protocol.run()
    assert types_of(host) == [(1, "call.completed_late")]


async def test_without_a_subscriber_nothing_is_sent() -> None:
    """Not a step more."""
    host = SimulatedHost(planned(reply=None)).at(100, lambda call: call.receive(response()))
    await host.protocol.run()
    assert host.deliveries == []


async def test_a_continued_call_goes_on_counting() -> None:
    """The next run does not repeat a notice, and continues the sequence."""
    host = SimulatedHost(planned())
    notice = default_notices("en")["delayed"]
    before = NotificationsState(sequence=3, delayed=notice)
    snapshot = CallState.at_start(REQUEST.call_id, START).model_copy(
        update={"notifications": before}
    )
    snapshot = CallSnapshot.model_validate_json(snapshot.model_dump_json())
    state = CallState(host, REQUEST, snapshot)
    notifications = Notifications(host, state, EVERYTHING, {})
    notifications.delayed(notice)
    assert state.notifications == before
    notifications.delayed(notice.model_copy(update={"expected_at": START}))
    await notifications.all_started()
    assert types_of(host) == [(4, "call.delayed")]


@pytest.mark.parametrize("kind", ["Unavailable", "InvalidRequest"])
async def test_a_call_that_could_not_be_prepared(kind: str) -> None:
    """Its failure is sent; a rejected request is reported to its caller only."""
    host = SimulatedHost(planned())
    host.answers[names.PREPARE] = [StepError(kind, "the ledger is away")]
    request = REQUEST.model_copy(update={"reply_to": "shop", "language": "de"})
    host.protocol = CallProtocol(host, request, "run-1")
    if kind == "InvalidRequest":
        with pytest.raises(StepError):
            await host.protocol.run()
        assert host.deliveries == []
        return
    outcome = await host.protocol.run()
    assert outcome.notice == default_notices("de")["unknown"]
    assert types_of(host) == [(1, "call.failed")]


async def test_a_recorded_outcome_is_not_sent_again() -> None:
    """Another run of the same call only repeats what it was; its subscriber knows."""
    first = SimulatedHost(planned()).at(1, lambda call: call.receive(response()))
    outcome = await first.protocol.run()
    again = SimulatedHost(planned())
    again.answers[names.PREPARE] = [Prepared(recorded=outcome)]
    request = REQUEST.model_copy(update={"reply_to": "shop"})
    again.protocol = CallProtocol(again, request, "run-2")
    assert await again.protocol.run() == outcome
    assert again.deliveries == []


async def test_an_outcome_found_again_has_the_same_id() -> None:
    """A worker that died after it had recorded the response tells the same notice."""
    first = SimulatedHost(planned()).at(1, lambda call: call.receive(response()))
    outcome = await first.protocol.run()
    again = SimulatedHost(planned())
    again.answers[names.PREPARE] = [Prepared(plan=planned(), recorded=outcome, repeated=True)]
    await again.protocol.run()
    assert [one.body.id for one in again.deliveries] == [one.body.id for one in first.deliveries]


@pytest.mark.parametrize("key", ["k", "k" * 900, "ключ", "two words", "a\nb: c"])
def test_ids_fit_into_headers_and_names(key: str) -> None:
    """Whatever the key is, the id is printable ASCII, not long, and always the same."""
    call_id = f"acme.order.{key}"
    made = event_id(call_id, 7, NoticeEvent.FAILED)
    assert made == event_id(call_id, 7, NoticeEvent.FAILED)
    assert made.isascii()
    assert made.isprintable()
    assert " " not in made
    assert len(names.notice_id(made)) < 600
    assert made.endswith(":7.failed")
    assert made != event_id(call_id, 8, NoticeEvent.FAILED)
    assert made != event_id(f"{call_id}x", 7, NoticeEvent.FAILED)
