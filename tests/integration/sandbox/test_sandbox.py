"""The simulated provider over sockets, against its integration file."""

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
from tests.support.sandbox_client import (
    OPERATIONS,
    WEBHOOK_SECRET,
    ReceivedCallback,
    SandboxClient,
    sandbox_client,
)


@pytest.fixture(scope="module")
def client() -> Iterator[SandboxClient]:
    with sandbox_client() as ready:
        yield ready


@pytest.fixture(scope="module")
def integration() -> Integration:
    return load_integration(app_folder() / "integrations" / "sandbox.yaml", {})


def parse_callback(
    integration: Integration, callback: ReceivedCallback, operation: str
) -> ProviderMessage | None:
    """A callback, read by the integration file."""
    secrets = Secrets({"SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET}, Path())
    assert integration.callbacks is not None
    build_verifier(integration.callbacks.verify, secrets, utc_now).verify(
        callback.headers, callback.body
    )
    document = {**callback.event, "body": callback.event, "headers": callback.headers, "query": {}}
    event_key = find_event_key(integration, document)
    assert event_key is not None
    assert operation in {match.operation for match in find_matches(integration, document)}
    found = integration.operations[operation]
    return classify(found, document, event_key, MessageSource.CALLBACK, utc_now())


def parse_reply(
    integration: Integration, answer: httpx.Response, operation: str
) -> ProviderMessage | None:
    """An HTTP response, read by the integration file."""
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
def test_callbacks_match_the_integration_file(
    client: SandboxClient,
    integration: Integration,
    kind: str,
    behaviour: dict[str, Any],
    kinds: list[MessageKind],
) -> None:
    """Signature, event key, call and meaning."""
    job = client.job(kind, **behaviour)
    job.send()
    for expected in kinds:
        message = parse_callback(integration, job.take(), f"create_{kind}")
        assert message is not None
        assert message.kind is expected
        if expected is MessageKind.FAILURE:
            assert (message.reason, message.retryable) == ("no stock", True)


@pytest.mark.parametrize("kind", ["order", "booking", "report", "quote"])
@pytest.mark.parametrize("fails", [0, 1])
def test_replies_match_the_integration_file(
    client: SandboxClient, integration: Integration, kind: str, fails: int
) -> None:
    """Responses and status replies, with the reason of a failure."""
    job = client.job(kind, fail=fails, retryable=True, reason="no stock")
    answer = job.send()
    if kind != "quote":
        job.until("done")
        answer = job.request_status()
    message = parse_reply(integration, answer, OPERATIONS[kind])
    assert message is not None
    if fails:
        assert message.kind is MessageKind.FAILURE
        assert (message.reason, message.retryable) == ("no stock", True)
    else:
        assert message.kind is MessageKind.RESPONSE
        assert message.data["id"] == job.work()["id"]


def test_shipments_have_the_providers_reference_only(
    client: SandboxClient, integration: Integration
) -> None:
    """Their callbacks contain no id of the caller."""
    shipment = client.job("shipment")
    receipt = shipment.send()
    callback = shipment.take()
    assert receipt.status_code == 202
    assert callback.event["shipment"]["id"] == receipt.json()["id"]
    assert "call_id" not in callback.event
    message = parse_callback(integration, callback, "create_shipment")
    assert message is not None
    assert message.kind is MessageKind.RESPONSE


def test_quotes_are_synchronous(client: SandboxClient) -> None:
    """The same key gets the same quote."""
    quote = client.job("quote")
    first, second = quote.send(), quote.send()
    assert first.status_code == 200
    assert first.json()["total"] == 10
    assert second.json() == first.json()


def test_reports_have_no_callbacks(client: SandboxClient) -> None:
    """Status requests have the result."""
    report = client.job("report")
    assert report.send().status_code == 202
    report.until("done")
    assert report.request_status().json()["status"] == "completed"
    assert report.events("callback") == []


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic abc"])
def test_requests_without_api_key_are_refused(client: SandboxClient, authorization: str) -> None:
    """Nothing is done for them."""
    order = client.job()
    reply = client.http.post(
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
def test_unknown_paths_and_methods(
    client: SandboxClient, method: str, path: str, status: int
) -> None:
    """They get the statuses of HTTP."""
    reply = client.http.request(method, path, json={"status": "success"})
    assert reply.status_code == status


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"amount": 0}, "amount: "),
        ({"behaviour": {"silnet": True}}, "behaviour.silnet: "),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_invalid_requests_are_refused(
    client: SandboxClient, change: dict[str, Any], complaint: str
) -> None:
    """The field is named; a misspelt fault would make a test pass for nothing."""
    order = client.job()
    order.body |= change
    reply = order.send()
    assert reply.status_code == 422
    assert reply.json()["error"].startswith(complaint)


def test_each_request_without_idempotency_key_is_a_job(client: SandboxClient) -> None:
    """A repeated one is not recognised; all are found by the call id."""
    order = client.job()
    for _ in range(2):
        assert client.http.post("/v1/orders", json=order.body).status_code == 202
    call_id = order.body["call_id"]
    works = client.http.get("/_works", params={"call_id": call_id}).json()
    keys = [work["idempotency_key"] for work in works]
    assert keys == [f"{call_id}#1", f"{call_id}#2"]


def test_one_key_has_one_effect_and_one_reply(client: SandboxClient) -> None:
    """Also for many concurrent requests."""
    order = client.job(delay_ms=1)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: order.send(), range(8)))
    assert {reply.text for reply in replies} == {replies[0].text}
    assert {reply.status_code for reply in replies} == {202}
    assert len(order.works()) == 1
    assert len(order.events("request")) == 8


def test_key_of_another_request_is_a_conflict(client: SandboxClient) -> None:
    """Nothing changes."""
    order = client.job()
    first = order.send()
    order.body["amount"] = 6
    assert order.send().status_code == 409
    order.body["amount"] = 5
    assert order.send().json() == first.json()
    assert len(order.works()) == 1


def test_stored_failure_is_replayed(client: SandboxClient) -> None:
    """The same key gets the same failure; a new key is a new attempt."""
    quote = client.job("quote", fail=1, reason="sold out", retryable=True)
    first, again = quote.send(), quote.send()
    assert first.json()["status"] == "failed"
    assert first.json()["reason"] == "sold out"
    assert again.content == first.content
    quote.cycle = 2
    assert quote.send().json()["status"] == "completed"
    order = client.job(fail=1)
    receipt = order.send()
    assert order.take().event["type"] == "order.failed"
    assert order.send().json() == receipt.json()
    assert order.request_status().json()["status"] == "failed"
    assert len(order.events("done")) == 1


def test_later_order_of_the_same_call_completes(client: SandboxClient) -> None:
    """The given number of orders fails, and the next one completes."""
    order = client.job(fail=1, retryable=True)
    for cycle, kind in ((1, "order.failed"), (2, "order.completed")):
        order.cycle = cycle
        order.send()
        assert order.take().event["type"] == kind
    assert len(order.works()) == 2
