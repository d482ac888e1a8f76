"""The inspection routes of the simulated provider."""

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
from tests.support.sandbox_client import (
    API_KEY,
    TIMEOUT,
    WEBHOOK_SECRET,
    CallbackReceiver,
    SandboxClient,
    sandbox_client,
)
from tests.support.serving import serve


@pytest.fixture(scope="module")
def client() -> Iterator[SandboxClient]:
    with sandbox_client() as ready:
        yield ready


def pages(client: SandboxClient, path: str, **wanted: Any) -> Iterator[list[dict[str, Any]]]:
    """All rows of a route, page by page."""
    after = 0
    while page := client.http.get(path, params={"after": after, **wanted}).json():
        yield page
        after = page[-1]["number"]


def test_events_have_every_step_of_a_call(client: SandboxClient) -> None:
    """In order, found by call id, each with operation, key and cycle."""
    order = client.job(throttle=1, duplicates=1, early=True)
    order.send()
    order.send()
    order.request_status()
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
def test_call_is_found_by_its_idempotency_keys(client: SandboxClient, kind: str) -> None:
    """Our keys begin with the call id."""
    job = client.job(kind)
    job.send()
    assert [entry["kind"] for entry in job.events("request", "receipt")] == [
        "request",
        "receipt",
    ]
    assert job.work()["call_id"] == job.call_id


def test_events_are_filtered_by_job_and_kind(client: SandboxClient) -> None:
    """Filters combine."""
    order = client.job()
    work = order.send().json()["id"]
    order.until("callback_reply")
    found = client.http.get("/_events", params={"work": work, "kind": "callback_reply"}).json()
    assert [(entry["work"], entry["status"]) for entry in found] == [(work, 200)]


def test_other_requests_are_recorded(client: SandboxClient) -> None:
    """Health, rejected credentials, and unknown paths."""
    client.http.get("/healthz")
    client.http.get("/v1/orders/1", headers={"authorization": "Bearer wrong"})
    client.http.get("/nothing")
    for kind, status in (("health", 200), ("unauthorized", 401), ("unknown", 404)):
        last = client.http.get("/_events", params={"kind": kind}).json()[-1]
        assert last["status"] == status


def test_credentials_are_never_recorded(client: SandboxClient) -> None:
    """Neither the API key nor the webhook secret."""
    order = client.job(forged=True)
    order.send()
    order.until("callback_reply", 3)
    (request,) = order.events("request")
    assert request["headers"]["content-type"] == "application/json"
    remembered = "".join(
        client.http.get(path).text for path in ("/_events", "/_works", "/_summary")
    )
    assert API_KEY not in remembered
    assert WEBHOOK_SECRET not in remembered


def test_thousands_of_jobs_are_paged() -> None:
    """In order, none twice, none missing; the summary has the same numbers."""
    total = 1000
    with sandbox_client(rates=Rates(delay_ms=0)) as client:
        headers = {"idempotency-key": ""}
        for number in range(total):
            headers["idempotency-key"] = f"sandbox.quote.{number}:1"
            client.http.post("/v1/quotes", json={"amount": 1, "currency": "EUR"}, headers=headers)
        for path, wanted in (("/_works", {}), ("/_events", {"kind": "receipt"})):
            read = list(pages(client, path, limit=400, **wanted))
            assert [len(page) for page in read] == [400, 400, 200]
            found = [row for page in read for row in page]
            calls = [row["call_id"] for row in found]
            assert calls == [f"sandbox.quote.{number}" for number in range(total)]
        summary = client.summary()
        assert summary["effects"] == summary["requests"] == total
        assert summary["operations"] == {"quote": total}
        assert summary["statuses"] == {"completed": total}
        assert summary["answered"] == {"200": total}
        assert summary["journal"] == {"kept": 3 * total, "dropped": 0}


def test_summary_counts_acknowledgements_and_callbacks() -> None:
    """Acknowledged jobs, those without acknowledgement, callbacks by result."""
    with sandbox_client() as client:
        first, second, third = (
            client.job(lost_callbacks=1),
            client.job(duplicates=2),
            client.job(lost_callbacks=9),
        )
        for order in (first, second, third):
            order.send()
        first.until("callback_reply")
        second.until("callback_reply", 3)
        third.until("callback_given_up")
        first.acknowledge("success")
        second.acknowledge("failed")
        summary = client.summary()
    assert summary["acknowledged"] == {"success": 1, "failed": 1}
    assert summary["unacknowledged"] == 1
    assert summary["callbacks_sent"] == 4
    assert summary["callbacks_lost"] == 6
    assert summary["callbacks_given_up"] == 1
    assert summary["duplicates_sent"] == 2


def test_full_event_log_counts_dropped_events() -> None:
    """The oldest events are dropped from every index; jobs and counters stay."""
    provider = create_provider(API_KEY, WEBHOOK_SECRET, Rates(delay_ms=0), max_events=4)
    with (
        serve(provider) as url,
        httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=TIMEOUT,
            trust_env=False,
        ) as http,
    ):
        client = SandboxClient(http, CallbackReceiver(), "")
        quotes = [client.job("quote") for _ in range(3)]
        for quote in quotes:
            quote.send()
        summary = client.summary()
        assert summary["journal"] == {"kept": 4, "dropped": 5}
        assert summary["effects"] == summary["requests"] == 3
        assert [len(quote.events()) for quote in quotes] == [0, 1, 3]
        assert [quote.work()["status"] for quote in quotes] == ["completed"] * 3


def test_event_log_is_bounded() -> None:
    """However many calls it sees."""
    event_log = EventLog(utc_now, max_events=2)
    for number in range(100):
        event_log.record("request", call_id=str(number))
    assert [entry["call_id"] for entry in event_log.find()] == ["98", "99"]
    assert event_log.find(call_id="0") == []
    assert set(event_log._by_call) == {"98", "99"}
