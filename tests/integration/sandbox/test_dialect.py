"""Another provider at the same desk: what a speech has to say, and what it need not know."""

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
from tests.support.sandbox_customer import BRISK, PATIENCE, Mailbox
from tests.support.serving import serve


class Telegraph:
    """A provider with one path, `/`, texts for bodies, and callers that it knows by their line.

    `RING <key>` asks for work, `HOW <key>` how it stands, `OVER <key>` and `FAIL <key>`
    acknowledge; `TOKEN` gives a token.
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

    def error_reply(self, status: int, reason: str) -> DialectReply:
        """In capitals."""
        return DialectReply(status, reason.upper().encode())

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """A line."""
        return f"{event_id} {job.id} {kind}".encode()

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        """By a password."""
        return {"x-password": "swordfish"}

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """A wrong password; no time is signed, so nothing can be stale."""
        return {"password": {"x-password": "herring"}}


Line = tuple[httpx.Client, Mailbox]


@contextmanager
def telegraph(**behaviours: Behaviour) -> Iterator[Line]:
    """A telegraph office that meets each key as it is told."""
    mailbox = Mailbox()
    with serve(mailbox) as mailbox_url:
        speech: ProviderDialect = Telegraph(f"{mailbox_url}/box")
        provider = simulate(
            speech,
            Rates(delay_ms=0),
            behaviour_for=lambda request: behaviours.get(request.key),
            retries=BRISK,
        )
        with (
            serve(provider) as url,
            httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as http,
        ):
            yield http, mailbox


def test_another_speech_sits_at_the_same_desk() -> None:
    """Request, receipt, callback, status and acknowledgement in words of its own."""
    with telegraph() as (http, mailbox):
        receipt = http.post("/", content=b"RING k")
        work = receipt.text.split()[0]
        letter = mailbox.take("/box")
        assert letter.body.decode() == f"evt_{work}_completed {work} completed"
        assert letter.headers["x-password"] == "swordfish"
        assert http.post("/", content=b"RING k").content == receipt.content
        assert http.post("/", content=b"HOW k").text == "completed"
        assert http.post("/", content=b"OVER k").status_code == 204
        (told,) = http.get("/_works").json()
        assert (told["acknowledged"], told["idempotency_key"]) == ("success", "k")


def test_its_faults_are_given_by_a_function() -> None:
    """Requests have no field for them; each key is met as the test says."""
    behaviours = {
        "busy": Behaviour(throttle=1, retry_after=3),
        "false": Behaviour(forged=True, fail=1),
        "lost": Behaviour(silent=True, receipt_failures=1),
    }
    with telegraph(**behaviours) as (http, mailbox):
        busy = http.post("/", content=b"RING busy")
        assert (busy.status_code, busy.text) == (429, "TOO MANY REQUESTS")
        assert busy.headers["retry-after"] == "3"
        http.post("/", content=b"RING false")
        letters = [mailbox.take("/box") for _ in range(2)]
        passwords = [letter.headers["x-password"] for letter in letters]
        assert passwords == ["herring", "swordfish"]
        assert letters[0].body.endswith(b"completed")
        assert letters[1].body.endswith(b"failed")
        assert http.post("/", content=b"RING lost").status_code == 503
        assert http.post("/", content=b"RING lost").status_code == 200
        assert mailbox.is_empty("/box")


def test_sync_and_poll_are_spoken_too() -> None:
    """In sync mode the answer is the response; in poll mode it is there when asked for."""
    with telegraph() as (http, mailbox):
        answer = http.post("/?what=42", content=b"RING a", headers={"x-mode": "sync"})
        assert answer.text.endswith(" completed what=42")
        asked = http.post("/", content=b"RING b", headers={"x-mode": "poll"})
        assert " processing " in asked.text
        while http.post("/", content=b"HOW b").text != "completed":
            pass
        assert mailbox.is_empty("/box")


def test_what_it_answers_itself_is_remembered() -> None:
    """Tokens, and what it does not understand."""
    with telegraph() as (http, _):
        assert http.post("/anything/at/all", content=b"TOKEN").text == "SESAME"
        assert http.post("/", content=b"HELLO").status_code == 400
        kinds = [entry["kind"] for entry in http.get("/_events").json()]
        assert kinds == ["token", "unknown"]


@pytest.mark.parametrize("body", [b"HOW nobody", b"OVER nobody"])
def test_work_that_is_not_there_is_in_its_own_words(body: bytes) -> None:
    """404, as the speech says it; also when the work is of another operation."""
    with telegraph() as (http, _):
        assert http.post("/", content=body).text == "NO SUCH WORK"
        http.post("/", content=b"RING nobody")
        other = http.post("/", content=body, headers={"x-line": "other"})
        assert other.status_code == 404


def test_an_empty_answer_can_hang_too() -> None:
    """A body is promised, and does not come."""

    class Taciturn(Telegraph):
        def job_reply(self, job: Job) -> DialectReply:
            return DialectReply(201)

    provider = simulate(Taciturn(""), behaviour_for=lambda _: Behaviour(hung_receipts=1))
    brief = httpx.Timeout(PATIENCE, read=0.2)
    headers = {"x-mode": "sync"}
    with serve(provider) as url, httpx.Client(base_url=url, trust_env=False) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/", content=b"RING k", headers=headers, timeout=brief)
        again = http.post("/", content=b"RING k", headers=headers, timeout=PATIENCE)
        assert again.status_code == 201
