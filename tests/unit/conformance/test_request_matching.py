"""The simulated provider knows from which part of a file a request comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.rendering import OutboundRequest, render_acknowledgement, render_request
from ackbridge.catalog.templates import BodyTemplate
from ackbridge.conformance.cases import Case, PayloadRequiredError, make_case, template_context
from ackbridge.conformance.request_matching import build_routes, matches_template
from ackbridge.sandbox.provider_dialect import IncomingRequest
from tests.support.catalog_files import CONTEXT, acme

CONFORMANCE = Path(__file__).parents[2] / "integration" / "conformance" / "files"


def incoming(outbound: OutboundRequest) -> IncomingRequest:
    """What the provider gets of what we send."""
    path, _, query = outbound.url.removeprefix("https://acme.example").partition("?")
    return IncomingRequest(outbound.method, path, query, outbound.headers, outbound.content or b"")


@pytest.mark.parametrize("encoding", ["json", "form"])
def test_requests_and_acknowledgements_at_one_address(tmp_path: Path, encoding: str) -> None:
    """What is fixed in their bodies tells them apart."""
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


def test_paths_with_values_are_known_as_they_are_sent(tmp_path: Path) -> None:
    """Quoted, behind the path of base_url, with fixed parameters."""
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
def test_what_agrees_with_a_template(shape: Any, value: Any, is_it: bool) -> None:
    """What is fixed is the same; what is filled in may be anything."""
    assert matches_template(BodyTemplate.parse(shape).content, value) is is_it


def case_of(file: str, operation: str) -> Case:
    """A case of one of the files for the kit's own tests."""
    return make_case(load_integration(CONFORMANCE / file, {}), operation)


def test_what_a_request_says_of_its_call() -> None:
    """A key in a header or a body, the call id alone, or nothing at all."""
    keyed, named, nameless = (
        case_of("reports.yaml", "create"),
        case_of("wrong.yaml", "order"),
        case_of("parcels.yaml", "book"),
    )
    assert (keyed.identifies_call, keyed.identifies_cycle) == (True, True)
    assert (named.identifies_call, named.identifies_cycle) == (True, False)
    assert (nameless.identifies_call, nameless.identifies_cycle) == (False, False)


def test_without_a_schema_the_templates_tell_what_is_read() -> None:
    """Every field of the payload that a request needs is a text."""
    case = case_of("reports.yaml", "rate")
    assert case.payloads[0] == {"currency": "made-up", "amount": "made-up"}
    assert template_context(case.request("k"))["payload"] == case.payloads[0]


def test_a_refusal_is_none_of_the_receipts() -> None:
    """A status that the file accepts is not used to refuse."""
    assert case_of("norddeich.yaml", "book").refusal == 422


def test_payloads_that_the_request_cannot_use_are_told(tmp_path: Path) -> None:
    """A schema that does not require what the path needs."""
    integration = acme(
        tmp_path,
        request={"path": "/orders/{payload.id}"},
        payload_schema={"type": "object", "additionalProperties": False},
    )
    with pytest.raises(PayloadRequiredError, match=r"payload\.id has no value"):
        make_case(integration, "order")
