"""What a file makes of examples: it agrees with them, or the field that does not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.loading import load_examples, load_integration
from ackbridge.conformance.readings import CheckedExample, check_example, missing_examples
from tests.support.catalog_files import ROOT, write

FILE = """\
provider: acme
base_url: https://acme.example/api
examples: "*.json"
callbacks:
  verify: {type: header, name: X-Token, secrets: ["file:token"]}
  event_key: headers."x-event"
operations:
  pay:
    request: {path: /pay, body: {amount: "{payload.amount}", ref: "{call.id}"}}
    receipt:
      reference: id
      data: link
      failure: {when: errors, reason: "errors[0].text", code: "errors[0].code"}
    response:
      mode: callback
      match: {call_id: ref, reference: id}
      success: type == 'paid'
      failure: {when: type == 'failed', reason: why, retryable: again}
      extension: {when: type == 'wait', by: more}
      data: "{no: receipt_no}"
      status: {path: "/pay/{reference}", success: body.state == 'PAID'}
    acknowledge: {path: "/pay/{reference}/seen", success: {}, accept: status == `409`}
  quote:
    request: {path: /quotes}
    response: {mode: sync, success: body.total}
"""


def answer(
    status: int, body: Any, means: dict[str, Any], to: str = "request", operation: str = "pay"
) -> dict[str, Any]:
    """An example of an answer."""
    message = {"to": to, "status": status, "body": body}
    return {"source": "made up", "operation": operation, "answer": message, "means": means}


def delivery(body: Any, means: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An example of a delivery."""
    message = {"headers": {"X-Event": "e-1", "X-Token": "t"}, "body": body, **more}
    return {"source": "made up", "operation": "pay", "delivery": message, "means": means}


def check(folder: Path, example: dict[str, Any], file: str = FILE) -> CheckedExample:
    """What a file makes of one example."""
    write(folder, json.dumps(example, indent=1), "one.json")
    path = write(folder, file)
    integration = load_integration(path, {})
    (recorded,) = load_examples(path, integration)
    return check_example(integration, recorded)


def mistakes(folder: Path, example: dict[str, Any], file: str = FILE) -> list[str]:
    """Where the file disagrees with an example."""
    return [f"{one.field}: {one.message}" for one in check(folder, example, file).problems]


PAID = {"type": "paid", "ref": "acme.pay.k", "id": 7, "receipt_no": 12}
ABOUT = {"call_id": "acme.pay.k", "reference": "7", "event_key": "e-1"}


@pytest.mark.parametrize(
    "example",
    [
        answer(202, {"id": 7, "link": "x"}, {"kind": "receipt", "reference": "7", "data": "x"}),
        answer(400, {"message": "no"}, {"kind": "refused", "reason": "no", "code": None}),
        answer(503, {}, {"kind": "retry"}),
        answer(
            200,
            {"errors": [{"text": "broke", "code": 4}]},
            {"kind": "failure", "reason": "broke", "code": "4", "retryable": False},
        ),
        answer(200, {"state": "PAID", "receipt_no": 3}, {"kind": "success"}, "status"),
        answer(200, {"state": "OPEN"}, {"kind": "pending"}, "status"),
        answer(404, {}, {"kind": "pending"}, "status"),
        answer(500, {}, {"kind": "retry"}, "status"),
        answer(409, {}, {"kind": "accepted"}, "success"),
        answer(404, {}, {"kind": "refused"}, "success"),
        answer(200, {"total": 3}, {"kind": "success", "response": {"total": 3}}, operation="quote"),
        delivery(PAID, {"kind": "success", "response": {"no": 12}, **ABOUT}),
        delivery(
            {**PAID, "type": "failed", "why": "broke", "again": True},
            {"kind": "failure", "reason": "broke", "retryable": True, **ABOUT},
        ),
        delivery({**PAID, "type": "wait", "more": 60}, {"kind": "extension", "by": "1m", **ABOUT}),
        delivery({**PAID, "type": "seen"}, {"kind": "pending", **ABOUT}),
        delivery({"type": "paid", "ref": "theirs"}, {"kind": "unmatched", "event_key": "e-1"}),
    ],
    ids=lambda example: f"{'answer' if 'answer' in example else 'delivery'}",
)
def test_a_file_agrees_with_its_examples(tmp_path: Path, example: dict[str, Any]) -> None:
    """Every kind of message is read as in production."""
    assert mistakes(tmp_path, example) == []


