"""The examples beside `integrations/sandbox.yaml` are what the sandbox really says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ackbridge.catalog.loading import load_examples, load_integration
from ackbridge.sandbox.behaviour import Behaviour
from ackbridge.sandbox.provider_dialect import Job, JobAcknowledgement, Mode
from ackbridge.sandbox.sandbox_api import SandboxApi
from tests.support.catalog_files import ROOT

FILE = ROOT / "integrations" / "sandbox.yaml"
AT = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
SOURCE = "ackbridge.sandbox: the simulated provider itself"
API = SandboxApi("api-key", "webhook-secret")

ORDER = {"amount": 5, "currency": "EUR"}
BOOKING = {"room": "sea view", "nights": 2}
JOBS: dict[str, tuple[Mode, str, dict[str, Any], bool]] = {
    # operation: mode, id, content, whether it has the call id
    "create_order": ("callback", "order_7c1f-1", ORDER, True),
    "create_booking": ("callback", "booking_7c1f-2", BOOKING, True),
    "create_shipment": ("callback", "shipment_7c1f-3", {"destination": "Kiel"}, False),
    "create_report": ("poll", "report_7c1f-4", {"subject": "sales"}, True),
    "quote": ("sync", "quote_7c1f-5", ORDER, False),
}


def job(operation: str, status: str, *, retryable: bool = False) -> Job:
    """A job of an operation; `extended` is one that needs more time."""
    mode, job_id, content, knows_call = JOBS[operation]
    one = Job(
        number=1,
        id=job_id,
        operation=operation,
        mode=mode,
        key=f"sandbox.{operation}.order-1:1",
        call_id=f"sandbox.{operation}.order-1" if knows_call else None,
        callback_url="https://ackbridge.example/callbacks/sandbox",
        content=content,
        behaviour=Behaviour(retryable=retryable),
    )
    if status == "extended":
        one.extended_until = AT
    elif status == "voided":
        one.acknowledgements.append(JobAcknowledgement(AT, "failed", None))
    elif status in ("completed", "failed"):
        one.status = "completed" if status == "completed" else "failed"
    return one


def answer(operation: str, to: str, status: str = "processing", **more: Any) -> dict[str, Any]:
    """An answer of the sandbox, without what it means."""
    one = job(operation, status, **more)
    if to == "request":
        reply = API.job_reply(one)
    elif to == "status":
        reply = API.status_reply(one)
    else:
        reply = API.acknowledgement_reply(one, "success" if to == "success" else "failed")
    return {"answer": _answer(to, reply.status, reply.body)}


def error(status: int, reason: str) -> dict[str, Any]:
    """An error of the sandbox."""
    reply = API.error_reply(status, reason)
    return {"answer": _answer("request", reply.status, reply.body)}


def callback(operation: str, kind: Any, **more: Any) -> dict[str, Any]:
    """A callback of the sandbox, with a genuine signature."""
    one = job(operation, kind, **more)
    event_id = f"evt_{one.id}_{kind}"
    body = API.callback_body(one, kind, event_id)
    return {
        "delivery": {
            "headers": API.sign(body, event_id, AT),
            "text": body.decode(),
            "verify": {
                "secrets": {"env:SANDBOX_WEBHOOK_SECRET": "webhook-secret"},
                "at": "2026-03-02T10:00:00Z",
            },
        }
    }


def _answer(to: str, status: int, body: bytes) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    return {"to": to, "status": status, "headers": headers, "body": json.loads(body)}


def _messages() -> dict[str, tuple[str, dict[str, Any]]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for operation, (mode, *_) in JOBS.items():
        name = operation.removeprefix("create_")
        made: dict[str, dict[str, Any]] = {}
        if mode == "sync":
            made["success"] = answer(operation, "request", "completed")
            made["failure"] = answer(operation, "request", "failed")
            made["failure-retryable"] = answer(operation, "request", "failed", retryable=True)
        else:
            made["receipt"] = answer(operation, "request")
        if mode == "callback":
            made["success"] = callback(operation, "completed")
            made["failure"] = callback(operation, "failed")
        if operation in ("create_order", "create_booking"):
            made["failure-retryable"] = callback(operation, "failed", retryable=True)
            made["extension"] = callback(operation, "extended")
        if operation in ("create_order", "create_booking", "create_report"):
            for status in ("processing", "completed", "failed", "voided"):
                made[f"status-{status}"] = answer(operation, "status", status)
            failed = answer(operation, "status", "failed", retryable=True)
            made["status-failed-retryable"] = failed
            for verdict in ("success", "failed"):
                made[f"acknowledged-{verdict}"] = answer(operation, verdict)
        found |= {f"{name}-{kind}": (operation, message) for kind, message in made.items()}
    found["order-refused"] = ("create_order", error(422, "amount: not enough"))
    found["order-throttled"] = ("create_order", error(429, "too many requests"))
    return found


MESSAGES = _messages()


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_are_what_the_sandbox_says(name: str) -> None:
    """To the byte, signatures included."""
    operation, message = MESSAGES[name]
    written = json.loads((FILE.parent / "examples" / "sandbox" / f"{name}.json").read_text())
    assert written["source"] == SOURCE
    assert written["operation"] == operation
    assert {field: written[field] for field in message} == message


def test_every_example_is_compared() -> None:
    """None is written by hand."""
    files = load_examples(FILE, load_integration(FILE, {}))
    assert {one.name for one in files} == MESSAGES.keys()
