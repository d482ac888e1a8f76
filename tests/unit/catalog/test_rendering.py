"""Rendering of requests: templates, URLs, headers, bodies."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.rendering import (
    MissingReferenceError,
    OutboundRequest,
    amount,
    render_acknowledgement,
    render_health,
    render_request,
    render_status,
)
from ackbridge.catalog.templates import Template
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError
from tests.support.catalog_files import CONTEXT, acme

KEY = "{call.idempotency_key}"


def request(folder: Path, context: dict[str, Any] | None = None, **parts: Any) -> OutboundRequest:
    """The rendered request of an operation with these parts."""
    integration = acme(folder, request={"path": "/orders", **parts})
    return render_request(integration, integration.operations["order"], context or CONTEXT)


def body(folder: Path, template: Any) -> Any:
    """The JSON that a body is rendered to."""
    return json.loads(request(folder, body=template).content or b"")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{payload.amount}", 5),
        ("{payload.gift}", True),
        ("{payload.tags}", ["a", "b"]),
        ("{payload.none}", None),
        ("{ payload.amount }", 5),
        ("n={payload.amount} g={payload.gift}", "n=5 g=true"),
        ("n={payload.none}", None),
        ("{{payload}}", "{payload}"),
        ("{{{payload.amount}}}", "{5}"),
        ("{ {a: payload.amount, b: {c: call.cycle}} }", {"a": 5, "b": {"c": 2}}),
        ("{payload.none || '}'}", "}"),
        ('{`{"a": 1}`.a}', 1),
        ("{'it\\'s }'}", "it's }"),
        ("{payload.tags[?@ == 'b'] | [0]}", "b"),
    ],
)
def test_templates(source: str, value: Any) -> None:
    """A single expression keeps its type, mixed texts are texts, and one null makes it null."""
    assert value == Template.parse(source).render(CONTEXT)


def test_mappings_leave_nulls_out_and_keep_types(tmp_path: Path) -> None:
    """Lists keep their length."""
    template = {
        "amount": "{payload.amount}",
        "gone": "{payload.none}",
        "literal": None,
        "deep": {"gone": "{payload.none}", "n": 1, "b": False},
        "list": ["{payload.none}", "x"],
    }
    expected = {"amount": 5, "deep": {"n": 1, "b": False}, "list": [None, "x"]}
    assert expected == body(tmp_path, template)


def test_a_text_is_one_expression_for_the_whole_body(tmp_path: Path) -> None:
    """JMESPath's own notation keeps nulls."""
    assert body(tmp_path, "{a: payload.amount, n: payload.none}") == {"a": 5, "n": None}
    assert CONTEXT["payload"] == body(tmp_path, "payload")


def test_no_body_is_no_content(tmp_path: Path) -> None:
    """Without a body, or with a null one, there is no content and no content type."""
    for outbound in (request(tmp_path), request(tmp_path, body="payload.none")):
        assert outbound.content is None
        assert outbound.headers == {"Idempotency-Key": "acme.order.k1:2"}


def test_nested_forms_use_brackets(tmp_path: Path) -> None:
    """a[b]=c, a[0]=b, booleans as true and false, nulls left out."""
    template = {
        "a": {"b": "{payload.name}"},
        "t": "{payload.tags}",
        "g": True,
        "n": "{payload.none}",
    }
    outbound = request(tmp_path, encoding="form", body=template)
    assert outbound.content == b"a%5Bb%5D=Zo%C3%AB+%26+co&t%5B0%5D=a&t%5B1%5D=b&g=true"
    assert outbound.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_urls_are_quoted(tmp_path: Path) -> None:
    """Path values are quoted whole, query values are encoded, lists repeat, nulls are left out."""
    outbound = request(
        tmp_path,
        path="/c/{payload.name}/{metadata.tenant}",
        query={"tag": "{payload.tags}", "n": "{payload.none}", "v": 2, "g": "{payload.gift}"},
    )
    expected = "https://acme.example/api/c/Zo%C3%AB%20%26%20co/t-1?tag=a&tag=b&v=2&g=true"
    assert expected == outbound.url


@pytest.mark.parametrize("value", [None, "", ".", "..", ["a"], {"a": 1}, "\ud800"])
def test_a_path_needs_a_scalar_value(tmp_path: Path, value: Any) -> None:
    """The error names path and expression, not the value."""
    context = {**CONTEXT, "payload": {"id": value}}
    with pytest.raises(InvalidInputError, match=r"^request\.path: /o/\{payload\.id\}: "):
        request(tmp_path, context, path="/o/{payload.id}")


