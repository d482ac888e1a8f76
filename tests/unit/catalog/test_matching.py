"""Interpreting messages: event keys, matches, and what a message means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.matching import (
    FailureText,
    Match,
    accepts_acknowledgement,
    classify,
    find_event_key,
    find_matches,
    is_receipt,
    kept_values,
    receipt_data,
    receipt_failure,
    receipt_pause,
    receipt_reference,
    receipt_response,
    refusal,
)
from ackbridge.catalog.model import Operation
from ackbridge.contracts.limits import MAX_CODE_LENGTH
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.names import short_call_id
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


def classified(
    operation: Operation, document: dict[str, Any], source: MessageSource = MessageSource.CALLBACK
) -> ProviderMessage | None:
    """The message that an operation makes of a document."""
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
    """Other values are no key."""
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
def test_call_ids_of_others_are_no_match(tmp_path: Path, body: Any, matches: list[Match]) -> None:
    """A call id of another operation or provider is ignored."""
    integration = acme(tmp_path, receipt=RECEIPT, response=CALLBACK)
    assert matches == find_matches(integration, callback(body))


def test_short_call_ids(tmp_path: Path) -> None:
    """They find the call like a reference, where the provider gets them."""
    short = short_call_id("acme.order.k")
    body = {"ref": "{call.short}"}
    integration = acme(
        tmp_path, request={"path": "/x", "body": body}, response=CALLBACK, receipt=RECEIPT
    )
    other = acme(tmp_path, response=CALLBACK, receipt=RECEIPT)
    assert (len(short), short.isalnum(), short.islower()) == (26, True, True)
    assert find_matches(integration, callback({"call": short})) == [Match("order", None, short)]
    assert find_matches(integration, callback({"call": "acme.order.k"})) == [
        Match("order", "acme.order.k")
    ]
    assert find_matches(integration, callback({"call": short[1:]})) == []
    assert find_matches(other, callback({"call": short})) == []


def test_operations_without_callbacks_never_match(tmp_path: Path) -> None:
    """They wait for no callback."""
    assert find_matches(acme(tmp_path), callback({"call": "acme.order.k"})) == []


def test_a_success_contains_its_data(order: Operation) -> None:
    """`data` selects the part that the caller gets."""
    message = classified(order, callback({"type": "done", "order": {"id": 7}}))
    assert message == ProviderMessage(
        kind=MessageKind.RESPONSE,
        event_key="e1",
        data={"id": 7},
        reference="7",
        received_at=AT,
        source=MessageSource.CALLBACK,
    )


def test_a_message_contains_its_reference(order: Operation, tmp_path: Path) -> None:
    """Callbacks by `match`, HTTP answers by `receipt`; missing and oversized ones are left out."""
    done = {"type": "done", "call": "acme.order.k"}
    response = {"mode": "sync", "success": "type == 'done'"}
    asked = acme(tmp_path, receipt={"reference": "ticket"}, response=response).operations["order"]

    by_callback = classified(order, callback({**done, "order": {"id": 7}}))
    nameless = classified(order, callback(done))
    endless = classified(order, callback({**done, "order": {"id": "x" * 513}}))
    by_answer = [
        classified(asked, answer({**done, "ticket": 8}), source)
        for source in (MessageSource.SYNC, MessageSource.STATUS)
    ]

    told = [m and m.reference for m in (by_callback, nameless, endless, *by_answer)]
    assert told == ["7", None, None, "8", "8"]
    assert None not in (by_callback, nameless, endless)


def test_reasons_contain_no_secrets(order: Operation) -> None:
    """Providers quote parts of the request."""
    event = callback({"type": "failed", "why": "bad key sk_live_1234567890"})
    message = classified(order, event)
    assert message is not None
    assert message.reason == "bad key ***"

    environ = {"TOKEN": "open sesame"}
    verify = HeaderVerify(type="header", name="X", secrets=("env:TOKEN",))
    redactor = Redactor((), verify, Secrets(environ, Path("/nowhere")))
    event = callback({"type": "failed", "why": "not by open sesame"})
    message = classify(order, event, "e1", MessageSource.CALLBACK, AT, redactor)
    assert message is not None
    assert message.reason == "not by ***"


def test_polled_answers_use_the_rules_of_status(tmp_path: Path) -> None:
    """Callbacks never match in mode poll."""
    response = {"mode": "poll", "status": {"path": "/o", "success": "body.done"}}
    integration = acme(tmp_path, response=response)
    operation = integration.operations["order"]
    assert classified(operation, answer({"done": False}), MessageSource.STATUS) is None
    assert classified(operation, answer({"done": True}), MessageSource.STATUS) is not None
    assert find_matches(integration, callback({"call": "acme.order.k"})) == []


def test_failures_have_a_reason_and_are_retryable_or_not(order: Operation) -> None:
    """The reason is a text of bounded length."""
    message = classified(order, callback({"type": "failed", "again": True, "why": "x" * 3000}))
    assert message is not None
    assert (
        message.kind,
        message.retryable,
        message.reason,
    ) == (MessageKind.FAILURE, True, "x" * 2000)
    plain = classified(order, callback({"type": "failed", "why": {"code": 1}}))
    assert plain is not None
    assert (plain.retryable, plain.reason) == (False, '{"code": 1}')


@pytest.mark.parametrize(
    ("said", "until", "by"),
    [
        ({"until": "2026-01-03T00:00:00Z"}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": "2026-01-03T00:00:00"}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": 1767398400}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": "1767398400"}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"until": 1767398400000}, datetime(2026, 1, 3, tzinfo=UTC), None),
        ({"by": "90"}, None, timedelta(seconds=90)),
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
    """Until a time, by a duration, or by the initial deadline."""
    message = classified(order, callback({"type": "wait", **said}))
    assert message is not None
    assert (MessageKind.EXTENSION, until, by) == (message.kind, message.until, message.extend_by)


def test_failure_takes_precedence_over_extension_and_success(tmp_path: Path) -> None:
    """A message that contradicts itself is no success."""
    response = {**CALLBACK, "success": "ok", "failure": {"when": "bad"}, "extension": {"when": "w"}}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    for body, kind in (
        ({"ok": 1, "bad": 1, "w": 1}, MessageKind.FAILURE),
        ({"ok": 1, "w": 1}, MessageKind.EXTENSION),
        ({"ok": 0}, MessageKind.RESPONSE),
    ):
        message = classified(operation, callback(body))
        assert message is not None
        assert kind is message.kind


@pytest.mark.parametrize("body", [{"type": "created"}, {}, [], None, "text", {"type": None}])
def test_other_messages_are_none(order: Operation, body: Any) -> None:
    """Providers send messages of many kinds."""
    assert classified(order, callback(body)) is None


def test_expressions_that_cannot_be_evaluated_are_false(tmp_path: Path) -> None:
    """A function over a missing field is no error."""
    response = {**CALLBACK, "success": "contains(type, 'done')"}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    assert classified(operation, callback({})) is None
    assert classified(operation, callback({"type": "x.done"})) is not None


def test_any_receipt_is_a_success_in_sync_mode(tmp_path: Path) -> None:
    """A 2xx or what the file accepts, with its whole body, unless a failure holds."""
    operation = acme(tmp_path, response={"mode": "sync", "failure": {"when": "error"}}).operations[
        "order"
    ]
    message = classified(operation, answer([1, 2], 201), MessageSource.SYNC)
    assert message is not None
    assert message.data == [1, 2]
    failure = classified(operation, answer({"error": "x"}), MessageSource.SYNC)
    assert failure is not None
    assert MessageKind.FAILURE is failure.kind
    accepted = classified(operation, answer({"id": 1}, 409), MessageSource.SYNC)
    assert accepted is not None
    assert accepted.kind is MessageKind.RESPONSE
    assert classified(operation, callback({})) is None


def test_status_answers_have_rules_of_their_own(tmp_path: Path) -> None:
    """Rules that `status` leaves out are those of the response; `status` is the HTTP status."""
    status = {"path": "/o", "success": "body.status == 'paid'", "data": "body"}
    response = {**CALLBACK, "status": status}
    operation = acme(tmp_path, receipt=RECEIPT, response=response).operations["order"]
    paid = {"status": "paid", "type": "x"}
    message = classified(operation, answer(paid), MessageSource.STATUS)
    assert message is not None
    assert paid == message.data
    assert classified(operation, answer({"type": "done"}), MessageSource.STATUS) is None
    failed = classified(operation, answer({"type": "failed"}), MessageSource.STATUS)
    assert failed is not None
    assert MessageKind.FAILURE is failed.kind


def test_receipts_are_2xx_and_accepted_answers(tmp_path: Path) -> None:
    """`accept` adds to 2xx, and the reference is a text of bounded length."""
    operation = acme(tmp_path, receipt={"reference": "id", "accept": "status == `409`"}).operations[
        "order"
    ]
    assert [
        is_receipt(operation, status, answer({}, status)) for status in (200, 202, 409, 302, 404)
    ] == [True, True, True, False, False]
    assert receipt_reference(operation, answer({"id": 7})) == "7"
    assert receipt_reference(operation, answer({"id": 1e16})) == "10000000000000000"
    assert receipt_reference(operation, answer({"id": "x" * 513})) is None
    assert receipt_reference(operation, answer({})) is None


FAILURE = {"when": "ok == `false`", "reason": "why.text", "code": "why.code"}


def test_failures_have_the_code_of_the_provider(tmp_path: Path) -> None:
    """A text or a number, bounded; anything else is no code."""
    failure = {"when": "type == 'failed'", "code": "code"}
    order = acme(tmp_path, receipt=RECEIPT, response={**CALLBACK, "failure": failure}).operations[
        "order"
    ]
    for code, expected in (("E1", "E1"), (17, "17"), ({"a": 1}, None), (None, None)):
        message = classified(order, callback({"type": "failed", "code": code}))
        assert message is not None
        assert message.code == expected
    message = classified(order, callback({"type": "failed", "code": "x" * 1000}))
    assert message is not None
    assert len(message.code or "") <= MAX_CODE_LENGTH


def test_a_receipt_can_report_a_failure(tmp_path: Path) -> None:
    """By `receipt.failure.when`, whatever the status; without it no answer is a failure."""
    order = acme(tmp_path, receipt={"failure": FAILURE}).operations["order"]
    no = {"ok": False, "why": {"text": "sold out", "code": 7}}
    for status in (200, 422):
        assert receipt_failure(order, answer(no, status)) == FailureText("sold out", "7")
    assert receipt_failure(order, answer({"ok": True}, 422)) is None
    named = acme(tmp_path, receipt={"failure": {"code": "why.code"}}).operations["order"]
    assert receipt_failure(named, answer(no, 422)) is None
    assert refusal(named, answer(no, 422)).code == "7"
    assert receipt_failure(acme(tmp_path).operations["order"], answer(no)) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"why": {"text": "ours"}, "detail": "d"}, "ours"),
        (
            {"title": "Too heavy", "detail": "30 kg at the most", "message": "m"},
            "30 kg at the most",
        ),
        ({"title": "Too heavy", "message": "m"}, "m"),
        ({"title": "Too heavy"}, "Too heavy"),
        ({"error": "invalid_grant", "error_description": "It is over"}, "It is over"),
        ({"errors": [{"detail": "d", "title": "t"}, {"detail": "e"}]}, "d"),
        ({"errors": [{"message": "m"}]}, "m"),
        ([{"message": "m", "errorCode": "X"}], "m"),
        ({"errors": ["e"]}, "e"),
        ({"errors": []}, None),
        ({"errors": "Invalid API key"}, "Invalid API key"),
        ({"error": {"message": "a"}, "message": "b"}, "a"),
        ({"error": "a", "message": "b"}, "a"),
        ({"message": "b"}, "b"),
        ({"error": {"code": 1}}, None),
        ({"Message": "of AWS"}, "of AWS"),
        ({"error_code": "X", "error_message": "of Plaid"}, "of Plaid"),
        ({"detail": [{"loc": ["body"], "msg": "of FastAPI"}]}, "of FastAPI"),
        ({"errors": {"base": [], "amount": ["is too small"]}}, "amount: is too small"),
        ({"errors": {"amount": ["is too small"]}}, "amount: is too small"),
        ({"Fault": {"Error": [{"Message": "of QuickBooks", "code": "1"}]}}, "of QuickBooks"),
        ({"error": {"code": "BAD", "description": "of Razorpay"}}, "of Razorpay"),
        ({"error_code": "X", "error_messages": ["of Klarna"]}, "of Klarna"),
        ({"Error": {"Code": "C", "Message": "of S3"}}, "of S3"),
        ({"ErrorResponse": {"Error": {"Message": "of SQS"}, "RequestId": "r"}}, "of SQS"),
        ({"order": {"id": 1, "description": "A book", "message": "Happy birthday"}}, None),
        ({"Envelope": {"Body": {"Fault": {"faultcode": "c", "faultstring": "1.1"}}}}, "1.1"),
        (
            {
                "Envelope": {
                    "Body": {"Fault": {"Reason": {"Text": {"@lang": "en", "#text": "1.2"}}}}
                }
            },
            "1.2",
        ),
        ({"status": "rejected"}, None),
        ({"errors": {}, "error": {}, "detail": 7}, None),
        ("text", None),
        (None, None),
    ],
)
def test_refusals_are_in_the_words_of_the_provider(
    tmp_path: Path, body: Any, reason: str | None
) -> None:
    """The expression of the file, a problem of RFC 9457, or one of the usual fields."""
    order = acme(tmp_path, receipt={"failure": FAILURE}).operations["order"]
    assert refusal(order, answer(body, 422)).reason == reason


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("text/plain; charset=utf-8", "Not today."),
        ("application/json", "Not today."),
        ("text/html", None),
    ],
)
def test_a_plain_text_is_a_reason(tmp_path: Path, content_type: str, reason: str | None) -> None:
    """A page is none."""
    document = answer("Not today.\n", 403)
    document["headers"] = {"content-type": content_type}
    assert refusal(acme(tmp_path).operations["order"], document).reason == reason


def test_the_title_of_a_problem_is_its_reason(tmp_path: Path) -> None:
    """The content type says that it is one."""
    document = answer({"title": "Too heavy", "message": "m"}, 422)
    document["headers"] = {"content-type": "application/problem+json; charset=utf-8"}
    assert refusal(acme(tmp_path).operations["order"], document).reason == "Too heavy"


def test_refusals_contain_no_secrets(tmp_path: Path) -> None:
    """Reasons and codes are redacted."""
    order = acme(tmp_path, receipt={"failure": {"code": "code"}}).operations["order"]
    secret = "sk_live_" + "a1B2c3D4e5F6g7H8"
    found = refusal(order, answer({"message": f"no such key {secret}", "code": secret}, 401))
    assert secret not in f"{found}"


def test_receipt_data_is_for_the_caller(tmp_path: Path) -> None:
    """A part of the receipt, of any type; nothing without `receipt.data`."""
    document = answer({"id": "r1", "next": {"url": "https://pay.example"}})
    order = acme(tmp_path, receipt={"data": "next"}).operations["order"]
    assert receipt_data(order, document) == {"url": "https://pay.example"}
    assert receipt_data(acme(tmp_path).operations["order"], document) is None


def test_acknowledgements_are_accepted_below_400_or_as_the_file_says(tmp_path: Path) -> None:
    """`accept` names other answers that count."""
    acknowledge = {"path": "/ack", "success": {}}
    plain = acme(tmp_path, acknowledge=acknowledge).operations["order"]
    tolerant = acme(tmp_path, acknowledge={**acknowledge, "accept": "status == `409`"}).operations[
        "order"
    ]
    statuses = (200, 302, 409, 410)
    assert [accepts_acknowledgement(plain, answer(None, s)) for s in statuses] == [
        True,
        True,
        False,
        False,
    ]
    assert [accepts_acknowledgement(tolerant, answer(None, s)) for s in statuses] == [
        True,
        True,
        True,
        False,
    ]


def test_receipt_that_is_the_response_already(tmp_path: Path) -> None:
    """`response.data` selects its data; where that finds nothing, the caller gets the body."""
    receipt = {"reference": "id", "success": "state == 'done'"}
    integration = acme(tmp_path, receipt=receipt, response={**CALLBACK, "data": "order"})
    order = integration.operations["order"]
    made = {"id": 7, "state": "done"}
    found = [
        receipt_response(order, answer(body), "e1", AT)
        for body in (made, {**made, "order": {"seat": 3}}, {"id": 7, "state": "open"})
    ]
    assert [one and (one.kind, one.data, one.reference) for one in found] == [
        (MessageKind.RESPONSE, made, "7"),
        (MessageKind.RESPONSE, {"seat": 3}, "7"),
        None,
    ]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3),
        (0.5, 0.5),
        ("7", 7),
        ("5m", 300),
        (int(AT.timestamp()) + 60, 60),
        (str(int(AT.timestamp()) + 60), 60),
        ((AT + timedelta(hours=1)).isoformat(), 3600),
        ("Fri, 02 Jan 2026 00:01:00 GMT", 60),
        (int(AT.timestamp()) - 60, 0),
        (True, None),
        ("soon", None),
        (None, None),
        ({"a": 1}, None),
        (-1, 0),
    ],
)
def test_pause(tmp_path: Path, value: Any, seconds: float | None) -> None:
    """Seconds, durations and points in time, as numbers and as texts."""
    order = acme(tmp_path, receipt={"pause": "wait"}).operations["order"]
    found = receipt_pause(order, answer({"wait": value}, 429), AT)
    assert seconds == (None if found is None else found.total_seconds())


def test_kept_values(tmp_path: Path) -> None:
    """Texts, numbers and booleans of a bounded length."""
    keep = {name: name for name in ("text", "number", "gone", "deep", "long")}
    order = acme(tmp_path, receipt={"keep": keep}).operations["order"]
    body = {"text": "t", "number": 7, "deep": {"a": 1}, "long": "x" * 5000}
    assert kept_values(order, answer(body)) == {"text": "t", "number": 7}


def test_error_answer_to_a_status_request(tmp_path: Path) -> None:
    """Only the status request's own rules apply to it: "not found" is no failure of the work."""
    response = {**CALLBACK, "failure": {"when": "error"}}
    own = {"path": "/x", "success": "done", "failure": {"when": "status == `410`"}}
    bare = acme(tmp_path, response={**response, "status": {"path": "/x"}}).operations["order"]
    explained = acme(tmp_path, response={**response, "status": own}).operations["order"]
    gone = answer({"error": "none"}, 404)
    kinds = [
        (found := classified(operation, document, MessageSource.STATUS)) and found.kind
        for operation, document in (
            (bare, gone),
            (bare, answer({"error": "none"}, 200)),
            (explained, gone),
            (explained, answer({"error": "none"}, 410)),
            (explained, answer({"done": True}, 409)),
        )
    ]
    failure = MessageKind.FAILURE
    assert kinds == [None, failure, None, failure, MessageKind.RESPONSE]
