"""The simulated provider, over sockets, against the integration file that describes it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ackbridge.app import app_folder
from ackbridge.catalog import Integration, candidates, classify, find_event_key, load_integration
from ackbridge.clock import utc_now
from ackbridge.contracts import MessageKind, MessageSource, ProviderMessage
from ackbridge.sandbox import Behaviour, Rates
from ackbridge.security import Secrets, build_verifier

from .sandbox_customer import WEBHOOK_SECRET, Customer, Mailbox, Received, customer


@pytest.fixture
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
    assert operation in {match.operation for match in candidates(integration, document)}
    found = integration.operations[operation]
    return classify(found, document, event_key, MessageSource.CALLBACK, utc_now())


@pytest.mark.parametrize(
    ("behaviour", "kinds"),
    [
        ({}, [MessageKind.RESPONSE]),
        ({"fail": 1, "retryable": True, "reason": "no stock"}, [MessageKind.FAILURE]),
        ({"extend_ms": 2}, [MessageKind.EXTENSION, MessageKind.RESPONSE]),
    ],
)
def test_its_callbacks_are_what_the_integration_file_says(
    shop: Customer, integration: Integration, behaviour: dict[str, Any], kinds: list[MessageKind]
) -> None:
    """Signature, event key, match and meaning all hold."""
    shop.order(**behaviour)
    for kind in kinds:
        message = read_by_the_file(integration, shop.mailbox.take(), "create_order")
        assert message is not None
        assert message.kind is kind
        if kind is MessageKind.FAILURE:
            assert (message.reason, message.retryable) == ("no stock", True)


def test_shipments_are_known_by_the_providers_reference_only(
    shop: Customer, integration: Integration
) -> None:
    """Their callbacks repeat nothing of the caller's."""
    body = {"destination": "Bergen", "callback_url": shop.callback_url}
    receipt = shop.post("/v1/shipments", "k", body)
    letter = shop.mailbox.take()
    assert receipt.status_code == 202
    assert letter.event["shipment"]["id"] == receipt.json()["id"]
    assert "call_id" not in letter.event
    message = read_by_the_file(integration, letter, "create_shipment")
    assert message is not None
    assert message.kind is MessageKind.RESPONSE


def test_quotes_are_answered_at_once(shop: Customer) -> None:
    """A synchronous operation; the same key gets the same quote."""
    body = {"amount": 5, "currency": "EUR"}
    first, second = (shop.post("/v1/quotes", "k", body) for _ in range(2))
    assert first.status_code == 200
    assert first.json()["total"] == 10
    assert second.json() == first.json()


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic abc"])
def test_who_has_no_key_is_refused(shop: Customer, authorization: str) -> None:
    """Nothing is done for them."""
    reply = shop.http.post(
        "/v1/orders",
        json=shop.order_body(),
        headers={"authorization": authorization, "idempotency-key": "k"},
    )
    assert reply.status_code == 401
    assert shop.summary()["effects"] == 0


def test_one_key_has_one_effect_and_one_answer() -> None:
    """Also when the same request comes many times at the same instant."""
    with customer() as shop, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: shop.order("k", delay_ms=1), range(8)))
        assert {reply.text for reply in replies} == {replies[0].text}
        assert {reply.status_code for reply in replies} == {202}
        summary = shop.summary()
        assert (summary["effects"], summary["requests"]) == (1, 8)


def test_duplicates_come_at_the_same_instant_on_two_connections() -> None:
    """The second does not wait for the answer to the first."""
    arrived: list[Any] = []
    both = asyncio.Event()

    class Slow(Mailbox):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_when_both_came(message: Any) -> None:
                if message["type"] == "http.response.start":
                    arrived.append(message)
                    if len(arrived) == 2:
                        both.set()
                    await both.wait()
                await send(message)

            await super().__call__(scope, receive, send_when_both_came)

    with customer(Slow()) as shop:
        shop.order(duplicates=1)
        first, second = shop.mailbox.take(), shop.mailbox.take()
        assert first.port != second.port
        assert first.body == second.body
        assert shop.summary()["duplicates_sent"] == 1


def test_an_early_callback_is_answered_before_the_receipt() -> None:
    """It overtakes: the log has its reply before the receipt."""
    with customer() as shop:
        receipt = shop.order(early=True)
        assert shop.mailbox.take().event["order"]["id"] == receipt.json()["id"]
        kinds = [event["kind"] for event in shop.events()]
        assert kinds == ["request", "callback", "callback_reply", "receipt"]
        assert shop.summary()["early"] == 1