def test_headers_are_printable_ascii(tmp_path: Path) -> None:
    """A null is left out, a line break is refused without repeating the value."""
    headers = {"X-A": "a {payload.amount}", "X-N": "{payload.none}", "X-1": 1}
    assert {"X-A": "a 5", "X-1": "1"}.items() <= request(tmp_path, headers=headers).headers.items()
    context = {**CONTEXT, "payload": {"v": "a\r\nX-Evil: 1"}}
    with pytest.raises(InvalidInputError, match=r"^request\.headers\.X-V: ") as caught:
        request(tmp_path, context, headers={"X-V": "{payload.v}"})
    assert "Evil" not in str(caught.value)


def test_a_content_type_in_headers_wins(tmp_path: Path) -> None:
    """In any case of letters."""
    outbound = request(tmp_path, body="payload", headers={"content-type": "application/x+json"})
    assert [
        value for name, value in outbound.headers.items() if name.lower() == "content-type"
    ] == ["application/x+json"]


def test_idempotency_keys_are_quoted(tmp_path: Path) -> None:
    """Characters that a header cannot have are quoted, `%` too, so that keys stay distinct."""
    keys = []
    for key in ("é", "%C3%A9", "a b\n"):
        call = {**CONTEXT["call"], "idempotency_key": key}
        keys.append(request(tmp_path, {**CONTEXT, "call": call}).headers["Idempotency-Key"])
    assert keys == ["%C3%A9", "%25C3%25A9", "a%20b%0A"]


def test_the_idempotency_header_is_configurable(tmp_path: Path) -> None:
    """It has any name, or is not sent."""
    assert request(tmp_path, idempotency_header="X-Token").headers == {"X-Token": "acme.order.k1:2"}
    assert request(tmp_path, idempotency_header=None, repeat="always").headers == {}


def test_the_idempotency_key_has_a_template_of_its_own(tmp_path: Path) -> None:
    """It is sent in the header that `idempotency` names; null sends none."""
    key = {"header": "X-Token", "key": "shop-{call.idempotency_key}", "retention": "24h"}
    assert request(tmp_path, idempotency=key).headers == {"X-Token": "shop-acme.order.k1:2"}
    assert request(tmp_path, idempotency={}).headers == {"Idempotency-Key": "acme.order.k1:2"}
    assert request(tmp_path, idempotency=None, repeat="always").headers == {}
    without_value = {"key": "{call.idempotency_key}{payload.none}"}
    with pytest.raises(InvalidInputError, match=r"^request\.idempotency\.key: .*has no value"):
        request(tmp_path, idempotency=without_value)


@pytest.mark.parametrize(
    ("request_parts", "carries_key", "is_repeatable"),
    [
        ({}, True, True),
        ({"repeat": "unless_reached"}, True, False),
        ({"method": "GET", "idempotency_header": None}, False, True),
        ({"idempotency_header": None, "repeat": "always"}, False, True),
        ({"idempotency_header": None, "repeat": "unless_reached"}, False, False),
        ({"idempotency": {"header": None}, "body": {"a": [{"k": KEY}]}}, True, True),
        ({"idempotency_header": None, "body": "{k: call.idempotency_key}"}, True, True),
        ({"idempotency_header": None, "query": {"k": KEY}}, True, True),
        ({"idempotency_header": None, "headers": {"X-K": f"k {KEY}"}}, True, True),
        ({"idempotency_header": None, "path": f"/orders/{KEY}"}, True, True),
    ],
)
def test_requests_with_a_key_are_repeatable(
    tmp_path: Path, request_parts: dict[str, Any], carries_key: bool, is_repeatable: bool
) -> None:
    """The key may be in a header or in any template; the file has the last say."""
    integration = acme(tmp_path, request={"path": "/orders", **request_parts})
    spec = integration.operations["order"].request
    assert (spec.carries_key, spec.is_repeatable) == (carries_key, is_repeatable)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001, "0.00001"),
        (1e16, "10000000000000000"),
        (-2.5e-7, "-0.00000025"),
        (5, "5"),
        (5.5, "5.5"),
    ],
)
def test_numbers_have_no_exponents(tmp_path: Path, value: float, text: str) -> None:
    """In URLs, headers, forms and JSON; texts in JSON stay as they are."""
    context = {**CONTEXT, "payload": {"v": value, "t": '\\" 1e-05'}}
    parts = {"query": {"q": "{payload.v}"}, "headers": {"X-V": "{payload.v}"}, "body": "payload"}
    outbound = request(tmp_path, context, **parts)
    assert outbound.url.endswith(f"?q={text}")
    assert outbound.headers["X-V"] == text
    assert (outbound.content or b"").decode() == f'{{"v": {text}, "t": "\\\\\\" 1e-05"}}'
    form = request(tmp_path, context, encoding="form", body={"v": "{payload.v}"})
    assert form.content == f"v={text}".encode()


