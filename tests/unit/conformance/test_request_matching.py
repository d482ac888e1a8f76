"""The simulated provider matches requests to the parts of an integration file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.loading import load_examples, load_integration
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import OutboundRequest, render_acknowledgement, render_request
from ackbridge.catalog.templates import BodyTemplate
from ackbridge.conformance.cases import Case, PayloadRequiredError, make_case
from ackbridge.conformance.request_matching import (
    ExpectedCalls,
    build_routes,
    matches_template,
)
from ackbridge.conformance.template_context import template_context
from ackbridge.contracts.calls import CallRequest
from ackbridge.sandbox.provider_dialect import IncomingRequest
from tests.support.catalog_files import CONTEXT, acme

CONFORMANCE = Path(__file__).parents[2] / "integration" / "conformance" / "files"


def incoming(outbound: OutboundRequest) -> IncomingRequest:
    """A request of ours as the provider receives it."""
    path, _, query = outbound.url.removeprefix("https://acme.example").partition("?")
    return IncomingRequest(outbound.method, path, query, outbound.headers, outbound.content or b"")


@pytest.mark.parametrize("encoding", ["json", "form"])
def test_requests_and_acknowledgements_with_one_path(tmp_path: Path, encoding: str) -> None:
    """They are distinguished by the constant parts of their bodies."""
    integration = acme(
        tmp_path,
        request={
            "path": "/rpc",
            "encoding": encoding,
            "body": {"do": "order", "of": "{payload.tags}", "note": "{payload.none}"},
        },
        acknowledge={
            "path": "/rpc",
            "encoding": encoding,
            "success": {"do": "ack", "ok": True},
            "failed": {"do": "ack", "ok": False, "why": "{reason}"},
        },
    )
    operation = integration.operations["order"]
    sent = [render_request(integration, operation, CONTEXT)]
    for kind in ("success", "failed"):
        acknowledgement = render_acknowledgement(integration, operation, kind, CONTEXT)
        assert acknowledgement is not None
        sent.append(acknowledgement)
    known = [
        [route.part for route in build_routes(integration) if route.matches(incoming(one))]
        for one in sent
    ]
    assert known == [["request"], ["success"], ["failed"]]


def test_paths_with_values_are_matched(tmp_path: Path) -> None:
    """Quoted, behind the path of base_url, with constant parameters."""
    integration = acme(
        tmp_path, request={"path": "/orders/{payload.name}/items", "query": {"v": "2"}}
    )
    request = incoming(render_request(integration, integration.operations["order"], CONTEXT))
    (route,) = build_routes(integration)
    assert route.matches(request)
    assert not route.matches(IncomingRequest(request.method, request.path, "v=3"))
    assert not route.matches(IncomingRequest("PUT", request.path, request.query))


@pytest.mark.parametrize(
    ("shape", "value", "is_it"),
    [
        ({"a": "x", "b": "{payload}"}, {"a": "x", "b": {"any": 1}}, True),
        ({"a": "x", "b": "{payload}"}, {"a": "x"}, True),
        ({"a": "x", "b": "{payload}"}, {"b": 1}, False),
        ({"a": "x"}, {"a": "x", "more": 1}, False),
        ({"a": "order {payload.id}!"}, {"a": "order 7!"}, True),
        ({"a": "order {payload.id}!"}, {"a": "offer 7!"}, False),
        ([1, "{payload}"], [1, 2], True),
        ([1, "{payload}"], [2, 2], False),
        ("{a: payload}", {"whatever": 1}, True),
    ],
)
def test_values_that_match_a_template(shape: Any, value: Any, is_it: bool) -> None:
    """Constant parts are equal; variables match anything."""
    assert matches_template(BodyTemplate.parse(shape).content, value) is is_it


def case_of(file: str, operation: str) -> Case:
    """A case of one of the test files."""
    integration = load_integration(CONFORMANCE / file, {})
    examples = [one.example for one in load_examples(CONFORMANCE / file, integration)]
    return make_case(integration, operation, examples)


def test_requests_that_identify_their_call() -> None:
    """By a key in a header or a body, by the call id alone, or not at all."""
    keyed, named, nameless = (
        case_of("reports.yaml", "create"),
        case_of("wrong.yaml", "order"),
        case_of("parcels.yaml", "book"),
    )
    assert (keyed.identifies_call, keyed.identifies_cycle) == (True, True)
    assert (named.identifies_call, named.identifies_cycle) == (True, False)
    assert (nameless.identifies_call, nameless.identifies_cycle) == (False, False)


def test_payloads_without_a_schema() -> None:
    """The examples' ones; besides, every field of the payload that a template reads is a text."""
    case = case_of("reports.yaml", "rate")
    assert case.payloads[:2] == [
        {"currency": "EUR", "amount": 5},
        {"currency": "made-up", "amount": "made-up"},
    ]
    assert template_context(case.request("k"))["payload"] == case.payloads[0]