def test_it_insists_until_a_callback_is_taken() -> None:
    """The same event comes again after 503, and not after 200."""
    replies = iter([503, 500, 200])
    with customer(Mailbox(lambda _: next(replies))) as shop:
        shop.order()
        letters = [shop.mailbox.take() for _ in range(3)]
        assert len({letter.event["event_id"] for letter in letters}) == 1
        shop.order("another", silent=True)
        assert shop.mailbox.letters.empty()


@pytest.mark.parametrize(
    ("behaviour", "status"), [("silent", "completed"), ("stuck", "processing")]
)
def test_one_who_says_nothing_can_be_asked(behaviour: str, status: str) -> None:
    """Silent ones have done the work, stuck ones never will."""
    with customer() as shop:
        order = shop.order(**{behaviour: True, "early": behaviour == "silent"}).json()["id"]
        assert shop.http.get(f"/v1/orders/{order}").json()["status"] == status
        assert shop.events("callback") == []
        assert shop.http.get("/v1/orders/unknown").status_code == 404


def test_a_failure_can_be_overcome_by_a_new_order_of_the_same_call(shop: Customer) -> None:
    """So many orders of one call fail; the same key again is answered as before."""
    for key, kind in (("k:1", "order.failed"), ("k:2", "order.completed")):
        shop.order(key, fail=1, retryable=True)
        assert shop.mailbox.take().event["type"] == kind
    assert shop.summary()["orders"] == 2


def test_receipts_fail_are_lost_and_are_refused(shop: Customer) -> None:
    """Before the work, after it, and for good."""
    assert [shop.order("a", receipt_failures=1).status_code for _ in range(2)] == [503, 202]
    assert [shop.order("b", lost_receipts=1).status_code for _ in range(2)] == [503, 202]
    assert [shop.order("c", refuse=422).status_code for _ in range(2)] == [422, 422]
    assert shop.summary()["effects"] == 2


def test_acknowledgements_are_counted_by_order(shop: Customer) -> None:
    """Each order once, whatever was repeated; what was not taken does not count."""
    orders = [shop.order(key, acknowledgement_failures=1).json()["id"] for key in "abc"]

    def acknowledge(order: str, status: str) -> int:
        path = f"/v1/orders/{order}/acknowledgements"
        return shop.post(path, f"{order}:{status}", {"status": status}).status_code

    assert [acknowledge(orders[0], "success") for _ in range(3)] == [503, 200, 200]
    assert [acknowledge(orders[1], "failed") for _ in range(2)] == [503, 200]
    summary = shop.summary()
    assert summary["acknowledged"] == {"success": 1, "failed": 1}
    assert summary["unacknowledged"] == 1
    assert acknowledge(orders[2], "perhaps") == 422


def test_the_log_names_order_call_and_key(shop: Customer) -> None:
    """Every entry of an order can be found, by the caller's id or the provider's."""
    order = shop.order("k:1").json()["id"]
    shop.mailbox.take()
    entries = shop.http.get("/_events", params={"order": order}).json()
    assert {entry["idempotency_key"] for entry in entries} == {"k:1"}
    assert {entry["call_id"] for entry in entries} == {"sandbox.create_order.k"}
    assert all("at" in entry for entry in entries)


def test_a_behaviour_it_does_not_know_is_refused(shop: Customer) -> None:
    """A misspelt fault would make a test pass for nothing."""
    assert shop.order(silnet=True).status_code == 422


def test_rates_are_repeatable_and_met() -> None:
    """The same key meets the same fault, and the shares are about right."""
    rates = Rates(duplicate_rate=0.1, early_rate=0.05, seed=7)
    drawn = [rates.draw(f"k{number}") for number in range(2000)]
    assert drawn == [rates.draw(f"k{number}") for number in range(2000)]
    assert 150 < sum(behaviour.duplicates for behaviour in drawn) < 250
    assert 60 < sum(behaviour.early for behaviour in drawn) < 140
    assert Rates().draw("k") == Behaviour()


def test_the_command_says_which_secret_is_missing(tmp_path: Path) -> None:
    """Exit 2 and the variable's name, rather than a traceback."""
    environ = {"PATH": os.environ.get("PATH", ""), "SANDBOX_API_KEY": "x"}
    done = subprocess.run(
        [sys.executable, "-m", "ackbridge.sandbox", "--webhook-secret-env", "MY_SECRET"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "the sandbox needs MY_SECRET in its environment\n")