def test_long_numbers_take_no_time(tmp_path: Path) -> None:
    """Numbers have up to 4,300 digits, and a payload many of them."""
    context = {**CONTEXT, "payload": {"v": [10**4299] * 110, "w": 1e-5}}
    started = time.process_time()
    content = request(tmp_path, context, body="payload").content or b""
    assert time.process_time() - started < 2
    assert content.endswith(b'000], "w": 0.00001}')


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("payload.v", "5"),
        ("payload.small", "0.00001"),
        ("payload.text", "12.50"),
        ("metadata.tenant", None),
        ("payload.flag", None),
        ("payload.long", None),
        ("payload.none", None),
        ("sum(payload.list)", "0.75"),
        ("abs(payload.text)", None),
    ],
)
def test_amounts_are_decimal_texts(tmp_path: Path, expression: str, value: str | None) -> None:
    """A number or a text that is one; anything else is no amount."""
    payload = {
        "v": 5,
        "small": 0.00001,
        "text": "12.50",
        "flag": True,
        "long": 1e300,
        "list": [0.5, 0.25],
    }
    operation = acme(tmp_path, sum=expression).operations["order"]
    assert amount(operation, {**CONTEXT, "payload": payload}) == value


def test_errors_name_the_template_and_hide_the_value(tmp_path: Path) -> None:
    """Texts with objects in them and functions on the wrong type are refused."""
    for template in ("x {payload.deep}", "{length(payload.n)}"):
        context = {**CONTEXT, "payload": {"deep": {"secret": "s3cret"}, "n": 41234}}
        with pytest.raises(InvalidInputError, match=r"^request\.body: a\.0: ") as caught:
            request(tmp_path, context, body={"a": [template]})
        assert "s3cret" not in str(caught.value)
        assert "41234" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "value"), [("json", float("nan")), ("json", "\ud800"), ("form", "\ud800")]
)
def test_values_that_cannot_be_encoded_are_refused(
    tmp_path: Path, encoding: str, value: Any
) -> None:
    """Surrogates cannot be encoded, and JSON has no NaN."""
    context = {**CONTEXT, "payload": {"v": value}}
    with pytest.raises(InvalidInputError, match=r"^request\.body: "):
        request(tmp_path, context, body="payload", encoding=encoding)


def test_a_form_must_be_a_mapping(tmp_path: Path) -> None:
    """A list has no field names."""
    with pytest.raises(InvalidInputError, match="a form must be a mapping"):
        request(tmp_path, body="payload.tags", encoding="form")


def test_acknowledgements_have_idempotency_keys_of_their_own(tmp_path: Path) -> None:
    """Success and failure are two requests; a kind without a body is not sent."""
    integration = acme(
        tmp_path,
        receipt={"reference": "id"},
        acknowledge={
            "path": "/orders/{reference}/ack",
            "success": {"ok": True, "total": "{response.total}"},
            "failed": {"why": "{reason}"},
        },
    )
    operation = integration.operations["order"]
    success = render_acknowledgement(integration, operation, AcknowledgementKind.SUCCESS, CONTEXT)
    failed = render_acknowledgement(integration, operation, "failed", CONTEXT)
    assert success is not None
    assert failed is not None
    assert success.url == "https://acme.example/api/orders/r%201%2F2/ack"
    assert (success.method, success.content) == ("POST", b'{"ok": true, "total": 9}')
    assert failed.content == b'{"why": "the provider stayed silent"}'
    assert success.headers["Idempotency-Key"] == "acme.order.k1:2:success"
    assert failed.headers["Idempotency-Key"] == "acme.order.k1:2:failed"


@pytest.mark.parametrize(
    ("acknowledge", "error"),
    [
        ({"path": "/orders/{reference}/ack", "failed": {}}, MissingReferenceError),
        ({"path": "/ack", "failed": "{r: join('-', [reference, 'x'])}"}, MissingReferenceError),
        ({"path": "/orders/{reference || call.key}/ack", "failed": {}}, None),
        ({"path": "/ack", "failed": {"r": "{reference}", "c": "{call.id}"}}, None),
        ({"path": "/{reference}/{payload.none}", "failed": {}}, InvalidInputError),
        ({"path": "/ack/{payload.none}", "failed": {}}, InvalidInputError),
    ],
)
def test_a_missing_reference_is_an_error_of_its_own(
    tmp_path: Path, acknowledge: dict[str, Any], error: type[InvalidInputError] | None
) -> None:
    """It is distinguished from mistakes in the file."""
    integration = acme(tmp_path, receipt={"reference": "id"}, acknowledge=acknowledge)
    operation = integration.operations["order"]
    context = {**CONTEXT, "reference": None}
    caught: InvalidInputError | None = None
    try:
        render_acknowledgement(integration, operation, "failed", context)
    except InvalidInputError as raised:
        caught = raised
    assert error is (None if caught is None else type(caught))
    if error is MissingReferenceError:
        assert "needs the provider's reference" in str(caught)


