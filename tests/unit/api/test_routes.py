"""Every route: who may use it; lists and what operators do, which need no engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ackbridge.clock import utc_now
from ackbridge.contracts.audit import AuditOrigin
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.identity import Role
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.ledger.inbox import InboxEntry
from ackbridge.ledger.ledger import Ledger
from tests.support.api import ServedApi

from .test_requests import problem_of

OTHER = "read:other"
WHY = {"reason": "a drill"}
CALL = "/calls/sandbox.create_order.1"
PROVIDER = "/providers/sandbox"
BATCH = "/batches/batch.sandbox:one"

ROUTES: list[tuple[str, str, Any, Role]] = [
    ("POST", "/calls", {"provider": "sandbox", "operation": "create_order"}, Role.START),
    ("GET", "/calls?provider=sandbox", None, Role.READ),
    ("GET", CALL, None, Role.READ),
    ("POST", f"{CALL}/cancel", WHY, Role.STEER),
    ("POST", f"{CALL}/reprocess", None, Role.STEER),
    ("POST", f"{CALL}/force-ack", WHY, Role.SETTLE),
    ("POST", f"{CALL}/resolve", {"as": "done", **WHY}, Role.SETTLE),
    ("POST", f"{CALL}/write-off", {"cycle": 1, **WHY}, Role.SETTLE),
    ("GET", PROVIDER, None, Role.READ),
    ("GET", f"{PROVIDER}/flag", None, Role.READ),
    ("PUT", f"{PROVIDER}/flag", {"state": "off", **WHY}, Role.CONFIGURE),
    ("GET", f"{PROVIDER}/breaker", None, Role.READ),
    ("PUT", f"{PROVIDER}/breaker", {"state": "open", **WHY}, Role.CONFIGURE),
    ("GET", f"{PROVIDER}/limit", None, Role.READ),
    ("PUT", f"{PROVIDER}/limit", {"per_second": 1, **WHY}, Role.CONFIGURE),
    ("POST", "/batches", {"selection": {"provider": "sandbox"}}, Role.STEER),
    ("GET", "/batches", None, Role.READ),
    ("GET", BATCH, None, Role.READ),
    ("POST", f"{BATCH}/pause", WHY, Role.STEER),
    ("POST", f"{BATCH}/resume", WHY, Role.STEER),
    ("POST", f"{BATCH}/stop", WHY, Role.STEER),
    ("GET", "/held", None, Role.READ),
    ("GET", "/inbox", None, Role.READ),
    ("POST", "/inbox/replay", {"ids": [1], **WHY}, Role.STEER),
    ("GET", "/owed", None, Role.READ),
    ("GET", "/unknown", None, Role.READ),
]
"""Besides `GET /providers`, which everybody may ask, and applying and discarding, below."""

KEY = {"Idempotency-Key": "k"}


async def test_no_route_is_open(api: ServedApi, document: dict[str, Any]) -> None:
    """Each one of the document, also with a body that is not read before."""
    ids = {"call_id": "a.b.c", "batch_id": "batch.a:b", "provider": "a", "message_id": 1}
    for template, methods in document["paths"].items():
        path = template.format(**ids)
        for method in methods:
            answer = await api.request(method, path, None, content=b"{")
            assert (answer.status_code, problem_of(answer)) == (401, "unauthenticated"), path


@pytest.mark.parametrize(("method", "path", "body", "role"), ROUTES)
async def test_the_role_of_every_route(
    api: ServedApi, method: str, path: str, body: Any, role: Role
) -> None:
    """A role for another provider is none; the role of the route is all it takes."""
    options = {"headers": KEY, **({} if body is None else {"json": body})}
    refused = await api.request(method, path, OTHER, **options)
    assert (refused.status_code, problem_of(refused)) == (403, "forbidden"), refused.text
    assert str(role) in refused.json()["detail"]
    if role is not Role.READ:
        weaker = Role.READ if role is not Role.CONFIGURE else Role.SETTLE
        assert (await api.request(method, path, weaker, **options)).status_code == 403


async def test_providers_are_listed_with_their_schemas(api: ServedApi) -> None:
    """Those that the identity may see, also while no engine answers."""
    listed = (await api.request("GET", "/providers", Role.READ)).json()["providers"]
    (sandbox,) = listed
    assert (sandbox["name"], sandbox["breaker"]) == ("sandbox", None)
    schemas = {one["name"]: one["payload_schema"] for one in sandbox["operations"]}
    assert schemas["create_order"]["type"] == "object"
    assert (await api.request("GET", "/providers", OTHER)).json() == {"providers": []}
    missing = await api.request("GET", "/providers/sandbx", Role.READ)
    assert (missing.status_code, problem_of(missing)) == (404, "not-found")


async def test_calls_are_listed_page_by_page(api: ServedApi, ledger: Ledger) -> None:
    """With filters; an identity with roles for some providers sees those of its providers."""
    begun = utc_now()
    for number in range(5):
        for provider in ("listed", "other"):
            request = CallRequest(provider=provider, operation="order", key=f"{number}")
            await ledger.calls.claim(request, "run")

    async def pages(grant: str, **parameters: Any) -> list[str]:
        seen: list[str] = []
        query = {"limit": 2, "claimed_from": begun.isoformat(), **parameters}
        while True:
            page = (await api.request("GET", "/calls", grant, params=query)).json()
            seen += [one["call_id"] for one in page["calls"]]
            if page["next"] is None:
                return seen
            query["cursor"] = page["next"]

    everything = await pages(Role.READ)
    assert len(everything) == len(set(everything)) == 10
    assert await pages(OTHER) == [f"other.order.{number}" for number in (4, 3, 2, 1, 0)]
    assert len(await pages(Role.READ, provider="listed", stage=["parked", "preparing"])) == 5
    assert await pages(Role.READ, stage="parked") == []
    for cursor in ("x", "W10=", "Ww=="):
        refused = await api.request("GET", "/calls", Role.READ, params={"cursor": cursor})
        assert (refused.status_code, problem_of(refused)) == (422, "invalid-request")


def _entry(event_key: str, **changes: Any) -> InboxEntry:
    fields: dict[str, Any] = {
        "provider": "sandbox",
        "event_key": event_key,
        "operation": None,
        "call_id": None,
        "reference": None,
        "message": None,
        "document": {"body": {"id": event_key}},
        "received_at": utc_now() - timedelta(minutes=1),
    }
    return InboxEntry(**fields | changes)


async def test_messages_are_listed_discarded_and_replayed(api: ServedApi, ledger: Ledger) -> None:
    """Without sensitive fields; what is done is in the audit log, with who did it."""
    message = ProviderMessage(
        kind=MessageKind.RESPONSE, event_key="e-1", data={"iban": "DE02"}, sensitive=("r.iban",)
    )
    await ledger.inbox.store_unclassified(_entry("e-2"), "no rule")
    await ledger.inbox.store(_entry("e-1", message=message))
    await ledger.inbox.hold_event("sandbox", "e-1", "late")
    (held,) = (await api.request("GET", "/held?provider=sandbox", Role.READ)).json()["messages"]
    assert (held["state"], held["reason"], held["content"]["data"]) == (
        *("held", "late"),
        {"iban": "***"},
    )

    nobody = await api.request("POST", f"/held/{held['id']}/discard", OTHER, json=WHY)
    assert nobody.status_code == 403
    path = f"/held/{held['id']}/discard"
    assert (await api.request("POST", path, Role.SETTLE, json=WHY)).status_code == 204
    again = await api.request("POST", path, Role.SETTLE, json=WHY)
    assert (again.status_code, problem_of(again)) == (404, "not-found")

    params = {"state": "unclassified", "provider": "sandbox"}
    (entry,) = (await api.request("GET", "/inbox", Role.READ, params=params)).json()["messages"]
    body = {"provider": "sandbox", **WHY}
    replayed = await api.request("POST", "/inbox/replay", Role.STEER, json=body)
    assert replayed.json() == {"ids": [entry["id"]]}
    both = {"ids": [1], "provider": "sandbox", **WHY}
    refused = await api.request("POST", "/inbox/replay", Role.STEER, json=both)
    assert (refused.status_code, problem_of(refused)) == (422, "invalid-request")

    audited = [row.entry for row in await ledger.audit.newest(10)]
    assert [(one.action, one.subject, one.by, one.origin) for one in audited] == [
        ("discard_held", str(held["id"]), "who may settle (api_key)", AuditOrigin.HTTP),
        ("replay_inbox", str(entry["id"]), "who may steer (api_key)", AuditOrigin.HTTP),
    ]


async def test_owed_and_unknown(api: ServedApi, ledger: Ledger) -> None:
    """As the commands of the same names list them."""
    await ledger.calls.record_owed(
        "sandbox.create_order.owed", 1, AcknowledgementKind.FAILED, "503", refused=True
    )
    (owed,) = (await api.request("GET", "/owed", Role.READ)).json()["acknowledgements"]
    assert (owed["call_id"], owed["kind"], owed["refused"]) == (
        *("sandbox.create_order.owed", "failed"),
        True,
    )
    assert (await api.request("GET", "/unknown", Role.READ)).json() == {"totals": [], "calls": []}
