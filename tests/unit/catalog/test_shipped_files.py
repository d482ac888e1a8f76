"""The files we ship, the examples in the documentation, and the published JSON Schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from jsonschema import Draft202012Validator

from ackbridge.catalog.catalog import check_payload
from ackbridge.catalog.examples import Example
from ackbridge.catalog.json_schema import json_schema_of
from ackbridge.catalog.loading import integration_warnings, load_catalog, load_integration
from ackbridge.catalog.matching import (
    Match,
    accepts_acknowledgement,
    classify,
    find_event_key,
    find_matches,
    is_receipt,
    receipt_failure,
    receipt_reference,
    refusal,
)
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import (
    amount,
    render_acknowledgement,
    render_request,
    render_status,
)
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.catalog.yaml_document import parse_yaml
from ackbridge.contracts.messages import MessageKind, MessageSource
from tests.support.catalog_files import CONTEXT, ROOT, answer, callback, write

from .test_matching import AT, classified

INTEGRATIONS = ROOT / "integrations"
_BLOCK = re.compile(r"```yaml\n(provider: .*?)```", re.DOTALL)
EXAMPLES = [
    example
    for page in ("README.md", "docs/integrations.md")
    for example in _BLOCK.findall((ROOT / page).read_text())
]


def context(call_id: str, payload: Any, **more: Any) -> dict[str, Any]:
    """The context of a call."""
    call = {**CONTEXT["call"], "id": call_id, "idempotency_key": f"{call_id}:1"}
    return {**CONTEXT, "call": call, "payload": payload, "metadata": {}, **more}


def test_the_published_schemas_are_up_to_date() -> None:
    """`ackbridge schema` prints them; docs/ holds a copy."""
    published = json.loads((ROOT / "docs" / "integration.schema.json").read_text())
    assert json_schema_of(Integration) == published
    published = json.loads((ROOT / "docs" / "subscriber.schema.json").read_text())
    assert json_schema_of(Subscriber) == published
    published = json.loads((ROOT / "docs" / "example.schema.json").read_text())
    assert json_schema_of(Example) == published


@pytest.mark.parametrize(
    "text",
    [*(path.read_text() for path in sorted(INTEGRATIONS.glob("*.yaml"))), *EXAMPLES],
    ids=lambda text: str(parse_yaml(text).value["provider"]),
)
def test_the_schema_accepts_what_the_loader_accepts(text: str, tmp_path: Path) -> None:
    """For our files and for the examples of the documentation."""
    schema = json_schema_of(Integration)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(parse_yaml(text).value)
    load_integration(write(tmp_path, text), {})


def test_stripe_requests_and_events() -> None:
    """The request that Stripe expects, and the events it sends back."""
    stripe = load_catalog(INTEGRATIONS, {}).integration("stripe")
    operation = stripe.operations["create_payment"]
    payload = {"amount": 1999, "currency": "eur"}
    check_payload(operation, payload)
    outbound = render_request(stripe, operation, context("stripe.create_payment.k", payload))
    assert parse_qsl((outbound.content or b"").decode()) == [
        ("amount", "1999"),
        ("currency", "eur"),
        ("payment_method", "pm_card_visa"),
        ("payment_method_types[0]", "card"),
        ("confirm", "true"),
        ("metadata[call_id]", "stripe.create_payment.k"),
    ]
    kept = {
        "id": "pi_1",
        "status": "succeeded",
        "amount": 1999,
        "currency": "eur",
        "payment_method": "pm_1",
    }
    intent = {
        **kept,
        "client_secret": "pi_1_secret_1",
        "metadata": {"call_id": "stripe.create_payment.k"},
    }
    event = callback(
        {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": intent}}
    )
    assert find_event_key(stripe, event) == "evt_1"
    assert [Match("create_payment", "stripe.create_payment.k")] == find_matches(stripe, event)
    message = classified(operation, event)
    assert message is not None
    # What is kept has no secret in it.
    assert (MessageKind.RESPONSE, kept) == (message.kind, message.data)
    assert classified(operation, {**event, "type": "payment_intent.created"}) is None


def test_stripe_failures_have_reasons() -> None:
    """In events and status answers alike; a declined card is no receipt."""
    operation = load_catalog(INTEGRATIONS, {}).operation("stripe", "create_payment")
    intent = {
        "id": "pi_1",
        "status": "requires_payment_method",
        "last_payment_error": {"message": "Your card was declined."},
    }
    event = callback({"type": "payment_intent.payment_failed", "data": {"object": intent}})
    for message in (
        classified(operation, event),
        classified(operation, answer(intent), MessageSource.STATUS),
    ):
        assert message is not None
        assert (message.kind, message.reason) == (MessageKind.FAILURE, "Your card was declined.")
    assert not is_receipt(operation, 402, answer({"error": {"message": "declined"}}, 402))
    for status, kind in (("succeeded", MessageKind.RESPONSE), ("canceled", MessageKind.FAILURE)):
        asked = classified(operation, answer({"status": status}), MessageSource.STATUS)
        assert asked is not None
        assert kind is asked.kind
    assert classified(operation, answer({"status": "processing"}), MessageSource.STATUS) is None


def test_stripe_payments_that_are_given_up_are_cancelled() -> None:
    """A success is not acknowledged; what cannot be cancelled is asked for."""
    stripe = load_catalog(INTEGRATIONS, {}).integration("stripe")
    operation = stripe.operations["create_payment"]
    call = context("stripe.create_payment.k", {"amount": 5, "currency": "eur"}, reference="pi_1")
    failed = render_acknowledgement(stripe, operation, "failed", call)
    assert failed is not None
    url = "https://api.stripe.com/v1/payment_intents/pi_1/cancel"
    body = b"cancellation_reason=abandoned"
    assert (failed.method, failed.url, failed.content) == ("POST", url, body)
    assert render_acknowledgement(stripe, operation, "success", call) is None
    assert operation.acknowledge is not None
    assert operation.acknowledge.undoes
    assert not accepts_acknowledgement(operation, answer({"error": {}}, 400))
    cancelled = {"error": {"payment_intent": {"status": "canceled"}}}
    assert accepts_acknowledgement(operation, answer(cancelled, 400))
    assert operation.reconcile is not None
    assert amount(operation, call) == "5"


def test_stripe_declines_have_the_code_of_the_bank() -> None:
    """They had no effect, whatever came before; other refusals are no failures."""
    operation = load_catalog(INTEGRATIONS, {}).operation("stripe", "create_payment")
    error = {"code": "card_declined", "decline_code": "lost_card", "message": "Declined."}
    assert receipt_failure(operation, answer({"error": error}, 402)) == ("Declined.", "lost_card")
    in_use = {"code": "idempotency_key_in_use", "message": "In progress."}
    assert receipt_failure(operation, answer({"error": in_use}, 409)) is None
    assert refusal(operation, answer({"error": in_use}, 409)).code == "idempotency_key_in_use"


@pytest.mark.parametrize("path", sorted(INTEGRATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_have_no_warnings(path: Path) -> None:
    """And every request of theirs can be repeated, or the provider knows no idempotency keys."""
    assert integration_warnings(path, {}) == []
    for operation in load_integration(path, {}).operations.values():
        request = operation.request
        assert request.is_repeatable or request.key is None


def test_sandbox_orders_use_the_whole_protocol() -> None:
    """Request, receipt, callback, extension, status and acknowledgements of an order."""
    sandbox = load_catalog(INTEGRATIONS, {}).integration("sandbox")
    operation = sandbox.operations["create_order"]
    call = context("sandbox.create_order.k", {"amount": 5, "currency": "EUR"}, reference="ord_1")
    sent = json.loads(render_request(sandbox, operation, call).content or b"")
    assert {"amount", "currency", "call_id", "callback_url"} == set(sent)
    assert receipt_reference(operation, answer({"id": "ord_1"}, 202)) == "ord_1"
    order = {"id": "ord_1", "status": "failed", "retryable": True, "reason": "no stock"}
    event = {"event_id": "e", "call_id": "sandbox.create_order.k", "order": order}
    for kind, expected in (
        ("order.completed", MessageKind.RESPONSE),
        ("order.failed", MessageKind.FAILURE),
        ("order.extended", MessageKind.EXTENSION),
    ):
        document = callback({**event, "type": kind, "until": "2026-01-03T00:00:00Z"})
        about = Match("create_order", "sandbox.create_order.k", "ord_1")
        assert [about] == find_matches(sandbox, document)
        message = classified(operation, document)
        assert message is not None
        assert expected is message.kind
    asked = classified(operation, answer(order), MessageSource.STATUS)
    assert asked is not None
    assert (asked.retryable, asked.reason) == (True, "no stock")
    failed = render_acknowledgement(sandbox, operation, "failed", call)
    assert failed is not None
    assert failed.content == b'{"status": "failed", "reason": "the provider stayed silent"}'


def test_sandbox_shipments_match_by_reference_only() -> None:
    """Their callbacks contain no call id."""
    sandbox = load_catalog(INTEGRATIONS, {}).integration("sandbox")
    event = {"event_id": "e", "type": "shipment.completed", "shipment": {"id": "shp_1"}}
    assert [Match("create_shipment", None, "shp_1")] == find_matches(sandbox, callback(event))


def test_the_worked_example_does_what_the_manual_says(tmp_path: Path) -> None:
    """Every line of the example in the documentation holds."""
    nd = load_integration(write(tmp_path, EXAMPLES[-1]), {})
    operation = nd.operations["book"]
    call = context("norddeich.book.k", {"grams": 500, "address": "Kiel"}, reference="4711")
    outbound = render_request(nd, operation, call)
    assert outbound.url == "https://freight.norddeich.example/api/booking?tenant=default"
    assert outbound.headers["X-Request-Token"] == "norddeich.book.k:1"
    attrs = [{"k": "client_ref", "v": "norddeich.book.k"}]
    envelope = {"attrs": attrs, "parcels": [{"grams": 500, "to": "Kiel"}]}
    assert {"envelope": envelope} == json.loads(outbound.content or b"")
    receipt = answer({"result": {"ticket": {"no": 4711}}}, 409)
    assert is_receipt(operation, 409, receipt)
    assert receipt_reference(operation, receipt) == "4711"
    thing = {"ticket": {"no": 4711}, "attrs": attrs, "carrier": {"name": "c"}, "patience": 60}
    thing["errors"] = [{"code": "FULL", "text": "no room"}]
    expected = {
        "BOOKED/OK": (MessageKind.RESPONSE, False, None),
        "BOOKED/NO": (MessageKind.FAILURE, True, "no room"),
        "BOOKED/WAIT": (MessageKind.EXTENSION, False, None),
    }
    for kind, meaning in expected.items():
        event = callback({"evt": {"kind": kind, "seq": 9}, "obj": [thing]})
        assert find_event_key(nd, event) == "4711:9"
        assert [Match("book", "norddeich.book.k", "4711")] == find_matches(nd, event)
        message = classify(operation, event, "e", MessageSource.CALLBACK, AT)
        assert message is not None
        assert meaning == (message.kind, message.retryable, message.reason)
    status = render_status(nd, operation, call)
    assert status is not None
    assert status.url == "https://freight.norddeich.example/api/booking/4711"
    asked = classified(
        operation, answer({"status": "OK", "carrier": {"name": "c"}}), MessageSource.STATUS
    )
    assert asked is not None
    assert asked.data == {"name": "c"}
    failed = render_acknowledgement(nd, operation, "failed", call)
    assert failed is not None
    assert failed.content == b"state=dropped&why=the+provider+stayed+silent"
