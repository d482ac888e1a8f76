"""Callbacks of the simulated provider: duplicated, early, late, forged, or missing."""

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
from tests.support.sandbox_client import (
    WEBHOOK_SECRET,
    CallbackReceiver,
    ReceivedCallback,
    SandboxClient,
    SandboxJob,
    sandbox_client,
)


@pytest.fixture(scope="module")
def client() -> Iterator[SandboxClient]:
    with sandbox_client() as ready:
        yield ready


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """The gateway's verifier for the integration file."""
    callbacks = load_integration(app_folder() / "integrations" / "sandbox.yaml", {}).callbacks
    assert callbacks is not None
    secrets = Secrets({"SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET}, Path())
    return build_verifier(callbacks.verify, secrets, utc_now)


def verify(verifier: Verifier, callback: ReceivedCallback) -> str:
    """`true`, or why the verifier rejects a callback."""
    try:
        verifier.verify(callback.headers, callback.body)
    except SignatureError as error:
        return str(error)
    return "true"


def event_kinds(job: SandboxJob) -> list[str]:
    """The event_kinds of its events, in order."""
    return [entry["kind"] for entry in job.events()]


def test_duplicates_are_sent_concurrently() -> None:
    """The second does not wait for the reply to the first."""
    arrived: list[Any] = []
    both = asyncio.Event()

    class Slow(CallbackReceiver):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_when_both_came(message: Any) -> None:
                if message["type"] == "http.response.start":
                    arrived.append(message)
                    if len(arrived) == 2:
                        both.set()
                    await both.wait()
                await send(message)

            await super().__call__(scope, receive, send_when_both_came)

    with sandbox_client(Slow()) as client:
        order = client.job(duplicates=1)
        order.send()
        first, second = order.take(), order.take()
        assert first.port != second.port
        assert first.body == second.body
        assert client.summary()["duplicates_sent"] == 1


def test_early_callback_is_answered_before_the_receipt(client: SandboxClient) -> None:
    """The event log has its reply before the receipt."""
    order = client.job(early=True, delay_ms=600_000)
    receipt = order.send()
    assert order.take().event["order"]["id"] == receipt.json()["id"]
    assert event_kinds(order) == ["request", "done", "callback", "callback_reply", "receipt"]


def test_callbacks_are_retried_until_accepted(client: SandboxClient) -> None:
    """The same event is sent again after 503, and not after 200."""
    order = client.job()
    replies = iter([503, 500, 200])
    client.receiver.answers[order.path] = lambda _: next(replies)
    order.send()
    callbacks = [order.take() for _ in range(3)]
    assert len({callback.event["event_id"] for callback in callbacks}) == 1
    tries = [(entry["attempt"], entry["status"]) for entry in order.until("callback_reply", 3)]
    assert tries == [(1, 503), (2, 500), (3, 200)]


def test_retries_end(client: SandboxClient) -> None:
    """After the last attempt, which the event log records."""
    order = client.job()
    client.receiver.answers[order.path] = lambda _: 503
    order.send()
    (end,) = order.until("callback_given_up")
    assert end["idempotency_key"] == order.key
    assert len(order.events("callback")) == 5


@pytest.mark.parametrize("kind", ["order", "booking"])
@pytest.mark.parametrize(("fault", "status"), [("silent", "completed"), ("stuck", "processing")])
def test_silent_jobs_answer_status_requests(
    client: SandboxClient, kind: str, fault: str, status: str
) -> None:
    """Silent jobs are done, stuck ones never are."""
    order = client.job(kind, **{fault: True, "early": True})
    order.send()
    assert order.request_status().json()["status"] == status
    assert order.events("callback") == []


def test_callback_attempts_are_lost(client: SandboxClient) -> None:
    """They are not sent; the next attempt is."""
    order = client.job(lost_callbacks=2)
    order.send()
    order.take()
    assert len(order.events("callback_lost")) == 2
    assert [entry["attempt"] for entry in order.events("callback")] == [3]


def test_all_callback_attempts_are_lost(client: SandboxClient) -> None:
    """Then only the status request has the result."""
    order = client.job(lost_callbacks=99)
    order.send()
    order.until("callback_given_up")
    assert order.events("callback") == []
    assert order.request_status().json()["status"] == "completed"


def test_late_job_starts_after_a_failed_acknowledgement(client: SandboxClient) -> None:
    """It is not done before; then its callback is sent once."""
    order = client.job(late=True, late_ms=1, delay_ms=0)
    order.send()
    assert order.acknowledge("success").status_code == 200
    assert order.request_status().json()["status"] == "processing"
    for _ in range(2):
        assert order.acknowledge("failed").status_code == 200
    assert order.take().event["type"] == "order.completed"
    order.until("callback_reply")
    assert len(order.events("callback")) == 1


def test_failed_acknowledgement_calls_a_job_off(client: SandboxClient) -> None:
    """It is never done, nothing is reported, and a status request knows no success."""
    order = client.job(delay_ms=600_000)
    order.send()
    assert order.acknowledge("failed").status_code == 200
    client.http.post("/_hurry", params={"call_id": order.call_id})
    assert order.request_status().json()["status"] == "voided"
    assert order.work()["status"] == "processing"
    assert order.events("done", "callback") == []


def test_callback_of_a_job_that_was_called_off_is_not_sent_again(client: SandboxClient) -> None:
    """One attempt was made before; the status does not return the result either."""
    order = client.job()
    client.receiver.answers[order.path] = lambda _: 503
    order.send()
    order.until("callback_reply")
    assert order.acknowledge("failed").status_code == 200
    order.until("callback_given_up")
    assert len(order.events("callback")) < 5
    assert order.request_status().json()["status"] == "voided"


def test_job_that_has_failed_stays_failed(client: SandboxClient) -> None:
    """Also after its failed acknowledgement."""
    order = client.job(fail=1)
    order.send()
    order.take()
    assert order.acknowledge("failed").status_code == 200
    assert order.request_status().json()["status"] == "failed"


def test_late_job_without_callback(
    client: SandboxClient,
) -> None:
    """Status requests have the result."""
    report = client.job("report", late=True)
    report.send()
    assert report.request_status().json()["status"] == "processing"
    report.acknowledge("failed")
    report.until("done")
    assert report.request_status().json()["status"] == "completed"


def test_forged_callbacks_precede_the_true_one(client: SandboxClient, verifier: Verifier) -> None:
    """One with a wrong signature, one of yesterday; they tell the opposite, under ids of their
    own, and nobody insists on them."""
    order = client.job(forged=True)
    client.receiver.answers[order.path] = lambda it: 200 if verify(verifier, it) == "true" else 401
    order.send()
    callbacks = [order.take() for _ in range(3)]
    verdicts = [verify(verifier, callback) for callback in callbacks]
    assert verdicts[0] == "signature does not match"
    assert verdicts[1].startswith("timestamp is 864")
    assert verdicts[2] == "true"
    types = [callback.event["type"] for callback in callbacks]
    assert types == ["order.failed", "order.failed", "order.completed"]
    assert len({callback.event["event_id"] for callback in callbacks}) == 3
    replies = [(entry["news"], entry["status"]) for entry in order.until("callback_reply", 3)]
    assert replies == [("forged_signature", 401), ("forged_stale", 401), ("completed", 200)]
    assert len(order.events("callback")) == 3


def test_malformed_callbacks_are_signed(client: SandboxClient, verifier: Verifier) -> None:
    """One that is not JSON, an empty object, then the true one."""
    order = client.job(malformed=True)
    client.receiver.answers[order.path] = lambda it: 200 if b"event_id" in it.body else 400
    order.send()
    callbacks = [order.take() for _ in range(3)]
    assert {verify(verifier, callback) for callback in callbacks} == {"true"}
    with pytest.raises(ValueError, match="Expecting value"):
        _ = callbacks[0].event
    assert callbacks[1].event == {}
    assert callbacks[2].event["type"] == "order.completed"
    order.until("callback_reply", 3)
    assert len(order.events("callback")) == 3


@pytest.mark.parametrize("first", ["completed", "failed"])
@pytest.mark.parametrize("fails", [0, 1])
def test_contradictory_callbacks(client: SandboxClient, first: str, fails: int) -> None:
    """Both are sent, in either order, with different ids; the status does not change."""
    order = client.job(contradictory=first, fail=fails, reason="no stock")
    order.send()
    events = [order.take().event for _ in range(2)]
    second = "failed" if first == "completed" else "completed"
    assert [event["type"] for event in events] == [f"order.{first}", f"order.{second}"]
    assert [event["order"]["status"] for event in events] == [first, second]
    assert events[0]["event_id"] != events[1]["event_id"]
    assert order.request_status().json()["status"] == ("failed" if fails else "completed")


def test_deadline_is_extended_repeatedly(client: SandboxClient) -> None:
    """Each time to a later time, with its own event id; the status has the same time."""
    order = client.job(extend_ms=3_600_000, extensions=3, extend_wait_ms=0)
    order.send()
    events = [order.take().event for _ in range(4)]
    assert [event["type"] for event in events] == ["order.extended"] * 3 + ["order.completed"]
    assert len({event["event_id"] for event in events}) == 4
    moments = [datetime.fromisoformat(event["until"]) for event in events[:3]]
    assert moments == sorted(set(moments))
    assert "until" not in events[3]


def test_status_has_the_end_of_an_extension(client: SandboxClient) -> None:
    """It is the same as in the callback."""
    order = client.job(extend_ms=3_600_000)
    order.send()
    until = order.take().event["until"]
    told = order.request_status().json()
    assert (told["status"], told["until"]) == ("processing", until)


def test_faults_of_one_job_combine(client: SandboxClient, verifier: Verifier) -> None:
    """An early failure, forged before, in two copies whose first attempts are lost."""
    order = client.job(early=True, fail=1, forged=True, duplicates=1, lost_callbacks=1)
    order.send()
    callbacks = [order.take() for _ in range(4)]
    types = [callback.event["type"] for callback in callbacks]
    assert types == ["order.completed", "order.completed", "order.failed", "order.failed"]
    assert [verify(verifier, callback) == "true" for callback in callbacks] == [
        False,
        False,
        True,
        True,
    ]
    assert len(order.events("callback_lost")) == 2


def test_delays_can_be_skipped(client: SandboxClient) -> None:
    """`POST /_hurry` ends the current delay, and nothing else."""
    order, other = client.job(delay_ms=600_000), client.job(delay_ms=600_000)
    order.send()
    other.send()
    for _ in range(2):
        hurried = client.http.post("/_hurry", params={"call_id": order.call_id})
        assert hurried.status_code == 200
    assert order.take().event["type"] == "order.completed"
    assert other.events("done") == []
