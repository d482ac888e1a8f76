"""The acknowledgement and status requests of the simulated provider, and their faults."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

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


def test_acknowledgement_counts_once(client: SandboxClient) -> None:
    """A retry with the same key gets the same reply, and adds nothing."""
    order = client.job()
    order.send()
    first, again = order.acknowledge("success"), order.acknowledge("success")
    assert first.status_code == 200
    assert again.content == first.content
    (taken,) = order.work()["acknowledgements"]
    assert (taken["verdict"], taken["key"]) == ("success", f"{order.key}:success")
    assert [entry["counts"] for entry in order.events("acknowledgement")] == [True, False]


def test_success_after_failure_is_accepted(client: SandboxClient) -> None:
    """As after a late response; the history has both."""
    order = client.job()
    order.send()
    order.acknowledge("failed")
    order.acknowledge("success")
    work = order.work()
    assert [one["verdict"] for one in work["acknowledgements"]] == ["failed", "success"]
    assert work["acknowledged"] == "success"
    bodies = [entry["body"] for entry in order.events("acknowledgement")]
    assert bodies == [{"status": "failed"}, {"status": "success"}]


def test_each_cycle_has_its_own_acknowledgements(client: SandboxClient) -> None:
    """Each job has its own history."""
    order = client.job(stuck=True)
    for cycle, verdict in ((1, "failed"), (2, "success")):
        order.cycle = cycle
        order.send()
        order.acknowledge(verdict)
    told = [(work["cycle"], work["acknowledged"]) for work in order.works()]
    assert told == [(1, "failed"), (2, "success")]


def test_first_acknowledgements_fail(client: SandboxClient) -> None:
    """The given number of acknowledgements is answered 5xx."""
    order = client.job(acknowledgement_failures=2)
    order.send()
    assert [order.acknowledge("success").status_code for _ in range(2)] == [503, 503]
    assert order.work()["acknowledged"] is None
    assert order.acknowledge("success").status_code == 200
    assert order.work()["acknowledged"] == "success"


def test_first_acknowledgements_are_refused(client: SandboxClient) -> None:
    """With a 4xx, as for missing permissions."""
    order = client.job(acknowledgement_failures=1, acknowledgement_status=403)
    order.send()
    assert [order.acknowledge("success").status_code for _ in range(2)] == [403, 200]


def test_first_acknowledgements_are_throttled(client: SandboxClient) -> None:
    """With a 429 and Retry-After."""
    order = client.job(acknowledgement_failures=1, acknowledgement_status=429, retry_after=3600)
    order.send()
    refused = order.acknowledge("success")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    assert order.acknowledge("success").status_code == 200


def test_acknowledgements_fail_for_a_time_span() -> None:
    """From the first attempt on, by the provider's clock."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    provider = create_provider(API_KEY, WEBHOOK_SECRET, clock=lambda: now)
    with (
        serve(provider) as url,
        httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=TIMEOUT,
            trust_env=False,
        ) as http,
    ):
        order = SandboxClient(http, CallbackReceiver(), "http://127.0.0.1:9").job(
            acknowledgement_down_ms=3_600_000, silent=True
        )
        order.send()
        now += timedelta(days=1)
        assert order.acknowledge("success").status_code == 503
        now += timedelta(minutes=59)
        assert order.acknowledge("success").status_code == 503
        now += timedelta(minutes=1)
        assert order.acknowledge("success").status_code == 200


def test_reply_to_acknowledgement_is_lost(client: SandboxClient) -> None:
    """It is accepted once all the same, and the next reply arrives."""
    order = client.job(lost_acknowledgements=1)
    order.send()
    assert order.acknowledge("success").status_code == 503
    assert order.work()["acknowledged"] == "success"
    assert order.acknowledge("success").status_code == 200
    assert len(order.work()["acknowledgements"]) == 1


def test_acknowledgement_without_verdict_is_refused(client: SandboxClient) -> None:
    """The error names the field."""
    order = client.job()
    order.send()
    reply = order.acknowledge("perhaps")
    assert reply.status_code == 422
    assert reply.json()["error"].startswith("status: ")


def test_first_status_requests_fail(client: SandboxClient) -> None:
    """The event log has each of them, and the status that was sent."""
    order = client.job(status_failures=1, error_status=500, early=True)
    order.send()
    assert [order.request_status().status_code for _ in range(2)] == [500, 200]
    entries = order.events("status")
    assert [(e["status"], e.get("fault"), e["stands"]) for e in entries] == [
        (500, "error", "completed"),
        (200, None, "completed"),
    ]