def test_every_request_has_its_own_timeout(tmp_path: Path) -> None:
    """The receipt's for requests and status requests, and the acknowledgement's own."""
    integration = acme(
        tmp_path,
        receipt={"timeout": "7s"},
        response={"mode": "sync", "status": {"path": "/s"}},
        acknowledge={"path": "/a", "timeout": "9s", "success": {}},
    )
    operation = integration.operations["order"]
    rendered = (
        render_request(integration, operation, CONTEXT),
        render_status(integration, operation, CONTEXT),
        render_acknowledgement(integration, operation, "success", CONTEXT),
    )
    assert [o.timeout.total_seconds() for o in rendered if o is not None] == [7, 7, 9]


def test_an_acknowledgement_needs_a_body_of_its_kind(tmp_path: Path) -> None:
    """None is no request, an empty mapping is one."""
    integration = acme(tmp_path, acknowledge={"path": "/ack", "success": {}})
    operation = integration.operations["order"]
    success = render_acknowledgement(integration, operation, "success", CONTEXT)
    assert success is not None
    assert success.content == b"{}"
    assert render_acknowledgement(integration, operation, "failed", CONTEXT) is None
    without = acme(tmp_path)
    operation = without.operations["order"]
    assert render_acknowledgement(without, operation, "success", CONTEXT) is None


def test_status_and_health_requests(tmp_path: Path) -> None:
    """They carry no idempotency key, and are None where the file has none."""
    status = {"path": "/orders/{reference}", "query": {"full": True}}
    integration = acme(
        tmp_path, receipt={"reference": "id"}, response={"mode": "sync", "status": status}
    )
    operation = integration.operations["order"]
    url = "https://acme.example/api/orders/r%201%2F2?full=true"
    expected = OutboundRequest("GET", url, timedelta(seconds=5))
    assert expected == render_status(integration, operation, CONTEXT)
    with pytest.raises(
        InvalidInputError, match=r"^response\.status\.path: .*reference has no value"
    ):
        render_status(integration, operation, {**CONTEXT, "reference": None})
    assert render_health(integration) is None
    assert render_status(integration, acme(tmp_path).operations["order"], CONTEXT) is None


def test_status_request_is_not_sent_without_its_reference(tmp_path: Path) -> None:
    """A query without it would ask about every work; one that does not need it is sent."""
    unknown = {**CONTEXT, "reference": None}
    for query, is_needed in (({"id": "{reference}"}, True), ({"id": "{call.id}"}, False)):
        integration = acme(
            tmp_path,
            receipt={"reference": "id"},
            response={"mode": "sync", "status": {"path": "/orders", "query": query}},
        )
        operation = integration.operations["order"]
        assert render_status(integration, operation, CONTEXT) is not None
        if is_needed:
            with pytest.raises(MissingReferenceError, match=r"^response\.status\.query\.id: "):
                render_status(integration, operation, unknown)
        else:
            assert render_status(integration, operation, unknown) is not None


def test_keys_are_as_long_as_the_provider_takes(tmp_path: Path) -> None:
    """Acknowledgements have keys of their own of the same length; longer ones are not sent."""
    key = {"max_length": 64, "key": "{sha256(call.idempotency_key)}"}
    acknowledge = {"path": "/ack", "success": {}}
    integration = acme(
        tmp_path, request={"path": "/x", "idempotency": key}, acknowledge=acknowledge
    )
    order = integration.operations["order"]
    sent = render_request(integration, order, CONTEXT)
    acknowledged = render_acknowledgement(integration, order, "success", CONTEXT)
    assert acknowledged is not None
    keys = [one.headers["Idempotency-Key"] for one in (sent, acknowledged)]
    assert [len(one) for one in keys] == [64, 64]
    assert len(set(keys)) == 2
    with pytest.raises(InvalidInputError, match="has 15 characters, and the provider takes 10"):
        request(tmp_path, idempotency={"max_length": 10})


