"""The simulated provider's acknowledgement and status APIs, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

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


def test_an_acknowledgement_counts_once(shop: Customer) -> None:
    """The same key again is answered as before, and adds nothing."""
    order = shop.errand()
    order.send()
    first, again = order.acknowledge("success"), order.acknowledge("success")
    assert first.status_code == 200
    assert again.content == first.content
    (taken,) = order.work()["acknowledgements"]
    assert (taken["verdict"], taken["key"]) == ("success", f"{order.key}:success")
    assert [entry["counts"] for entry in order.events("acknowledgement")] == [True, False]


def test_a_success_after_a_failure_is_taken(shop: Customer) -> None:
    """That is how a late answer ends; the history has both."""
    order = shop.errand()
    order.send()
    order.acknowledge("failed")
    order.acknowledge("success")
    work = order.work()
    assert [one["verdict"] for one in work["acknowledgements"]] == ["failed", "success"]
    assert work["acknowledged"] == "success"
    bodies = [entry["body"] for entry in order.events("acknowledgement")]
    assert bodies == [{"status": "failed"}, {"status": "success"}]


def test_acknowledgements_of_two_cycles_are_of_two_works(shop: Customer) -> None:
    """Each work has its own history."""
    order = shop.errand(stuck=True)
    for cycle, verdict in ((1, "failed"), (2, "success")):
        order.cycle = cycle
        order.send()
        order.acknowledge(verdict)
    told = [(work["cycle"], work["acknowledged"]) for work in order.works()]
    assert told == [(1, "failed"), (2, "success")]


def test_the_api_is_down_at_first(shop: Customer) -> None:
    """So many acknowledgements are not taken."""
    order = shop.errand(acknowledgement_failures=2)
    order.send()
    assert [order.acknowledge("success").status_code for _ in range(2)] == [503, 503]
    assert order.work()["acknowledged"] is None
    assert order.acknowledge("success").status_code == 200
    assert order.work()["acknowledged"] == "success"


def test_the_api_refuses_at_first(shop: Customer) -> None:
    """With a 4xx, as one does whose permissions somebody has to mend."""
    order = shop.errand(acknowledgement_failures=1, acknowledgement_status=403)
    order.send()
    assert [order.acknowledge("success").status_code for _ in range(2)] == [403, 200]


def test_the_api_asks_for_patience(shop: Customer) -> None:
    """With a 429 that says for how long."""
    order = shop.errand(acknowledgement_failures=1, acknowledgement_status=429, retry_after=3600)
    order.send()
    refused = order.acknowledge("success")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    assert order.acknowledge("success").status_code == 200


def test_the_api_is_down_for_a_while() -> None:
    """From the first try on, by the provider's clock."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    provider = create_provider(API_KEY, WEBHOOK_SECRET, clock=lambda: now)
    with (
        serve(provider) as url,
        httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE,
            trust_env=False,
        ) as http,
    ):
        order = Customer(http, Mailbox(), "http://127.0.0.1:9").errand(
            acknowledgement_down_ms=3_600_000, silent=True
        )
        order.send()
        now += timedelta(days=1)
        assert order.acknowledge("success").status_code == 503
        now += timedelta(minutes=59)
        assert order.acknowledge("success").status_code == 503
        now += timedelta(minutes=1)
        assert order.acknowledge("success").status_code == 200


def test_the_answer_to_an_acknowledgement_is_lost(shop: Customer) -> None:
    """It is taken all the same, once, and the next answer comes through."""
    order = shop.errand(lost_acknowledgements=1)
    order.send()
    assert order.acknowledge("success").status_code == 503
    assert order.work()["acknowledged"] == "success"
    assert order.acknowledge("success").status_code == 200
    assert len(order.work()["acknowledgements"]) == 1


def test_an_acknowledgement_that_says_neither_is_refused(shop: Customer) -> None:
    """Success or failed, and the field is named."""
    order = shop.errand()
    order.send()
    reply = order.acknowledge("perhaps")
    assert reply.status_code == 422
    assert reply.json()["error"].startswith("status: ")


def test_the_status_api_is_down_at_first(shop: Customer) -> None:
    """So many questions are not answered; the journal has each, and what was told."""
    order = shop.errand(status_failures=1, error_status=500, early=True)
    order.send()
    assert [order.look().status_code for _ in range(2)] == [500, 200]
    entries = order.events("status")
    assert [(e["status"], e.get("fault"), e["stands"]) for e in entries] == [
        (500, "error", "completed"),
        (200, None, "completed"),
    ]
