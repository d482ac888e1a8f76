"""Faults of receipts, as a real HTTP client sees them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.sandbox_client import (
    API_KEY,
    TIMEOUT,
    SandboxClient,
    SandboxJob,
    sandbox_client,
)


@pytest.fixture(scope="module")
def client() -> Iterator[SandboxClient]:
    with sandbox_client() as ready:
        yield ready


def statuses(job: SandboxJob, times: int) -> list[int]:
    """The statuses of this many requests with one key."""
    return [job.send().status_code for _ in range(times)]


def faults(job: SandboxJob) -> list[str | None]:
    """The fault of each reply, from the event log."""
    return [entry.get("fault") for entry in job.events("receipt")]


def test_refusal_is_final(client: SandboxClient) -> None:
    """The same key is refused again, and nothing is done."""
    order = client.job(refuse=422, reason="no such currency")
    replies = [order.send() for _ in range(2)]
    assert [reply.status_code for reply in replies] == [422, 422]
    assert replies[0].json() == {"error": "no such currency"}
    assert order.works() == []


def test_throttled_with_seconds(client: SandboxClient) -> None:
    """429 with Retry-After; nothing is done for them."""
    order = client.job(throttle=2, retry_after=7)
    first, second = order.send(), order.send()
    assert [first.status_code, second.status_code] == [429, 429]
    assert first.headers["retry-after"] == "7"
    assert order.works() == []
    assert order.send().status_code == 202


def test_throttled_with_a_date(client: SandboxClient) -> None:
    """Retry-After can be an HTTP date."""
    before = datetime.now(UTC)
    told = client.job(throttle=1, retry_after=60, retry_after_date=True).send()
    until = parsedate_to_datetime(told.headers["retry-after"])
    # HTTP dates have whole seconds.
    assert before + timedelta(seconds=59) <= until <= datetime.now(UTC) + timedelta(seconds=60)
    assert told.headers["retry-after"].endswith("GMT")


def test_first_requests_fail(client: SandboxClient) -> None:
    """5xx before anything is done."""
    order = client.job(receipt_failures=2, error_status=502)
    assert statuses(order, 2) == [502, 502]
    assert order.works() == []
    assert statuses(order, 1) == [202]


def test_receipt_is_lost(client: SandboxClient) -> None:
    """5xx after the job is done; a retry gets the receipt."""
    order = client.job(lost_receipts=1)
    assert statuses(order, 1) == [503]
    assert len(order.works()) == 1
    assert order.send().json()["id"] == order.work()["id"]
    assert len(order.works()) == 1
    assert faults(order) == ["error", None]


def test_connection_is_closed_without_a_reply(client: SandboxClient) -> None:
    """In good order; the job is done."""
    order = client.job(closed_receipts=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        order.send()
    assert len(order.works()) == 1
    assert statuses(order, 1) == [202]
    assert faults(order) == ["closed", None]


def ask(client: SandboxClient, order: SandboxJob) -> socket.socket:
    """Send an order byte by byte; returns the connection."""
    body = httpx.Request("POST", "http://shop", json=order.body).content
    head = (
        f"POST /v1/orders HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {API_KEY}\r\n"
        f"content-type: application/json\r\nidempotency-key: {order.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    url = urlsplit(str(client.http.base_url))
    line = socket.create_connection((url.hostname or "", url.port or 0), TIMEOUT)
    line.sendall(head.encode() + body)
    return line


@pytest.mark.parametrize(("behaviour", "effects"), [({"resets": 1}, 0), ({"reset_receipts": 1}, 1)])
def test_connection_is_reset(
    client: SandboxClient, behaviour: dict[str, Any], effects: int
) -> None:
    """A real TCP RST, with the job done or not."""
    order = client.job(**behaviour)
    with ask(client, order) as line, pytest.raises(ConnectionResetError):
        line.recv(1)
    assert len(order.works()) == effects
    assert statuses(order, 1) == [202]
    assert len(order.works()) == 1
    assert faults(order) == ["reset", None]


def test_reset_is_a_network_error_for_clients(client: SandboxClient) -> None:
    """They get no status."""
    order = client.job(reset_receipts=1)
    with pytest.raises(httpx.ReadError):
        order.send()


def test_reply_hangs_in_the_middle(client: SandboxClient) -> None:
    """Headers and half of the body arrive, and then nothing; the job is done."""
    order = client.job(hung_receipts=1)
    with ask(client, order) as line:
        answer = line.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 202 Accepted\r\n"
        headers = dict(line.split(b": ") for line in iter(answer.readline, b"\r\n"))
        half = int(headers[b"content-length"]) // 2
        assert len(answer.read(half)) == half
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.recv(1)
    assert len(order.works()) == 1
    assert order.send().json()["id"] == order.work()["id"]


def test_receipt_is_malformed(client: SandboxClient) -> None:
    """200 and a body that is not JSON, with the job done."""
    order = client.job(malformed_receipts=1)
    reply = order.send()
    assert reply.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        reply.json()
    assert len(order.works()) == 1


def test_receipt_is_slow_and_its_retry_is_not(client: SandboxClient) -> None:
    """The job is done at once; a client that retries gets a reply."""
    order = client.job(receipt_delay_ms=600_000)
    with pytest.raises(httpx.ReadTimeout):
        order.send(timeout=httpx.Timeout(TIMEOUT, read=0.2))
    order.until("request")
    assert order.send().status_code == 202
    assert len(order.works()) == 1


def test_faults_of_one_request_happen_in_order(client: SandboxClient) -> None:
    """As documented: those without an effect come first."""
    order = client.job(
        lost_receipts=1, malformed_receipts=1, throttle=1, receipt_failures=1, closed_receipts=1
    )
    assert statuses(order, 2) == [429, 503]
    assert order.works() == []
    assert statuses(order, 1) == [503]
    with pytest.raises(httpx.RemoteProtocolError):
        order.send()
    assert statuses(order, 2) == [200, 202]
    assert faults(order) == ["throttled", "error", "error", "closed", "malformed", None]
    assert len(order.works()) == 1


@pytest.mark.parametrize(("fault", "status"), [("silent", "completed"), ("stuck", "processing")])
def test_synchronous_response_is_missing(client: SandboxClient, fault: str, status: str) -> None:
    """There is no reply, to any attempt, whether the job is done or not."""
    quote = client.job("quote", **{fault: True})
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            quote.send(timeout=httpx.Timeout(TIMEOUT, read=0.2))
    assert [entry["fault"] for entry in quote.until("receipt", 2)] == ["mute", "mute"]
    assert [work["status"] for work in quote.works()] == [status]


def test_synchronous_response_is_lost_and_replayed(client: SandboxClient) -> None:
    """The retry gets the same quote, which is made once."""
    quote = client.job("quote", lost_receipts=1, reset_receipts=1)
    assert statuses(quote, 1) == [503]
    with pytest.raises(httpx.ReadError):
        quote.send()
    assert quote.send().json()["id"] == quote.work()["id"]
    assert len(quote.works()) == 1
