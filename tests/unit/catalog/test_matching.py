"""What comes in: keys, matches, and what a message means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.matching import (
    Match,
    classify,
    find_event_key,
    find_matches,
    is_receipt,
    receipt_reference,
)
from ackbridge.catalog.model import Operation
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import HeaderVerify
from tests.support.catalog_files import acme, answer, callback

AT = datetime(2026, 1, 2, tzinfo=UTC)

CALLBACK = {
    "mode": "callback",
    "match": {"call_id": "call", "reference": "order.id"},
    "success": "type == 'done'",
    "failure": {"when": "type == 'failed'", "retryable": "again", "reason": "why"},
    "extension": {"when": "type == 'wait'", "until": "until", "by": "by"},
    "data": "order",
    "deadline": {"initial": "30s"},
}
RECEIPT = {"reference": "order.id"}


def heard(
    operation: Operation, document: dict[str, Any], source: MessageSource = MessageSource.CALLBACK
) -> ProviderMessage | None:
    """What a document means to an operation."""
    return classify(operation, document, "e1", source, AT)


@pytest.fixture
def order(tmp_path: Path) -> Operation:
    """An operation answered by callback."""
    return acme(tmp_path, receipt=RECEIPT, response=CALLBACK).operations["order"]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"id": "e1"}, "e1"),
        ({"id": 7}, "7"),
        ({"id": ""}, None),
        ({"id": None}, None),
        ({"id": True}, None),
        ({"id": {"a": 1}}, None),
        ({}, None),
        ([1], None),
    ],
)
def test_event_keys_are_texts_or_numbers(tmp_path: Path, body: Any, key: str | None) -> None:
    """Anything else is no key."""
    assert key == find_event_key(acme(tmp_path), callback(body))


@pytest.mark.parametrize(
    ("body", "matches"),
    [
        ({"call": "acme.order.k"}, [Match("order", "acme.order.k", None)]),
        ({"order": {"id": 7}}, [Match("order", None, "7")]),
        (
            {"call": "acme.order.k", "order": {"id": "7"}},
            [Match("order", "acme.order.k", "7")],
        ),
        ({"call": "acme.refund.k", "order": {"id": "7"}}, []),
        ({"call": "other.order.k"}, []),
        ({"call": "anything"}, []),
        ({}, []),
    ],
)
def test_a_provider_speaks_about_its_own_calls_only(
    tmp_path: Path, body: Any, matches: list[Match]
) -> None:
    """A call id of another operation or provider is not this operation's."""
    integration = acme(tmp_path, receipt=RECEIPT, response=CALLBACK)
    assert matches == find_matches(integration, callback(body))


def test_operations_without_callbacks_are_no_candidates(tmp_path: Path) -> None:
    """Nothing is waited for there."""
    assert find_matches(acme(tmp_path), callback({"call": "acme.order.k"})) == []


def test_a_success_carries_its_data(order: Operation) -> None:
    """`data` says which part of the message the caller gets."""
    message = heard(order, callback({"type": "done", "order": {"id": 7}}))
    assert message == ProviderMessage(
        kind=MessageKind.RESPONSE,
        event_key="e1",
        data={"id": 7},
        reference="7",
        received_at=AT,
        source=MessageSource.CALLBACK,
    )


def test_a_message_carries_the_reference_it_names(order: Operation, tmp_path: Path) -> None:
    """A callback by `match`, an answer by `receipt`; one that names none, or none that fits."""
    done = {"type": "done", "call": "acme.order.k"}
    response = {"mode": "sync", "success": "type == 'done'"}
    asked = acme(tmp_path, receipt={"reference": "ticket"}, response=response).operations["order"]

    by_callback = heard(order, callback({**done, "order": {"id": 7}}))
    nameless = heard(order, callback(done))
    endless = heard(order, callback({**done, "order": {"id": "x" * 513}}))
    by_answer = [
        heard(asked, answer({**done, "ticket": 8}), source)
        for source in (MessageSource.SYNC, MessageSource.STATUS)
    ]

    told = [m and m.reference for m in (by_callback, nameless, endless, *by_answer)]
    assert told == ["7", None, None, "8", "8"]
    assert None not in (by_callback, nameless, endless)


def test_a_reason_carries_no_secrets(order: Operation) -> None:
    """What a provider quotes of our request is not for people to read."""
    event = callback({"type": "failed", "why": "bad key sk_live_1234567890"})
    message = heard(order, event)
    assert message is not None
    assert message.reason == "bad key ***"

    environ = {"TOKEN": "open sesame"}
    verify = HeaderVerify(type="header", name="X", secrets=("env:TOKEN",))
    redactor = Redactor(None, verify, Secrets(environ, Path("/nowhere")))
    event = callback({"type": "failed", "why": "not by open sesame"})
    message = classify(order, event, "e1", MessageSource.CALLBACK, AT, redactor)
    assert message is not None
    assert message.reason == "not by ***"


