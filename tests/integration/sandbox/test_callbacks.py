"""What the simulated provider tells of its work: twice, early, late, falsely, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.clock import utc_now
from ackbridge.errors import SignatureError
from ackbridge.security.inbound import Verifier, build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.settings import app_folder
from tests.support.sandbox_customer import (
    WEBHOOK_SECRET,
    Customer,
    Errand,
    Mailbox,
    Received,
    customer,
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Customer]:
    with customer() as ready:
        yield ready


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """The gateway's own, as the integration file wants it."""
    callbacks = load_integration(app_folder() / "integrations" / "sandbox.yaml", {}).callbacks
    assert callbacks is not None
    secrets = Secrets({"SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET}, Path())
    return build_verifier(callbacks.verify, secrets, utc_now)


def verdict(verifier: Verifier, letter: Received) -> str:
    """What a verifier makes of a callback."""
    try:
        verifier.verify(letter.headers, letter.body)
    except SignatureError as error:
        return str(error)
    return "true"


def kinds(errand: Errand) -> list[str]:
    """What the journal has on it, in order."""
    return [entry["kind"] for entry in errand.events()]


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
        order = shop.errand(duplicates=1)
        order.send()
        first, second = order.take(), order.take()
        assert first.port != second.port
        assert first.body == second.body
        assert shop.summary()["duplicates_sent"] == 1


def test_an_early_callback_is_answered_before_the_receipt(shop: Customer) -> None:
    """It overtakes: the journal has its reply before the receipt."""
    order = shop.errand(early=True, delay_ms=600_000)
    receipt = order.send()
    assert order.take().event["order"]["id"] == receipt.json()["id"]
    assert kinds(order) == ["request", "done", "callback", "callback_reply", "receipt"]


def test_it_insists_until_a_callback_is_taken(shop: Customer) -> None:
    """The same event comes again after 503, and not after 200."""
    order = shop.errand()
    replies = iter([503, 500, 200])
    shop.mailbox.answers[order.box] = lambda _: next(replies)
    order.send()
    letters = [order.take() for _ in range(3)]
    assert len({letter.event["event_id"] for letter in letters}) == 1
    tries = [(entry["attempt"], entry["status"]) for entry in order.until("callback_reply", 3)]
    assert tries == [(1, 503), (2, 500), (3, 200)]


def test_it_gives_up_in_the_end(shop: Customer) -> None:
    """After so many tries; the journal says so."""
    order = shop.errand()
    shop.mailbox.answers[order.box] = lambda _: 503
    order.send()
    (end,) = order.until("callback_given_up")
    assert end["idempotency_key"] == order.key
    assert len(order.events("callback")) == 5


@pytest.mark.parametrize("kind", ["order", "booking"])
@pytest.mark.parametrize(("fault", "status"), [("silent", "completed"), ("stuck", "processing")])
def test_one_who_says_nothing_can_be_asked(
    shop: Customer, kind: str, fault: str, status: str
) -> None:
    """Silent ones have done the work, stuck ones never will."""
    order = shop.errand(kind, **{fault: True, "early": True})
    order.send()
    assert order.look().json()["status"] == status
    assert order.events("callback") == []


def test_tries_of_a_callback_are_lost_on_the_way(shop: Customer) -> None:
    """They never leave, and the next one comes."""
    order = shop.errand(lost_callbacks=2)
    order.send()
    order.take()
    assert len(order.events("callback_lost")) == 2
    assert [entry["attempt"] for entry in order.events("callback")] == [3]


def test_all_tries_of_a_callback_may_be_lost(shop: Customer) -> None:
    """Then it is given up, and only the status request tells."""
    order = shop.errand(lost_callbacks=99)
    order.send()
    order.until("callback_given_up")
    assert order.events("callback") == []
    assert order.look().json()["status"] == "completed"


def test_it_answers_only_after_it_was_told_failed(shop: Customer) -> None:
    """The work is not done before; then the callback goes out, once."""
    order = shop.errand(late=True, late_ms=1, delay_ms=0)
    order.send()
    assert order.acknowledge("success").status_code == 200
    assert order.look().json()["status"] == "processing"
    for _ in range(2):
        assert order.acknowledge("failed").status_code == 200
    assert order.take().event["type"] == "order.completed"
    order.until("callback_reply")
    assert len(order.events("callback")) == 1


def test_late_reports_are_done_after_a_failed_acknowledgement(shop: Customer) -> None:
    """Also where nobody is called back."""
    report = shop.errand("report", late=True)
    report.send()
    assert report.look().json()["status"] == "processing"
    report.acknowledge("failed")
    report.until("done")
    assert report.look().json()["status"] == "completed"


def test_forged_callbacks_come_before_the_true_one(shop: Customer, verifier: Verifier) -> None:
    """One with a wrong signature, one of yesterday; they tell the opposite, under ids of their
    own, and nobody insists on them."""
    order = shop.errand(forged=True)
    shop.mailbox.answers[order.box] = lambda it: 200 if verdict(verifier, it) == "true" else 401
    order.send()
    letters = [order.take() for _ in range(3)]
    verdicts = [verdict(verifier, letter) for letter in letters]
    assert verdicts[0] == "signature does not match"
    assert verdicts[1].startswith("timestamp is 864")
    assert verdicts[2] == "true"
    types = [letter.event["type"] for letter in letters]
    assert types == ["order.failed", "order.failed", "order.completed"]
    assert len({letter.event["event_id"] for letter in letters}) == 3
    replies = [(entry["news"], entry["status"]) for entry in order.until("callback_reply", 3)]
    assert replies == [("forged_signature", 401), ("forged_stale", 401), ("completed", 200)]
    assert len(order.events("callback")) == 3


def test_malformed_callbacks_are_signed(shop: Customer, verifier: Verifier) -> None:
    """One that is no JSON, one without anything that matters, then the true one."""
    order = shop.errand(malformed=True)
    shop.mailbox.answers[order.box] = lambda it: 200 if b"event_id" in it.body else 400
    order.send()
    letters = [order.take() for _ in range(3)]
    assert {verdict(verifier, letter) for letter in letters} == {"true"}
    with pytest.raises(ValueError, match="Expecting value"):
        _ = letters[0].event
    assert letters[1].event == {}
    assert letters[2].event["type"] == "order.completed"
    order.until("callback_reply", 3)
    assert len(order.events("callback")) == 3


@pytest.mark.parametrize("first", ["completed", "failed"])
@pytest.mark.parametrize("fails", [0, 1])
def test_it_contradicts_itself(shop: Customer, first: str, fails: int) -> None:
    """Both are told, in either order, with different ids; asked, it tells the truth."""
    order = shop.errand(contradictory=first, fail=fails, reason="no stock")
    order.send()
    events = [order.take().event for _ in range(2)]
    second = "failed" if first == "completed" else "completed"
    assert [event["type"] for event in events] == [f"order.{first}", f"order.{second}"]
    assert [event["order"]["status"] for event in events] == [first, second]
    assert events[0]["event_id"] != events[1]["event_id"]
    assert order.look().json()["status"] == ("failed" if fails else "completed")


def test_it_asks_for_more_time_again_and_again(shop: Customer) -> None:
    """Each time until a later moment, with an id of its own; asked, it says the same."""
    order = shop.errand(extend_ms=3_600_000, extensions=3, extend_wait_ms=0)
    order.send()
    events = [order.take().event for _ in range(4)]
    assert [event["type"] for event in events] == ["order.extended"] * 3 + ["order.completed"]
    assert len({event["event_id"] for event in events}) == 4
    moments = [datetime.fromisoformat(event["until"]) for event in events[:3]]
    assert moments == sorted(set(moments))
    assert "until" not in events[3]


def test_during_an_extension_its_end_can_be_asked_for(shop: Customer) -> None:
    """The status answer has what the event had."""
    order = shop.errand(extend_ms=3_600_000)
    order.send()
    until = order.take().event["until"]
    told = order.look().json()
    assert (told["status"], told["until"]) == ("processing", until)


def test_faults_of_one_work_combine(shop: Customer, verifier: Verifier) -> None:
    """An early failure, forged before, in two copies whose first tries are lost."""
    order = shop.errand(early=True, fail=1, forged=True, duplicates=1, lost_callbacks=1)
    order.send()
    letters = [order.take() for _ in range(4)]
    types = [letter.event["type"] for letter in letters]
    assert types == ["order.completed", "order.completed", "order.failed", "order.failed"]
    assert [verdict(verifier, letter) == "true" for letter in letters] == [False, False, True, True]
    assert len(order.events("callback_lost")) == 2


def test_a_work_that_waits_can_be_hurried(shop: Customer) -> None:
    """A test decides itself when something is late; what does not wait is left alone."""
    order, other = shop.errand(delay_ms=600_000), shop.errand(delay_ms=600_000)
    order.send()
    other.send()
    for _ in range(2):
        hurried = shop.http.post("/_hurry", params={"call_id": order.call_id})
        assert hurried.status_code == 200
    assert order.take().event["type"] == "order.completed"
    assert other.events("done") == []