def test_refusal_is_not_a_receipt() -> None:
    """A status that the file accepts as a receipt is not used to refuse."""
    assert case_of("norddeich.yaml", "book").refusal == 422


def expected(integration: Integration, *keys: str, operation: str = "order") -> ExpectedCalls:
    """Calls that a provider can receive requests of."""
    calls = ExpectedCalls(integration, "http://us.example/callbacks/acme")
    for key in keys:
        calls.add(call(key, operation), identifies_call=True, identifies_cycle=True)
    return calls


def call(key: str, operation: str = "order") -> CallRequest:
    """A call of the provider."""
    return CallRequest(provider="acme", operation=operation, key=key, payload={"n": 5})


def test_keys_in_the_providers_form_are_recognised(tmp_path: Path) -> None:
    """By the whole request, or by what its header contains; acknowledgements too."""
    integration = acme(
        tmp_path,
        request={
            "path": "/orders",
            "idempotency": {"header": "X-Key", "key": "k{call.idempotency_key}"},
            "body": {"n": "{payload.n}"},
        },
        acknowledge={"path": "/done", "success": {}},
    )
    operation, calls = integration.operations["order"], expected(integration, "k-1", "k-2")
    context = template_context(call("k-2"), 2, "http://us.example/callbacks/acme")
    sent = incoming(render_request(integration, operation, context))
    origin = calls.identify(replace(sent, headers={n.lower(): v for n, v in sent.headers.items()}))
    assert (origin.call_id, origin.key) == ("acme.order.k-2", "acme.order.k-2:2")
    assert (origin.operation, origin.part) == ("order", "request")
    done = render_acknowledgement(integration, operation, "success", context)
    assert done is not None
    origin = calls.identify(incoming(done))
    assert origin.full_key == "acme.order.k-2:2:success"


def test_requests_with_a_reference_are_of_its_operation(tmp_path: Path) -> None:
    """Whatever other operations share the path."""
    calls = expected(acme(tmp_path))
    calls.add_reference("pi_410000001", "work_1", "order")
    origin = calls.identify(IncomingRequest("GET", "/orders/pi_410000001"))
    assert (origin.job_id, origin.operation, origin.call_id) == ("work_1", "order", None)


@pytest.mark.parametrize(
    ("path", "body", "tells"),
    [
        ("/orders/{reference}/ack", {}, True),
        ("/ack", {"ref": "{call.id}"}, True),
        ("/ack", {"order": "{payload.no}"}, True),
        ("/ack", {"state": "taken"}, False),
        ("/ack", {"state": "{reason}"}, False),
    ],
)
def test_acknowledgements_tell_their_call(
    tmp_path: Path, path: str, body: dict[str, str], tells: bool
) -> None:
    """By more than the key in their header, which the provider has not seen before."""
    integration = acme(
        tmp_path, receipt={"reference": "id"}, acknowledge={"path": path, "failed": body}
    )
    (route,) = [one for one in build_routes(integration) if one.part == "failed"]
    assert route.tells_call is tells


def test_requests_without_ids_are_of_the_one_call_that_makes_such(tmp_path: Path) -> None:
    """If its operation can have made them."""
    calls = expected(acme(tmp_path))
    calls.add(call("k"), identifies_call=False, identifies_cycle=False)
    assert not calls.identify(IncomingRequest("POST", "/orders")).is_known
    assert calls.exclusive({"order", "quote"}).call_id == "acme.order.k"
    assert not calls.exclusive({"quote"}).is_known


def test_payload_that_does_not_fit_the_request(tmp_path: Path) -> None:
    """A schema that does not require what the path needs."""
    integration = acme(
        tmp_path,
        request={"path": "/orders/{payload.id}"},
        payload_schema={"type": "object", "additionalProperties": False},
    )
    with pytest.raises(PayloadRequiredError, match=r"payload\.id has no value"):
        make_case(integration, "order")
