"""What the simulated provider remembers, for whoever reconciles it with other records."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from ackbridge.clock import utc_now
from ackbridge.sandbox.event_log import EventLog
from ackbridge.sandbox.fault_rates import Rates
from ackbridge.sandbox.provider import create_provider
from tests.support.sandbox_customer import (
    API_KEY,
    PATIENCE,
    WEBHOOK_SECRET,
    Customer,
    Mailbox,
    customer,
)
from tests.support.serving import serve


@pytest.fixture(scope="module")
def shop() -> Iterator[Customer]:
    with customer() as ready:
        yield ready


def pages(shop: Customer, path: str, **wanted: Any) -> Iterator[list[dict[str, Any]]]:
    """Everything under a path, so much at a time."""
    after = 0
    while page := shop.http.get(path, params={"after": after, **wanted}).json():
        yield page
        after = page[-1]["number"]


def test_every_step_of_a_call_is_there(shop: Customer) -> None:
    """By the call id, in order, each with operation, key and cycle."""
    order = shop.errand(throttle=1, duplicates=1, early=True)
    order.send()
    order.send()
    order.look()
    order.acknowledge("success")
    entries = order.events()
    assert [entry["kind"] for entry in entries] == [
        *("request", "receipt", "request", "done"),
        *("callback", "callback", "callback_reply", "callback_reply"),
        *("receipt", "status", "acknowledgement"),
    ]
    assert {entry["operation"] for entry in entries} == {"create_order"}
    assert {entry["cycle"] for entry in entries} == {1}
    assert {entry["idempotency_key"] for entry in entries[:-1]} == {order.key}
    assert entries[-1]["idempotency_key"] == f"{order.key}:success"
    assert all(earlier["number"] < later["number"] for earlier, later in pairwise(entries))
    assert all(earlier["at"] <= later["at"] for earlier, later in pairwise(entries))


@pytest.mark.parametrize("kind", ["shipment", "quote"])
def test_a_call_is_found_that_the_provider_is_not_told_of(shop: Customer, kind: str) -> None:
    """Our idempotency keys begin with the call id."""
    errand = shop.errand(kind)
    errand.send()
    assert [entry["kind"] for entry in errand.events("request", "receipt")] == [
        "request",
        "receipt",
    ]
    assert errand.work()["call_id"] == errand.call_id


def test_events_are_found_by_work_and_kind(shop: Customer) -> None:
    """Filters narrow each other."""
    order = shop.errand()
    work = order.send().json()["id"]
    order.until("callback_reply")
    found = shop.http.get("/_events", params={"work": work, "kind": "callback_reply"}).json()
    assert [(entry["work"], entry["status"]) for entry in found] == [(work, 200)]


def test_what_is_no_work_is_remembered_too(shop: Customer) -> None:
    """Health, refused credentials and what was not understood."""
    shop.http.get("/healthz")
    shop.http.get("/v1/orders/1", headers={"authorization": "Bearer wrong"})
    shop.http.get("/nothing")
    for kind, status in (("health", 200), ("unauthorized", 401), ("unknown", 404)):
        last = shop.http.get("/_events", params={"kind": kind}).json()[-1]
        assert last["status"] == status


def test_it_never_remembers_credentials(shop: Customer) -> None:
    """Headers that matter are kept; the API key and the webhook secret are not."""
    order = shop.errand(forged=True)
    order.send()
    order.until("callback_reply", 3)
    (request,) = order.events("request")
    assert request["headers"]["content-type"] == "application/json"
    remembered = "".join(shop.http.get(path).text for path in ("/_events", "/_works", "/_summary"))
    assert API_KEY not in remembered
    assert WEBHOOK_SECRET not in remembered


def test_thousands_of_works_can_be_read_in_pages() -> None:
    """Nothing twice, nothing left out, in order; the summary adds up to the same."""
    total = 1000
    with customer(rates=Rates(delay_ms=0)) as shop:
        headers = {"idempotency-key": ""}
        for number in range(total):
            headers["idempotency-key"] = f"sandbox.quote.{number}:1"
            shop.http.post("/v1/quotes", json={"amount": 1, "currency": "EUR"}, headers=headers)
        for path, wanted in (("/_works", {}), ("/_events", {"kind": "receipt"})):
            read = list(pages(shop, path, limit=400, **wanted))
            assert [len(page) for page in read] == [400, 400, 200]
            found = [row for page in read for row in page]
            calls = [row["call_id"] for row in found]
            assert calls == [f"sandbox.quote.{number}" for number in range(total)]
        summary = shop.summary()
        assert summary["effects"] == summary["requests"] == total
        assert summary["operations"] == {"quote": total}
        assert summary["statuses"] == {"completed": total}
        assert summary["answered"] == {"200": total}
        assert summary["journal"] == {"kept": 3 * total, "dropped": 0}


def test_the_summary_counts_what_was_told_and_heard() -> None:
    """Acknowledged works, those that nobody acknowledged, callbacks of every fate."""
    with customer() as shop:
        first, second, third = (
            shop.errand(lost_callbacks=1),
            shop.errand(duplicates=2),
            shop.errand(lost_callbacks=9),
        )
        for order in (first, second, third):
            order.send()
        first.until("callback_reply")
        second.until("callback_reply", 3)
        third.until("callback_given_up")
        first.acknowledge("success")
        second.acknowledge("failed")
        summary = shop.summary()
    assert summary["acknowledged"] == {"success": 1, "failed": 1}
    assert summary["unacknowledged"] == 1
    assert summary["callbacks_sent"] == 4
    assert summary["callbacks_lost"] == 6
    assert summary["callbacks_given_up"] == 1
    assert summary["duplicates_sent"] == 2


def test_a_full_journal_says_what_it_dropped() -> None:
    """The oldest entries go, from every index; works and counts stay."""
    provider = create_provider(API_KEY, WEBHOOK_SECRET, Rates(delay_ms=0), max_events=4)
    with (
        serve(provider) as url,
        httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE,
            trust_env=False,
        ) as http,
    ):
        shop = Customer(http, Mailbox(), "")
        quotes = [shop.errand("quote") for _ in range(3)]
        for quote in quotes:
            quote.send()
        summary = shop.summary()
        assert summary["journal"] == {"kept": 4, "dropped": 5}
        assert summary["effects"] == summary["requests"] == 3
        assert [len(quote.events()) for quote in quotes] == [0, 1, 3]
        assert [quote.work()["status"] for quote in quotes] == ["completed"] * 3


def test_a_dropped_call_leaves_nothing_behind() -> None:
    """A bounded journal stays bounded, however many calls it sees."""
    journal = EventLog(utc_now, max_events=2)
    for number in range(100):
        journal.record("request", call_id=str(number))
    assert [entry["call_id"] for entry in journal.find()] == ["98", "99"]
    assert journal.find(call_id="0") == []
    assert set(journal._by_call) == {"98", "99"}