def linked(folder: Path, url: str, hosts: dict[str, str]) -> OutboundRequest:
    """The status request, at a URL that the provider has sent."""
    response = {"mode": "poll", "status": {"url": "kept.poll", "success": "ok"}}
    integration = acme(folder, receipt={"keep": {"poll": "poll"}}, response=response)
    integration = integration.model_copy(update={"hosts": hosts})
    context = {**CONTEXT, "kept": {"poll": url}}
    rendered = render_status(integration, integration.operations["order"], context)
    assert rendered is not None
    return rendered


HOSTS = {"queue.acme.example": "auth", "*.files.example": "open", "alt.example:8443": "open"}


@pytest.mark.parametrize(
    ("url", "expected", "is_open"),
    [
        ("https://acme.example/jobs/1?a=b%20c#top", "https://acme.example/jobs/1?a=b%20c", False),
        ("/jobs/1", "https://acme.example/jobs/1", False),
        ("jobs/1", "https://acme.example/api/jobs/1", False),
        ("https://ACME.example:443/x", "https://ACME.example:443/x", False),
        ("https://queue.acme.example/x", "https://queue.acme.example/x", False),
        ("https://eu.files.example/x", "https://eu.files.example/x", True),
        ("https://alt.example:8443/x", "https://alt.example:8443/x", True),
    ],
)
def test_links_go_to_known_hosts(tmp_path: Path, url: str, expected: str, is_open: bool) -> None:
    """Relative links start at base_url; open hosts do not see our authentication."""
    rendered = linked(tmp_path, url, HOSTS)
    assert (rendered.url, rendered.is_open) == (expected, is_open)


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/x",
        "https://evil.example/x",
        "https://acme.example.evil.example/x",
        "https://acme.example@evil.example/x",
        "https://evil.example\\@acme.example/x",
        "https://acme.example:8443/x",
        "https://alt.example/x",
        "http://acme.example/x",
        "http://queue.acme.example/x",
        "//evil.example/x",
        "ftp://acme.example/x",
        "file:///etc/passwd",
        "https://acme.example/a b",
        "",
    ],
)
def test_links_elsewhere_are_refused(tmp_path: Path, url: str) -> None:
    """A provider, or whoever speaks for it, cannot direct requests and secrets to others."""
    with pytest.raises(InvalidInputError, match=r"response\.status\.url: "):
        linked(tmp_path, url, HOSTS)


def test_acknowledgements_can_be_whole_requests(tmp_path: Path) -> None:
    """Where success and failed differ in more than their bodies; each has a key of its own."""
    acknowledge = {
        "success": {"path": "/pay/{reference}/capture", "body": {"total": "{response.total}"}},
        "failed": {"method": "DELETE", "path": "/pay/{reference}", "query": {"why": "{reason}"}},
    }
    integration = acme(tmp_path, receipt={"reference": "id"}, acknowledge=acknowledge)
    order = integration.operations["order"]
    captured = render_acknowledgement(integration, order, "success", CONTEXT)
    cancelled = render_acknowledgement(integration, order, "failed", CONTEXT)
    assert captured is not None
    assert cancelled is not None
    assert (captured.method, captured.url) == (
        "POST",
        "https://acme.example/api/pay/r%201%2F2/capture",
    )
    assert captured.content == b'{"total": 9}'
    assert (cancelled.method, cancelled.content) == ("DELETE", None)
    assert cancelled.url.endswith("/pay/r%201%2F2?why=the+provider+stayed+silent")
    assert captured.headers["Idempotency-Key"] == "acme.order.k1:2:success"
    assert cancelled.headers["Idempotency-Key"] == "acme.order.k1:2:failed"


def test_reprs_hide_headers_and_content(tmp_path: Path) -> None:
    """Requests can be logged."""
    assert "Zo" not in repr(request(tmp_path, body="payload", headers={"X": "{metadata.tenant}"}))


@pytest.mark.parametrize("part", ["query", "body"])
def test_status_requests_without_a_reference_do_not_ask_about_everything(
    tmp_path: Path, part: str
) -> None:
    """What is left out of a query or a body would widen the question."""
    status = {"method": "POST", "path": "/jobs", part: {"id": "{reference}"}, "success": "done"}
    integration = acme(
        tmp_path, receipt={"reference": "id"}, response={"mode": "poll", "status": status}
    )
    operation = integration.operations["order"]
    assert render_status(integration, operation, CONTEXT) is not None
    with pytest.raises(MissingReferenceError, match=rf"response\.status\.{part}"):
        render_status(integration, operation, {**CONTEXT, "reference": None})
