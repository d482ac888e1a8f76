"""The simulated provider, over sockets, against the integration file that describes it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.matching import classify, find_event_key, find_matches
from ackbridge.catalog.model import Integration
from ackbridge.clock import utc_now
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.security.inbound import build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.settings import app_folder
from tests.support.sandbox_customer import OPERATIONS, WEBHOOK_SECRET, Customer, Received, customer


@pytest.fixture(scope="module")
def shop() -> Iterator[Customer]:
    with customer() as ready:
        yield ready


@pytest.fixture(scope="module")
def integration() -> Integration:
    return load_integration(app_folder() / "integrations" / "sandbox.yaml", {})


def read_by_the_file(
    integration: Integration, letter: Received, operation: str
) -> ProviderMessage | None:
    """What a callback means according to the integration file."""
    secrets = Secrets({"SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET}, Path())
    assert integration.callbacks is not None
    build_verifier(integration.callbacks.verify, secrets, utc_now).verify(
        letter.headers, letter.body
    )
    document = {**letter.event, "body": letter.event, "headers": letter.headers, "query": {}}
    event_key = find_event_key(integration, document)
    assert event_key is not None
    assert operation in {match.operation for match in find_matches(integration, document)}
    found = integration.operations[operation]
    return classify(found, document, event_key, MessageSource.CALLBACK, utc_now())


def asked_by_the_file(
    integration: Integration, answer: httpx.Response, operation: str
) -> ProviderMessage | None:
    """What an HTTP answer means according to the integration file."""
    body = answer.json()
    document = {**body, "body": body, "headers": {}, "query": {}, "status": answer.status_code}
    found = integration.operations[operation]
    return classify(found, document, "e", MessageSource.STATUS, utc_now())


@pytest.mark.parametrize("kind", ["order", "booking"])
@pytest.mark.parametrize(
    ("behaviour", "kinds"),
    [
        ({}, [MessageKind.RESPONSE]),
        ({"fail": 1, "retryable": True, "reason": "no stock"}, [MessageKind.FAILURE]),
        ({"extend_ms": 2}, [MessageKind.EXTENSION, MessageKind.RESPONSE]),
    ],
)
def test_its_callbacks_are_what_the_integration_file_says(
    shop: Customer,
    integration: Integration,
    kind: str,
    behaviour: dict[str, Any],
    kinds: list[MessageKind],
) -> None:
    """Signature, event key, match and meaning all hold."""
    errand = shop.errand(kind, **behaviour)
    errand.send()
    for expected in kinds:
        message = read_by_the_file(integration, errand.take(), f"create_{kind}")
        assert message is not None
        assert message.kind is expected
        if expected is MessageKind.FAILURE:
            assert (message.reason, message.retryable) == ("no stock", True)


@pytest.mark.parametrize("kind", ["order", "booking", "report", "quote"])
@pytest.mark.parametrize("fails", [0, 1])
def test_its_answers_are_what_the_integration_file_says(
    shop: Customer, integration: Integration, kind: str, fails: int
) -> None:
    """Asked, or answering at once, it says how the work stands and why it failed."""
    errand = shop.errand(kind, fail=fails, retryable=True, reason="no stock")
    answer = errand.send()
    if kind != "quote":
        errand.until("done")
        answer = errand.look()
    message = asked_by_the_file(integration, answer, OPERATIONS[kind])
    assert message is not None
    if fails:
        assert message.kind is MessageKind.FAILURE
        assert (message.reason, message.retryable) == ("no stock", True)
    else:
        assert message.kind is MessageKind.RESPONSE
        assert message.data["id"] == errand.work()["id"]


def test_shipments_are_known_by_the_providers_reference_only(
    shop: Customer, integration: Integration
) -> None:
    """Their callbacks repeat nothing of the caller's."""
    shipment = shop.errand("shipment")
    receipt = shipment.send()
    letter = shipment.take()
    assert receipt.status_code == 202
    assert letter.event["shipment"]["id"] == receipt.json()["id"]
    assert "call_id" not in letter.event
    message = read_by_the_file(integration, letter, "create_shipment")
    assert message is not None
    assert message.kind is MessageKind.RESPONSE