def test_a_polled_answer_goes_by_the_rules_of_status(tmp_path: Path) -> None:
    """There is nothing but status answers in poll mode, and callbacks are none of it."""
    response = {"mode": "poll", "status": {"path": "/o", "success": "body.done"}}
    integration = acme(tmp_path, response=response)
    operation = integration.operations["order"]
    assert heard(operation, answer({"done": False}), MessageSource.STATUS) is None
    assert heard(operation, answer({"done": True}), MessageSource.STATUS) is not None
    assert find_matches(integration, callback({"call": "acme.order.k"})) == []


def test_a_failure_says_why_and_whether_to_try_again(order: Operation) -> None:
    """The reason becomes a text of bounded length."""
    message = heard(order, callback({"type": "failed", "again": True, "why": "x" * 3000}))
    assert message is not None
    assert (
        message.kind,
        message.retryable,
        message.reason,
    ) == (MessageKind.FAILURE, True, "x" * 2000)
    plain = heard(order, callback({"type": "failed", "why": {"code": 1}}))
    assert plain is not None
    assert (plain.retryable, plain.reason) == (False, '{"code": 1}')


@pytest.mark.parametrize(
    ("said", "until", "by"),
    [
        ({"until": "2026-01-03T00:00:00Z"}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": "2026-01-03T00:00:00"}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": 1767398400}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"by": 90}, None, timedelta(seconds=90)),
        ({"by": "5m"}, None, timedelta(minutes=5)),
        ({}, None, timedelta(seconds=30)),
        ({"until": "soon", "by": "later"}, None, timedelta(seconds=30)),
        ({"until": 1e300, "by": -5}, None, timedelta(seconds=30)),
        ({"until": ["x"], "by": {"x": 1}}, None, timedelta(seconds=30)),
    ],
)
def test_extensions(
    order: Operation, said: dict[str, Any], until: datetime | None, by: timedelta | None
) -> None:
    """Until a moment, by a span, or by as much as there was."""
    message = heard(order, callback({"type": "wait", **said}))
    assert message is not None
    assert (MessageKind.EXTENSION, until, by) == (message.kind, message.until, message.extend_by)


def test_failure_wins_over_extension_and_both_over_success(tmp_path: Path) -> None:
    """What contradicts itself is no success."""
    response = {**CALLBACK, "success": "ok", "failure": {"when": "bad"}, "extension": {"when": "w"}}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    for body, kind in (
        ({"ok": 1, "bad": 1, "w": 1}, MessageKind.FAILURE),
        ({"ok": 1, "w": 1}, MessageKind.EXTENSION),
        ({"ok": 0}, MessageKind.RESPONSE),
    ):
        message = heard(operation, callback(body))
        assert message is not None
        assert kind is message.kind


@pytest.mark.parametrize("body", [{"type": "created"}, {}, [], None, "text", {"type": None}])
def test_what_is_not_awaited_is_none(order: Operation, body: Any) -> None:
    """Providers send messages of many kinds."""
    assert heard(order, callback(body)) is None


def test_an_expression_that_does_not_fit_does_not_hold(tmp_path: Path) -> None:
    """A function over a field that is not there is false, not an error."""
    response = {**CALLBACK, "success": "contains(type, 'done')"}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    assert heard(operation, callback({})) is None
    assert heard(operation, callback({"type": "x.done"})) is not None


def test_a_synchronous_answer_is_a_success_by_default(tmp_path: Path) -> None:
    """Any 2xx, with its whole body, unless a failure holds."""
    operation = acme(tmp_path, response={"mode": "sync", "failure": {"when": "error"}}).operations[
        "order"
    ]
    message = heard(operation, answer([1, 2], 201), MessageSource.SYNC)
    assert message is not None
    assert message.data == [1, 2]
    failure = heard(operation, answer({"error": "x"}), MessageSource.SYNC)
    assert failure is not None
    assert MessageKind.FAILURE is failure.kind
    assert heard(operation, answer({}, 404), MessageSource.SYNC) is None
    assert heard(operation, callback({})) is None


def test_a_status_answer_has_rules_of_its_own(tmp_path: Path) -> None:
    """What `status` leaves out is the response's; `status` is the HTTP status there."""
    status = {"path": "/o", "success": "body.status == 'paid'", "data": "body"}
    response = {**CALLBACK, "status": status}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    paid = {"status": "paid", "type": "x"}
    message = heard(operation, answer(paid), MessageSource.STATUS)
    assert message is not None
    assert paid == message.data
    assert heard(operation, answer({"type": "done"}), MessageSource.STATUS) is None
    failed = heard(operation, answer({"type": "failed"}), MessageSource.STATUS)
    assert failed is not None
    assert MessageKind.FAILURE is failed.kind


def test_receipts_are_2xx_and_what_the_operation_accepts(tmp_path: Path) -> None:
    """`accept` adds to 2xx, and the reference is a text of bounded length."""
    operation = acme(tmp_path, receipt={"reference": "id", "accept": "status == `409`"}).operations[
        "order"
    ]
    assert [
        is_receipt(operation, status, answer({}, status)) for status in (200, 202, 409, 302, 404)
    ] == [True, True, True, False, False]
    assert receipt_reference(operation, answer({"id": 7})) == "7"
    assert receipt_reference(operation, answer({"id": "x" * 513})) is None
    assert receipt_reference(operation, answer({})) is None