@pytest.mark.parametrize(
    ("change", "example", "mistake"),
    [
        (
            ("type == 'paid'", "type == 'payed'"),
            delivery(PAID, {"kind": "success"}),
            "means.kind: is success; the file reads it as pending;"
            " see operations.pay.response.success",
        ),
        (
            ("no: receipt_no", "no: receipt_number"),
            delivery(PAID, {"kind": "success", "response": {"no": 12}}),
            'means.response: is {"no": 12}; the file reads {"no": null}',
        ),
        (
            ('headers."x-event"', "id"),
            delivery(PAID, {"kind": "success", "event_key": "e-1"}),
            'means.event_key: is "e-1"; the file reads "7"',
        ),
        (
            ('headers."x-event"', "event.id"),
            delivery(PAID, {"kind": "success"}),
            "means: the file cannot read this: event_key: the callback has none;"
            " see callbacks.event_key",
        ),
        (
            ("call_id: ref", "call_id: reference"),
            delivery(PAID, {"kind": "success", "call_id": "acme.pay.k"}),
            'means.call_id: is "acme.pay.k"; the file reads null',
        ),
        (
            ("reference: id\n      data", "reference: ID\n      data"),
            answer(202, {"id": 7}, {"kind": "receipt", "reference": "7"}),
            'means.reference: is "7"; the file reads null',
        ),
        (
            ("body.state == 'PAID'", "status == `201`"),
            answer(200, {"state": "PAID"}, {"kind": "success"}, "status"),
            "means.kind: is success; the file reads it as pending;"
            " see operations.pay.response.success",
        ),
        (
            ("accept: status == `409`", "accept: status == `410`"),
            answer(409, {}, {"kind": "accepted"}, "success"),
            "means.kind: is accepted; the file reads it as refused;"
            " see operations.pay.acknowledge.accept",
        ),
    ],
)
def test_a_misread_message_is_found(
    tmp_path: Path, change: tuple[str, str], example: dict[str, Any], mistake: str
) -> None:
    """The message says what the file makes of it, and which field decides."""
    assert change[0] in FILE
    found = mistakes(tmp_path, example, FILE.replace(*change))
    assert found == [mistake]


def test_a_wrong_number_of_events_is_found(tmp_path: Path) -> None:
    """A delivery with one event cannot mean two."""
    two = delivery(PAID, {"kind": "success"})
    assert mistakes(tmp_path, {**two, "means": [{"kind": "success"}] * 2}) == [
        "means: says 2 event(s); the file reads 1"
    ]


def test_signatures_are_verified_by_the_file(tmp_path: Path) -> None:
    """With the example's own secrets; a delivery that is rejected is a mistake of the file."""
    verify = {"secrets": {"file:token": "t"}, "at": "2030-01-01T00:00:00Z"}
    example = delivery(PAID, {"kind": "success"}, verify=verify)
    assert check(tmp_path, example).is_verified
    assert mistakes(tmp_path, example) == []
    assert mistakes(tmp_path, example, FILE.replace("X-Token", "X-Other")) == [
        "delivery.verify: the file's callbacks.verify rejects the delivery:"
        " header X-Other is missing"
    ]


def test_the_request_is_compared(tmp_path: Path) -> None:
    """Method, path, the headers that are given, and the body."""
    example = answer(202, {"id": 7}, {"kind": "receipt"})
    example["call"] = {"key": "k", "payload": {"amount": 5}}
    example["request"] = {
        "path": "/api/pay",
        "headers": {"Idempotency-Key": "acme.pay.k:1"},
        "body": {"amount": 5, "ref": "acme.pay.k"},
    }
    assert mistakes(tmp_path, example) == []
    assert mistakes(tmp_path, example, FILE.replace("/pay,", "/pays,")) == [
        'request.path: is "/api/pay"; the file sends "/api/pays"'
    ]
    assert mistakes(tmp_path, example, FILE.replace("payload.amount", "payload.sum")) == [
        'request.body: is {"amount": 5, "ref": "acme.pay.k"}; the file sends {"ref": "acme.pay.k"}'
    ]