def test_quotes_are_answered_at_once(shop: Customer) -> None:
    """A synchronous operation; the same key gets the same quote."""
    quote = shop.errand("quote")
    first, second = quote.send(), quote.send()
    assert first.status_code == 200
    assert first.json()["total"] == 10
    assert second.json() == first.json()


def test_nobody_is_called_back_about_a_report(shop: Customer) -> None:
    """Who wants to know asks, and is told when it is done."""
    report = shop.errand("report")
    assert report.send().status_code == 202
    report.until("done")
    assert report.look().json()["status"] == "completed"
    assert report.events("callback") == []


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic abc"])
def test_who_has_no_key_is_refused(shop: Customer, authorization: str) -> None:
    """Nothing is done for them."""
    order = shop.errand()
    reply = shop.http.post(
        "/v1/orders",
        json=order.body,
        headers={"authorization": authorization, "idempotency-key": order.key},
    )
    assert reply.status_code == 401
    assert order.works() == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/orders/unknown", 404),
        ("POST", "/v1/orders/unknown/acknowledgements", 404),
        ("POST", "/v1/shipments/any/acknowledgements", 405),
        ("PUT", "/v1/orders", 405),
        ("GET", "/healthz", 200),
    ],
)
def test_what_it_does_not_have_it_says(shop: Customer, method: str, path: str, status: int) -> None:
    """A wrong path or method gets the status that HTTP has for it."""
    reply = shop.http.request(method, path, json={"status": "success"})
    assert reply.status_code == status


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"amount": 0}, "amount: "),
        ({"behaviour": {"silnet": True}}, "behaviour.silnet: "),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_a_request_it_does_not_understand_is_refused(
    shop: Customer, change: dict[str, Any], complaint: str
) -> None:
    """The field is named; a misspelt fault would make a test pass for nothing."""
    order = shop.errand()
    order.body |= change
    reply = order.send()
    assert reply.status_code == 422
    assert reply.json()["error"].startswith(complaint)


def test_a_request_without_a_key_is_refused(shop: Customer) -> None:
    """There is no effect that nobody could ask for again."""
    reply = shop.http.post("/v1/orders", json=shop.errand().body)
    assert (reply.status_code, reply.json()) == (422, {"error": "idempotency-key: is missing"})


def test_one_key_has_one_effect_and_one_answer(shop: Customer) -> None:
    """Also when the same request comes many times at the same instant."""
    order = shop.errand(delay_ms=1)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: order.send(), range(8)))
    assert {reply.text for reply in replies} == {replies[0].text}
    assert {reply.status_code for reply in replies} == {202}
    assert len(order.works()) == 1
    assert len(order.events("request")) == 8


def test_a_key_is_of_one_request(shop: Customer) -> None:
    """Another request under it is a conflict and changes nothing."""
    order = shop.errand()
    first = order.send()
    order.body["amount"] = 6
    assert order.send().status_code == 409
    order.body["amount"] = 5
    assert order.send().json() == first.json()
    assert len(order.works()) == 1


def test_a_stored_failure_is_replayed(shop: Customer) -> None:
    """Who asks again under the key of a failure gets that failure; a new key is a new chance."""
    quote = shop.errand("quote", fail=1, reason="sold out", retryable=True)
    first, again = quote.send(), quote.send()
    assert first.json()["status"] == "failed"
    assert first.json()["reason"] == "sold out"
    assert again.content == first.content
    quote.cycle = 2
    assert quote.send().json()["status"] == "completed"
    order = shop.errand(fail=1)
    receipt = order.send()
    assert order.take().event["type"] == "order.failed"
    assert order.send().json() == receipt.json()
    assert order.look().json()["status"] == "failed"
    assert len(order.events("done")) == 1


def test_a_failure_can_be_overcome_by_a_new_order_of_the_same_call(shop: Customer) -> None:
    """So many orders of one call fail, and the next one is completed."""
    order = shop.errand(fail=1, retryable=True)
    for cycle, kind in ((1, "order.failed"), (2, "order.completed")):
        order.cycle = cycle
        order.send()
        assert order.take().event["type"] == kind
    assert len(order.works()) == 2
