"""What the API answers by itself: credentials, roles, malformed requests, recorded calls."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ackbridge.api.problems import TYPE_PREFIX, TYPES
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallOutcome, CallRequest, Effect, OutcomeStatus, Timings
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.identity import Role
from ackbridge.ledger.ledger import Ledger
from tests.support.api import ServedApi

BODY = {"provider": "sandbox", "operation": "create_order", "payload": {"amount": 5}}


def problem_of(answer: httpx.Response) -> str:
    """The name of the problem type of an answer, which has the form of one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["status"] == answer.status_code
    name: str = body["type"].removeprefix(TYPE_PREFIX)
    assert name in {one.name for one in TYPES}
    return name


async def test_nothing_without_a_credential(api: ServedApi) -> None:
    """Neither without one nor with one that is not valid, whatever the request is."""
    for path, method in (("/calls/sandbox.create_order.1", "GET"), ("/calls", "POST")):
        answer = await api.request(method, path, None)
        assert (answer.status_code, problem_of(answer)) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        bad = {"Authorization": "Bearer abk_key-0_wrong"}
        assert (await api.request(method, path, None, headers=bad)).status_code == 401


@pytest.mark.parametrize(
    ("grant", "status"),
    [("read", 403), ("read:other", 403), ("start:sandbox", 503), ("start", 503), ("steer", 503)],
)
async def test_who_may_start_calls(api: ServedApi, grant: str, status: int) -> None:
    """A role for all providers, or for this one; the engine is asked only then."""
    answer = await api.request("POST", "/calls", grant, json=BODY, headers={"Idempotency-Key": "a"})
    assert answer.status_code == status
    assert problem_of(answer) == {403: "forbidden", 503: "unavailable"}[status]


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (json.dumps(BODY), {}, 422, "header.Idempotency-Key: Field required"),
        (json.dumps(BODY), {"Idempotency-Key": ""}, 422, "visible ASCII"),
        (json.dumps(BODY), {"Idempotency-Key": "ä".encode("latin-1")}, 422, "visible ASCII"),
        ("{", {"Idempotency-Key": "a"}, 400, "body: not JSON (line 1, column 2)"),
        ('{"payload": NaN}', {"Idempotency-Key": "a"}, 400, "not JSON in UTF-8"),
        ('{"payload": "\\ud800"}', {"Idempotency-Key": "a"}, 400, "surrogate"),
        ("[" * 5000 + "]" * 5000, {"Idempotency-Key": "a"}, 400, "nested too deeply"),
        ('{"provider": "secret-42!"}', {"Idempotency-Key": "a"}, 422, "body.provider"),
        (json.dumps({**BODY, "surplus": 1}), {"Idempotency-Key": "a"}, 422, "body.surplus"),
        ("x" * 1_400_000, {"Idempotency-Key": "a"}, 413, "1310720 bytes"),
    ],
)
async def test_malformed_requests(
    api: ServedApi, content: str, headers: dict[str, Any], status: int, detail: str
) -> None:
    """Refused by name, without the values."""
    headers = {"Content-Type": "application/json", **headers}
    answer = await api.request("POST", "/calls", Role.START, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    problem_of(answer)
    assert detail in answer.json()["detail"]
    assert "secret-42" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/calls/not-a-call-id", 404),
        ("GET", "/calls/a.b.%ff", 404),
        ("GET", "/calls/a.b%0a%0d", 404),
        ("GET", f"/calls/a.b.{'x' * 700}", 404),
        ("DELETE", "/calls/a.b.c", 405),
    ],
)
async def test_what_is_not_there(api: ServedApi, method: str, path: str, status: int) -> None:
    """Unknown paths and methods are problems, too."""
    answer = await api.request(method, path)
    assert answer.status_code == status
    problem_of(answer)


async def _end(ledger: Ledger, request: CallRequest) -> None:
    now = utc_now()
    await ledger.calls.claim(request, "run")
    outcome = CallOutcome(
        call_id=request.call_id,
        status=OutcomeStatus.FAILED,
        effect=Effect.NONE,
        response={"iban": "DE02", "left": 1},
        sensitive=("response.iban",),
        timings=Timings(started_at=now, ended_at=now),
    )
    await ledger.calls.record_stage(request.call_id, CallStage.FAILED, None, outcome)


async def test_a_call_that_has_ended_is_answered_from_the_ledger(
    api: ServedApi, ledger: Ledger
) -> None:
    """The same answer for the same key, also without an engine; a slash is part of the key."""
    request = CallRequest(**BODY, key='in/voice "1"')
    await _end(ledger, request)
    headers = {"Idempotency-Key": '"in/voice \\"1\\""', "Prefer": "respond-async, wait=5"}
    first = await api.request("POST", "/calls", Role.START, json=BODY, headers=headers)
    assert (first.status_code, first.json()["answer"]) == (200, "failed")
    assert first.headers["preference-applied"] == "wait=5"
    location = first.headers["location"]
    assert location == "/calls/sandbox.create_order.in%2Fvoice%20%221%22"

    again = await api.request("GET", location, Role.START)
    assert again.json() == first.json()
    unchanged = {"If-None-Match": again.headers["etag"]}
    seen = await api.request("GET", location, Role.START, headers=unchanged)
    assert (seen.status_code, seen.content) == (304, b"")

    other = {**BODY, "payload": {"amount": 6}}
    refused = await api.request("POST", "/calls", Role.START, json=other, headers=headers)
    assert (refused.status_code, problem_of(refused)) == (422, "key-reused")


async def test_sensitive_fields_are_for_callers(api: ServedApi, ledger: Ledger) -> None:
    """Who may only read gets the rest."""
    request = CallRequest(**BODY, key="sensitive")
    await _end(ledger, request)
    shown = {
        grant: (await api.request("GET", f"/calls/{request.call_id}", grant)).json()
        for grant in (Role.READ, Role.SETTLE, "start:sandbox")
    }
    responses = {grant: one["outcome"]["response"]["iban"] for grant, one in shown.items()}
    assert responses == {Role.READ: "***", Role.SETTLE: "***", "start:sandbox": "DE02"}
