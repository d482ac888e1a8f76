"""What a request may meet in place of its receipt, as a real HTTP client sees it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.sandbox_customer import API_KEY, PATIENCE, Customer, Errand, customer


@pytest.fixture(scope="module")
def shop() -> Iterator[Customer]:
    with customer() as ready:
        yield ready


def statuses(errand: Errand, times: int) -> list[int]:
    """What so many requests under one key are answered with."""
    return [errand.send().status_code for _ in range(times)]


def faults(errand: Errand) -> list[str | None]:
    """What the journal says that took the place of each answer."""
    return [entry.get("fault") for entry in errand.events("receipt")]


def test_it_refuses_for_good(shop: Customer) -> None:
    """The same key is refused again, and nothing is done."""
    order = shop.errand(refuse=422, reason="no such currency")
    replies = [order.send() for _ in range(2)]
    assert [reply.status_code for reply in replies] == [422, 422]
    assert replies[0].json() == {"error": "no such currency"}
    assert order.works() == []


def test_it_asks_for_patience_in_seconds(shop: Customer) -> None:
    """So many 429 with Retry-After; nothing is done for them."""
    order = shop.errand(throttle=2, retry_after=7)
    first, second = order.send(), order.send()
    assert [first.status_code, second.status_code] == [429, 429]
    assert first.headers["retry-after"] == "7"
    assert order.works() == []
    assert order.send().status_code == 202


def test_it_asks_for_patience_until_a_date(shop: Customer) -> None:
    """Retry-After may be an HTTP date."""
    before = datetime.now(UTC)
    told = shop.errand(throttle=1, retry_after=60, retry_after_date=True).send()
    until = parsedate_to_datetime(told.headers["retry-after"])
    # HTTP dates have whole seconds.
    assert before + timedelta(seconds=59) <= until <= datetime.now(UTC) + timedelta(seconds=60)
    assert told.headers["retry-after"].endswith("GMT")


def test_it_is_down_at_first(shop: Customer) -> None:
    """So many 5xx before anything is done."""
    order = shop.errand(receipt_failures=2, error_status=502)
    assert statuses(order, 2) == [502, 502]
    assert order.works() == []
    assert statuses(order, 1) == [202]


def test_a_receipt_is_lost_though_the_work_is_done(shop: Customer) -> None:
    """So many 5xx after it; the answer is kept for who asks again."""
    order = shop.errand(lost_receipts=1)
    assert statuses(order, 1) == [503]
    assert len(order.works()) == 1
    assert order.send().json()["id"] == order.work()["id"]
    assert len(order.works()) == 1
    assert faults(order) == ["error", None]


def test_a_connection_is_closed_without_an_answer(shop: Customer) -> None:
    """In good order, but with nothing said; the work is done."""
    order = shop.errand(closed_receipts=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        order.send()
    assert len(order.works()) == 1
    assert statuses(order, 1) == [202]
    assert faults(order) == ["closed", None]


def ask(shop: Customer, order: Errand) -> socket.socket:
    """Send an order, byte by byte; gives the connection that it is answered on."""
    body = httpx.Request("POST", "http://shop", json=order.body).content
    head = (
        f"POST /v1/orders HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {API_KEY}\r\n"
        f"content-type: application/json\r\nidempotency-key: {order.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    url = urlsplit(str(shop.http.base_url))
    line = socket.create_connection((url.hostname or "", url.port or 0), PATIENCE)
    line.sendall(head.encode() + body)
    return line


@pytest.mark.parametrize(("behaviour", "effects"), [({"resets": 1}, 0), ({"reset_receipts": 1}, 1)])
def test_a_connection_is_reset(shop: Customer, behaviour: dict[str, Any], effects: int) -> None:
    """A real TCP RST, not an orderly end; with the work done or not."""
    order = shop.errand(**behaviour)
    with ask(shop, order) as line, pytest.raises(ConnectionResetError):
        line.recv(1)
    assert len(order.works()) == effects
    assert statuses(order, 1) == [202]
    assert len(order.works()) == 1
    assert faults(order) == ["reset", None]


def test_a_reset_is_a_network_error_to_clients(shop: Customer) -> None:
    """They have no status to go by."""
    order = shop.errand(reset_receipts=1)
    with pytest.raises(httpx.ReadError):
        order.send()


def test_it_hangs_half_way_through_the_answer(shop: Customer) -> None:
    """Headers and half of the body come, and then nothing; the work is done."""
    order = shop.errand(hung_receipts=1)
    with ask(shop, order) as line:
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


def test_a_receipt_cannot_be_read(shop: Customer) -> None:
    """200 and a body that is no JSON, with the work done."""
    order = shop.errand(malformed_receipts=1)
    reply = order.send()
    assert reply.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        reply.json()
    assert len(order.works()) == 1


def test_a_receipt_is_slow_and_its_repetition_is_not(shop: Customer) -> None:
    """The work is done at once; who gives up and asks again is answered."""
    order = shop.errand(receipt_delay_ms=600_000)
    with pytest.raises(httpx.ReadTimeout):
        order.send(timeout=httpx.Timeout(PATIENCE, read=0.2))
    order.until("request")
    assert order.send().status_code == 202
    assert len(order.works()) == 1


def test_faults_of_one_request_take_turns(shop: Customer) -> None:
    """In the order that is documented: those that leave nothing done come first."""
    order = shop.errand(
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
def test_a_synchronous_answer_never_comes(shop: Customer, fault: str, status: str) -> None:
    """Nothing at all is said, every time, whether the work is done or not."""
    quote = shop.errand("quote", **{fault: True})
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            quote.send(timeout=httpx.Timeout(PATIENCE, read=0.2))
    assert [entry["fault"] for entry in quote.until("receipt", 2)] == ["mute", "mute"]
    assert [work["status"] for work in quote.works()] == [status]


def test_a_synchronous_answer_is_lost_and_replayed(shop: Customer) -> None:
    """The same quote comes again, and is not made again."""
    quote = shop.errand("quote", lost_receipts=1, reset_receipts=1)
    assert statuses(quote, 1) == [503]
    with pytest.raises(httpx.ReadError):
        quote.send()
    assert quote.send().json()["id"] == quote.work()["id"]
    assert len(quote.works()) == 1
