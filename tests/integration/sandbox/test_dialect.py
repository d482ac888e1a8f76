"""A provider with another dialect than the sandbox's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest

from ackbridge.sandbox.behaviour import Behaviour
from ackbridge.sandbox.fault_rates import Rates
from ackbridge.sandbox.provider import simulate
from ackbridge.sandbox.provider_dialect import (
    AcknowledgementRequest,
    CallbackKind,
    DialectReply,
    DirectReply,
    IncomingRequest,
    Job,
    JobRequest,
    JobSelector,
    ParsedRequest,
    ProviderDialect,
    StatusRequest,
    Verdict,
)
from tests.support.sandbox_client import FAST_RETRIES, TIMEOUT, CallbackReceiver
from tests.support.serving import serve


class TextDialect:
    """A provider with one path, `/`, and plain text in bodies.

    `RING <key>` requests a job, `HOW <key>` its status, `OVER <key>` and `FAIL <key>`
    acknowledge; `TOKEN` gets a token. The header `x-line` names the operation.
    """

    def __init__(self, callback_url: str) -> None:
        self._callback_url = callback_url

    def parse(self, request: IncomingRequest) -> ParsedRequest:
        """By the first word of the body."""
        word, _, key = request.body.decode().partition(" ")
        operation = request.headers.get("x-line", "ring")
        match word:
            case "RING":
                mode: Any = request.headers.get("x-mode", "callback")
                return JobRequest(operation, mode, key, request.query, None, self._callback_url)
            case "HOW":
                return StatusRequest(operation, JobSelector(key=key))
            case "OVER" | "FAIL":
                verdict: Verdict = "success" if word == "OVER" else "failed"
                return AcknowledgementRequest(
                    operation, JobSelector(call_id=key), verdict, None, word
                )
            case "TOKEN":
                return DirectReply("token", DialectReply(200, b"SESAME"))
        return DirectReply("unknown", self.error_reply(400, "say again"))

    def job_reply(self, job: Job) -> DialectReply:
        """Its id; what it is about when there is no other answer."""
        return DialectReply(200, f"{job.id} {job.status} {job.content}".encode())

    def status_reply(self, job: Job) -> DialectReply:
        """One word."""
        return DialectReply(200, job.status.encode())

    def acknowledgement_reply(self, job: Job, verdict: Verdict) -> DialectReply:
        """Nothing, in the way of HTTP."""
        return DialectReply(204)

    def error_reply(self, status: int, reason: str, operation: str | None = None) -> DialectReply:
        """In capitals."""
        return DialectReply(status, reason.upper().encode())

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """A line."""
        return f"{event_id} {job.id} {kind}".encode()

    def target(self, url: str, event_id: str) -> tuple[str, str]:
        """Always the same."""
        return "POST", url

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        """By a password."""
        return {"x-password": "swordfish"}

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """A wrong password; no time is signed, so nothing can be stale."""
        return {"password": {"x-password": "herring"}}


Line = tuple[httpx.Client, CallbackReceiver]


@contextmanager
def text_provider(**behaviours: Behaviour) -> Iterator[Line]:
    """A running provider with a behaviour for each key."""
    receiver = CallbackReceiver()
    with serve(receiver) as receiver_url:
        dialect: ProviderDialect = TextDialect(f"{receiver_url}/box")
        provider = simulate(
            dialect,
            Rates(delay_ms=0),
            behaviour_for=lambda request: behaviours.get(request.key),
            retries=FAST_RETRIES,
        )
        with (
            serve(provider) as url,
            httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as http,
        ):
            yield http, receiver


def test_another_dialect_is_a_complete_provider() -> None:
    """Request, receipt, callback, status and acknowledgement in its own format."""
    with text_provider() as (http, receiver):
        receipt = http.post("/", content=b"RING k")
        work = receipt.text.split()[0]
        callback = receiver.take("/box")
        assert callback.body.decode() == f"evt_{work}_completed {work} completed"
        assert callback.headers["x-password"] == "swordfish"
        assert http.post("/", content=b"RING k").content == receipt.content
        assert http.post("/", content=b"HOW k").text == "completed"
        assert http.post("/", content=b"OVER k").status_code == 204
        (told,) = http.get("/_works").json()
        assert (told["acknowledged"], told["idempotency_key"]) == ("success", "k")


def test_faults_are_given_by_a_function() -> None:
    """Its requests have no field for them."""
    behaviours = {
        "busy": Behaviour(throttle=1, retry_after=3),
        "false": Behaviour(forged=True, fail=1),
        "lost": Behaviour(silent=True, receipt_failures=1),
    }
    with text_provider(**behaviours) as (http, receiver):
        busy = http.post("/", content=b"RING busy")
        assert (busy.status_code, busy.text) == (429, "TOO MANY REQUESTS")
        assert busy.headers["retry-after"] == "3"
        http.post("/", content=b"RING false")
        callbacks = [receiver.take("/box") for _ in range(2)]
        passwords = [callback.headers["x-password"] for callback in callbacks]
        assert passwords == ["herring", "swordfish"]
        assert callbacks[0].body.endswith(b"completed")
        assert callbacks[1].body.endswith(b"failed")
        assert http.post("/", content=b"RING lost").status_code == 503
        assert http.post("/", content=b"RING lost").status_code == 200
        assert receiver.is_empty("/box")


def test_sync_and_poll_modes() -> None:
    """In sync mode the reply is the response; in poll mode a status request gets it."""
    with text_provider() as (http, receiver):
        answer = http.post("/?what=42", content=b"RING a", headers={"x-mode": "sync"})
        assert answer.text.endswith(" completed what=42")
        asked = http.post("/", content=b"RING b", headers={"x-mode": "poll"})
        assert " processing " in asked.text
        while http.post("/", content=b"HOW b").text != "completed":
            pass
        assert receiver.is_empty("/box")


def test_direct_replies_are_recorded() -> None:
    """Tokens, and requests that cannot be parsed."""
    with text_provider() as (http, _):
        assert http.post("/anything/at/all", content=b"TOKEN").text == "SESAME"
        assert http.post("/", content=b"HELLO").status_code == 400
        kinds = [entry["kind"] for entry in http.get("/_events").json()]
        assert kinds == ["token", "unknown"]


@pytest.mark.parametrize("body", [b"HOW nobody", b"OVER nobody"])
def test_unknown_job_is_an_error_of_the_dialect(body: bytes) -> None:
    """404, also when the job is of another operation."""
    with text_provider() as (http, _):
        assert http.post("/", content=body).text == "NO SUCH WORK"
        http.post("/", content=b"RING nobody")
        other = http.post("/", content=body, headers={"x-line": "other"})
        assert other.status_code == 404


def test_empty_reply_can_hang() -> None:
    """A body is announced, and not sent."""

    class EmptyReplies(TextDialect):
        def job_reply(self, job: Job) -> DialectReply:
            return DialectReply(201)

    provider = simulate(EmptyReplies(""), behaviour_for=lambda _: Behaviour(hung_receipts=1))
    brief = httpx.Timeout(TIMEOUT, read=0.2)
    headers = {"x-mode": "sync"}
    with serve(provider) as url, httpx.Client(base_url=url, trust_env=False) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/", content=b"RING k", headers=headers, timeout=brief)
        again = http.post("/", content=b"RING k", headers=headers, timeout=TIMEOUT)
        assert again.status_code == 201
