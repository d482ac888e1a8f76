"""Messages in the shapes of examples: their ids and times are replaced, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from ackbridge.catalog.examples import Example
from ackbridge.catalog.hooks import Hook
from ackbridge.catalog.matching import find_event_key, find_matches, receipt_reference
from ackbridge.catalog.model import Integration
from ackbridge.conformance.message import Message, fresh
from ackbridge.conformance.sample_messages import MessageRequest, NoExampleError, SampleMessages

UNTIL = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
CALL_ID = "acme.order.other-key"

PARTS: dict[str, Any] = {
    "request": {"path": "/orders"},
    "receipt": {"reference": "id"},
    "response": {
        "mode": "callback",
        "match": {"call_id": "ref", "reference": "order.id"},
        "success": "type == 'done'",
        "failure": {"when": "type == 'failed'", "retryable": "again", "reason": "why"},
        "extension": {"when": "type == 'wait'", "until": "until"},
        "status": {"path": "/orders/{reference}", "success": "body.state == 'DONE'"},
    },
}
EVENT: dict[str, Any] = {
    "id": "evt_0001",
    "type": "done",
    "ref": "acme.order.recorded",
    "order": {"id": 4711, "sum": 4711, "note": "for acme.order.recorded, with thanks"},
}


def integration(event_key: str = "id", each: str | None = None, **parts: Any) -> Integration:
    """A provider with one operation."""
    document = {
        "provider": "acme",
        "base_url": "https://acme.example",
        "callbacks": {
            "verify": {"type": "header", "name": "X-Token", "secrets": ["env:TOKEN"]},
            "event_key": event_key,
            "each": each,
        },
        "operations": {"order": {**PARTS, **parts}},
    }
    return Integration.model_validate(yaml.safe_load(yaml.safe_dump(document)))


def delivery(**event: Any) -> Example:
    """An example of a delivery."""
    headers = {"X-Event": "h-1"}
    message = {"headers": headers, "body": {**EVENT, **event}}
    return Example.model_validate(
        {"source": "made up", "operation": "order", "delivery": message, "means": {"kind": "event"}}
    )


def answer(body: Any, to: str = "request", **headers: str) -> Example:
    """An example of an answer; what it means is not looked at here."""
    kind = "receipt" if to == "request" else "pending"
    message = {"to": to, "status": 200, "headers": headers, "body": body}
    return Example.model_validate(
        {"source": "made up", "operation": "order", "answer": message, "means": {"kind": kind}}
    )


def callback(
    file: Integration, *examples: Example, status: Any = "completed", mark: str = "410000001"
) -> Message:
    """A callback about another call and other work than the recorded ones."""
    samples = SampleMessages(file, "order", examples)
    wanted = MessageRequest(status, until=UNTIL)
    return samples.callback(wanted, call_id=CALL_ID, reference="420000002", mark=mark)


def test_ids_are_replaced_and_nothing_else() -> None:
    """Also within texts, if they are long; a number stays a number."""
    assert callback(integration(), delivery()).body == {
        "id": "evt_0001410000001",
        "type": "done",
        "ref": CALL_ID,
        "order": {"id": 420000002, "sum": 420000002, "note": f"for {CALL_ID}, with thanks"},
    }


@pytest.mark.parametrize(
    ("event_key", "expected"),
    [
        ('headers."x-event"', "h-1410000001"),
        ("join(':', [id, type])", "evt_0001410000001:done"),
        ("join(':', [to_string(order.id), type])", "420000002:done"),
    ],
)
def test_event_keys_are_unique(event_key: str, expected: str) -> None:
    """In a header, made of several values, or of those of the work; what it means stays."""
    file = integration(event_key)
    message = callback(file, delivery())
    assert find_event_key(file, message.document) == expected
    assert message.body["type"] == "done"
    (match,) = find_matches(file, message.document)
    assert (match.call_id, match.reference) == (CALL_ID, "420000002")


def test_an_event_key_that_is_always_the_same_is_found() -> None:
    """The second event would be a duplicate."""
    with pytest.raises(NoExampleError, match="the same in every success"):
        callback(integration("type"), delivery())


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [
        ("2026-01-01T00:00:00Z", "2031-05-06T07:08:09+00:00"),
        (1767225600, int(UNTIL.timestamp())),
    ],
)
def test_times_are_replaced_in_their_own_form(recorded: Any, sent: Any) -> None:
    """ISO 8601 or seconds."""
    message = callback(
        integration(), delivery(), delivery(type="wait", until=recorded), status="extended"
    )
    assert message.body["until"] == sent


def test_failures_are_chosen_by_whether_they_are_retryable() -> None:
    """Each needs an example of its own."""
    examples = [delivery(type="failed", again=True, why="full"), delivery(type="failed", why="no")]
    samples = SampleMessages(integration(), "order", examples)
    about: dict[str, Any] = {"call_id": CALL_ID, "reference": "420000002", "mark": "410000001"}
    final = samples.callback(MessageRequest("failed"), **about)
    again = samples.callback(MessageRequest("failed", retryable=True), **about)
    assert (final.body["why"], again.body["why"]) == ("no", "full")


@pytest.mark.parametrize(
    ("reference", "example", "expected"),
    [
        ("id", answer({"id": "ord_7Kx93hs82jdk"}), "ord_7Kx410000001"),
        ("to_string(id)", answer({"id": 12}), "410000001"),
        ('headers."x-job"', answer({}, **{"X-Job": "j"}), "j410000001"),
    ],
)
def test_receipts_have_references_of_their_own(
    reference: str, example: Example, expected: str
) -> None:
    """Wherever the file reads them from."""
    file = integration(receipt={"reference": reference})
    message = SampleMessages(file, "order", [example]).receipt("410000001")
    assert receipt_reference(file.operations["order"], message.document) == expected


def test_simple_messages_are_made_up_without_examples() -> None:
    """Fields, comparisons and && of these; the ids are where the file reads them."""
    file = integration()
    assert callback(file).body == {
        "type": "done",
        "ref": CALL_ID,
        "order": {"id": "420000002"},
        "id": "made-up-id410000001",
    }
    samples = SampleMessages(file, "order", ())
    assert samples.status("7", MessageRequest("completed")).body == {"state": "DONE"}
    assert samples.status("7", MessageRequest("processing")).status == 404


@pytest.mark.parametrize("each", ["body.items", "items[]", "items[*]"])
def test_events_of_a_list_are_made_up_too(each: str) -> None:
    """One event in the list that the file names."""
    file = integration(each=each)
    message = callback(file)
    assert message.body["items"][0]["ref"] == CALL_ID
    assert len(message.body["items"]) == 1


@pytest.mark.parametrize("success", ["length(items) == `2`", "type == 'done' && !(test)"])
def test_what_is_not_simple_needs_an_example(success: str) -> None:
    """The error names the field. What only must be absent is simple."""
    response = {**PARTS["response"], "success": success}
    file = integration(response=response)
    if "length" in success:
        with pytest.raises(NoExampleError, match=r"operations\.order\.response\.success"):
            callback(file)
    else:
        assert callback(file).body["type"] == "done"


def test_fresh_ids_keep_their_form() -> None:
    """Prefix, length and separators."""
    assert fresh("pi_3MtwBwLkdIwHu7ix28a3tqPa", "410000001") == "pi_3MtwBwLkdIwHu7i410000001"
    uuid = fresh("8f9de3fa-0d4e-4e0c-9d9b-6f3ed8f0b0a1", "410000001")
    assert uuid == "8f9de3fa-0d4e-4e0c-9d9b-6f3410000001"
    assert fresh(7, "410000001") == 410000001


def _lines(body: bytes, headers: Any) -> Any:
    """What a hook may read: a field on each line, and its own check of the whole."""
    fields = dict(line.split("=", 1) for line in body.decode("latin-1").splitlines())
    order = {"id": fields.pop("number")} if "number" in fields else {}
    return {**fields, "order": order}


def test_ids_are_replaced_in_texts_that_only_a_hook_reads() -> None:
    """Words and times of the recorded text are, and everything else is as recorded."""
    file = integration()
    file.attach(Hook(read=_lines))
    text = "id=evt_0001\ntype={}\nref=acme.order.recorded\nnumber=4711\nuntil={}\n§ = 4711 or so"
    recorded = [
        Example.model_validate(
            {
                "source": "made up",
                "operation": "order",
                "delivery": {"text": text.format(kind, "2030-01-01T00:00:00Z")},
                "means": {"kind": "event"},
            }
        )
        for kind in ("done", "wait")
    ]
    message = callback(file, *recorded)
    assert find_event_key(file, message.document) == "evt_0001410000001"
    (match,) = find_matches(file, message.document)
    assert (match.call_id, match.reference) == (CALL_ID, "420000002")
    assert message.content.decode("latin-1").splitlines()[-1] == "\u00c2\u00a7 = 420000002 or so"
    extended = callback(file, *recorded, status="extended")
    assert extended.document["until"] == "2031-05-06T07:08:09+00:00"


def test_nothing_is_made_up_for_a_hook() -> None:
    """Nobody knows what it reads."""
    file = integration()
    file.attach(Hook(read=_lines))
    with pytest.raises(NoExampleError, match="no example of a delivery that is a success"):
        callback(file)