def test_status_requests_and_acknowledgements_are_compared(tmp_path: Path) -> None:
    """With what is known by then."""
    example = answer(200, {}, {"kind": "accepted"}, "success")
    example["call"] = {"key": "k", "reference": "7"}
    example["request"] = {
        "path": "/api/pay/7/seen",
        "headers": {"Idempotency-Key": "acme.pay.k:1:success"},
        "body": {},
    }
    assert mistakes(tmp_path, example) == []
    assert mistakes(tmp_path, example, FILE.replace("/pay/{reference}/seen", "/seen")) == [
        'request.path: is "/api/pay/7/seen"; the file sends "/api/seen"'
    ]
    example["answer"]["to"] = "failed"
    assert mistakes(tmp_path, example) == ["request: the file sends no such request"]


def test_what_no_example_shows_is_listed(tmp_path: Path) -> None:
    """By operation: each kind that it has a rule for."""
    found = check(tmp_path, delivery(PAID, {"kind": "success"}))
    integration = load_integration(write(tmp_path, FILE), {})
    assert list(missing_examples(integration, found.readings)) == [
        "operations.pay: no example of receipt, failure, extension",
        "operations.quote: no example of success",
    ]


FILES = ROOT / "tests" / "integration" / "conformance" / "files"


@pytest.mark.parametrize("name", ["door", "batches", "norddeich", "parcels", "reports"])
def test_other_files_agree_with_their_examples(name: str) -> None:
    """Handshakes, ignored and other events, several events, doorbells, results, XML, forms."""
    path = FILES / f"{name}.yaml"
    integration = load_integration(path, {})
    checked = [check_example(integration, one) for one in load_examples(path, integration)]
    assert [str(problem) for one in checked for problem in one.problems] == []
    assert all(one.readings for one in checked)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "integrations").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_files_agree_with_their_examples(path: Path) -> None:
    """And their examples show every kind of message that they have rules for."""
    integration = load_integration(path, {})
    checked = [check_example(integration, one) for one in load_examples(path, integration)]
    assert [str(problem) for one in checked for problem in one.problems] == []
    readings = [reading for one in checked for reading in one.readings]
    assert list(missing_examples(integration, readings)) == []
    assert any(one.is_verified for one in checked)


CARRIER = """\
provider: acme
base_url: https://acme.example/api
examples: "*.json"
operations:
  pay:
    request:
      path: /soap
      encoding: xml
      headers: {X-Key: "{secret('env:KEY')}"}
      body: {Book: {Ref: "{call.key}"}}
    receipt: {reference: Booked.No}
    response: {mode: sync, success: Booked.No, data: Booked}
"""
BOOKED = {
    "source": "made up",
    "operation": "pay",
    "call": {"key": "k1"},
    "request": {
        "path": "/api/soap",
        "headers": {"X-Key": "***"},
        "text": '<?xml version="1.0" encoding="UTF-8"?><Book><Ref>k1</Ref></Book>',
    },
    "answer": {
        "status": 200,
        "headers": {"Content-Type": "text/xml"},
        "text": "<a:Booked xmlns:a='u'><No>7</No></a:Booked>",
    },
    "means": {"kind": "success", "response": {"No": "7"}, "reference": "7"},
}


def test_answers_in_xml_and_secrets_of_requests(tmp_path: Path) -> None:
    """Read and rendered as by a worker; recorded secrets are replaced by ***."""
    assert check(tmp_path, BOOKED, CARRIER).problems == ()


def test_bodies_that_the_hook_reads(tmp_path: Path) -> None:
    """Expressions see what its `read` makes of a recorded body."""
    code = "def read(body, headers): return {'Booked': {'No': body.decode()[::-1]}}\n"
    write(tmp_path, code, "hook.py")
    text = {"status": 200, "text": "7 .on"}
    example = {key: BOOKED[key] for key in ("source", "operation")} | {
        "answer": text,
        "means": {"kind": "success", "response": {"No": "no. 7"}},
    }
    file = CARRIER.replace("operations:", "hook: hook.py\noperations:")
    assert check(tmp_path, example, file).problems == ()
