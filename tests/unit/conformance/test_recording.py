"""What becomes an example has no secrets and no personal details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.examples import Example
from ackbridge.catalog.loading import load_integration
from ackbridge.conformance.recorder import kind_of
from ackbridge.conformance.recording import (
    Exchanged,
    RecordedDelivery,
    Redaction,
    example_of_delivery,
    example_of_exchange,
    file_name,
)
from ackbridge.security.redaction import Redactor
from tests.support.catalog_files import write

FILE = """\
provider: acme
base_url: https://acme.example
auth: {type: header, name: X-Acme-Key, value: "env:KEY"}
callbacks:
  encoding: %s
  verify: {type: header, name: X-Token, secrets: ["env:TOKEN"]}
  event_key: id
operations:
  pay:
    request: {path: /pay}
    receipt: {reference: id}
    response:
      mode: callback
      match: {reference: payment}
      success: state == 'paid'
      data: "{to: email, amount: amount}"
"""


def recorded(
    folder: Path, message: Exchanged | RecordedDelivery, encoding: str = "json"
) -> dict[str, Any]:
    """The example of a message; it loads, and the file reads it as it says."""
    integration = load_integration(write(folder, FILE % encoding), {})
    redaction = Redaction(integration, Redactor())
    if isinstance(message, Exchanged):
        found = example_of_exchange(integration, redaction, "pay", "request", message, "a test")
    else:
        found = example_of_delivery(integration, redaction, message, "a test")
    Example.model_validate(found)
    return found


def answered(body: object, **headers: str) -> Exchanged:
    """An answer of the provider."""
    return Exchanged("POST", "/pay", {}, b"", 201, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("firstName", "Zoë", "Somebody"),
        ("card_holder_name", "Zoë", "Somebody"),
        ("email", "zoe@shop.example", "somebody@example.com"),
        ("phone", "+49 431 55512", "+00 000 00000"),
        ("note", "ask zoe@shop.example at 10.1.2.3", "ask somebody@example.com at 192.0.2.1"),
        ("note", "key sk_live_abcdefgh1234", "key ***"),
        ("note", "4111 1111 1111 1111", "***"),
        ("state", "processing", "processing"),
        ("amount", 5, 5),
    ],
)
def test_personal_details_and_secrets_are_replaced(
    tmp_path: Path, field: str, value: object, expected: object
) -> None:
    """By the name of the field, or by what the text looks like; in lists and objects too."""
    body = recorded(tmp_path, answered({"id": "p-1", "list": [{field: value}]}))["answer"]["body"]
    assert body == {"id": "p-1", "list": [{field: expected}]}


def test_headers_with_credentials_are_left_out(tmp_path: Path) -> None:
    """Those of the file's own authentication, and cookies; the others stay."""
    headers = {"set-cookie": "a=b", "x-acme-key": "k", "date": "now", "x-request-id": "r-1"}
    example = recorded(tmp_path, answered({"id": "p-1"}, **headers))
    assert example["answer"]["headers"] == {"x-request-id": "r-1"}
    assert example["means"] == {"kind": "receipt", "reference": "p-1"}
    assert file_name(example) == "pay-request-receipt.json"
    assert file_name(example, 2) == "pay-request-receipt-2.json"


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("form", "id=e-1&payment=p-1&state=paid&email=z%40x.example", "somebody%40example.com"),
        (
            "xml",
            "<m><id>e-1</id><email>z@x.example</email></m>",
            "<email>somebody@example.com</email>",
        ),
    ],
)
def test_deliveries_keep_their_encoding(
    tmp_path: Path, encoding: str, body: str, text: str
) -> None:
    """Redacted within; signatures, which no longer hold, are left out."""
    headers = {"x-token": "secret", "x-signature": "v1", "content-type": "text/plain"}
    found = recorded(tmp_path, RecordedDelivery("POST", "", headers, body.encode()), encoding)
    assert text in found["delivery"]["text"]
    assert found["delivery"]["headers"] == {"content-type": "text/plain"}


def test_meanings_are_those_of_what_is_kept(tmp_path: Path) -> None:
    """The response has no personal details either."""
    event = {"id": "e-1", "payment": "p-1", "state": "paid", "email": "z@x.example", "amount": 5}
    found = recorded(tmp_path, RecordedDelivery("POST", "", {}, json.dumps(event).encode()))
    assert found["operation"] == "pay"
    assert found["means"] == {
        "kind": "success",
        "reference": "p-1",
        "event_key": "e-1",
        "response": {"to": "somebody@example.com", "amount": 5},
    }
    assert kind_of(found) == ("pay", None, (("success", False),))


def test_what_the_file_cannot_read_is_recorded_all_the_same(tmp_path: Path) -> None:
    """It says why; the author says what it is."""
    found = recorded(tmp_path, RecordedDelivery("POST", "", {}, b'{"no": "key"}'))
    assert "event_key" in found["about"]
    assert found["means"] == {"kind": "unmatched"}
