"""Loading: every problem at once, with its position and what would be right."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ackbridge.catalog.loading import integration_warnings, load_catalog, load_integration
from ackbridge.errors import IntegrationFileError, Problem, UnknownNameError
from tests.support.catalog_files import problems, write

MINIMAL = """\
provider: acme
base_url: https://acme.example
operations:
  order:
    request: {path: /orders}
    response: {mode: sync}
"""

MANY = """\
provider: Bad Name
base_url: ${NOWHERE}
auth: {type: bearer, tokn: "env:X", token: sk_live_123}
flag: {dev: sometimes}
callbacks:
  verify: {type: none}
  event_kee: id
operations:
  order:
    request: {method: FETCH, path: orders, body: {x: "{payload.", y: "{paylod.x}"}}
    payload_schema: {type: nope}
    response:
      mode: callback
      success: type == "done"
      deadline: {initial: 1h}
      status: {path: "/orders/{reference}"}
  other:
    request: {path: /x, headers: {Authorization: secret}}
    response: {mode: sync, failure: {when: code == 402, retriable: true}}
"""


def test_all_problems_are_reported_with_line_and_field(tmp_path: Path) -> None:
    """Syntax errors and conflicts between fields are reported together."""
    found = {(p.line, p.field): p.message for p in problems(tmp_path, MANY)}
    assert list(found) == [
        (1, "provider"),
        (2, "base_url"),
        (3, "auth.tokn"),
        (3, "auth.token"),
        (4, "flag.dev"),
        (5, "callbacks.event_key"),
        (6, "callbacks.verify"),
        (7, "callbacks.event_kee"),
        (10, "operations.order.request.method"),
        (10, "operations.order.request.path"),
        (10, "operations.order.request.body.x"),
        (10, "operations.order.request.body.y"),
        (11, "operations.order.payload_schema"),
        (12, "operations.order.response.match"),
        (14, "operations.order.response.success"),
        (15, "operations.order.response.deadline.initial"),
        (16, "operations.order.response.status.path"),
        (18, "operations.other.request.headers.Authorization"),
        (19, "operations.other.response.failure.when"),
        (19, "operations.other.response.failure.retriable"),
    ]
    assert "Did you mean 'token'?" in found[3, "auth.tokn"]
    assert "Did you mean 'event_key'?" in found[7, "callbacks.event_kee"]
    assert "Did you mean 'payload'?" in found[10, "operations.order.request.body.y"]
    assert "'done' in single quotes" in found[14, "operations.order.response.success"]
    assert "backticks: `402`" in found[19, "operations.other.response.failure.when"]
    assert "NOWHERE is not set" in found[2, "base_url"]


def test_a_pasted_secret_is_not_repeated(tmp_path: Path) -> None:
    """A value in place of a secret reference is refused without showing it."""
    assert "sk_live_123" not in "\n".join(map(str, problems(tmp_path, MANY)))


def test_the_position_is_that_of_the_field(tmp_path: Path) -> None:
    """File, line and column lead an editor to the field."""
    text = MINIMAL.replace("{path: /orders}", "{path: /orders, metod: PUT}")
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.column) == (5, 30)
    assert str(problem).startswith(f"{tmp_path / 'acme.yaml'}:5:30: operations.order.request.metod")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("provider: [", 1, "not YAML"),
        ("a: 1\nb: {", 2, "not YAML"),
        ("a: {b: contains(['x', 'y'], z)}", 1, "needs quotes"),
        ("a: &x {b: *x}", 1, "contains itself"),
        ("", 1, "is not a mapping"),
        ("- a", 1, "is not a mapping"),
        ("a: 1\n---\nb: 2", 2, "not YAML"),
        ("a: 1\nb: \x07", 2, "a control character"),
        ("[" * 2000, 1, "nested too deeply"),
        ("? [a]\n: 1", 1, "a key must be a text"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_problem(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    """A file that cannot be parsed at all is one problem with a line."""
    (problem,) = problems(tmp_path, text)
    assert line == problem.line
    assert message in problem.message


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    """YAML itself would silently take the last one."""
    (problem,) = problems(tmp_path, MINIMAL + "base_url: https://other.example\n")
    assert (problem.line, problem.field, problem.message) == (7, "base_url", "is defined twice")


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """on, NO and 007 are texts, in flags and in bodies."""
    text = MINIMAL.replace("/orders}", "/orders, body: {c: NO, n: 007, d: 2026-01-01, t: true}}")
    flags = "flag: {a: on, b: off, c: true, d: false, e: internal, f: 25, g: 12.5%}\n"
    integration = load_integration(write(tmp_path, text + flags), {})
    expected = {"a": "on", "b": "off", "c": "on", "d": "off", "e": "internal", "f": 25, "g": 12.5}
    assert expected == integration.flag
    body = integration.operations["order"].request.body
    assert body is not None
    assert body.render({}) == {"c": "NO", "n": "007", "d": "2026-01-01", "t": True}


def test_variables_are_expanded_with_defaults_and_escapes(tmp_path: Path) -> None:
    """`:-` applies to unset and empty variables, `$${` is literal."""
    text = MINIMAL.replace("https://acme.example", "${URL:-http://default.example}")
    text = text.replace("/orders}", "/orders, body: {a: '$${{X}}', b: '${N}'}}")
    given = load_integration(write(tmp_path, text), {"URL": "http://given.example/", "N": "n"})
    empty = load_integration(write(tmp_path, text), {"URL": "", "N": ""})
    assert given.base_url == "http://given.example"
    assert empty.base_url == "http://default.example"
    (problem,) = problems(tmp_path, text)
    assert problem.field == "operations.order.request.body.b"


def test_payload_schemas_are_not_expanded(tmp_path: Path) -> None:
    """A `${` in a JSON Schema is a pattern, not a variable."""
    schema = "    payload_schema: {type: string, pattern: '[${a}]'}\n"
    assert problems(tmp_path, MINIMAL + schema) == ()


def test_anchors_and_merges_are_supported(tmp_path: Path) -> None:
    """Operations can share parts; an operation's own fields win."""
    text = MINIMAL.replace("response:", "receipt: &r {timeout: 9s, attempts: 2}\n    response:") + (
        "  other:\n    request: {path: /o}\n    receipt: {<<: *r, attempts: 3}\n"
        "    response: {mode: sync}\n"
    )
    receipt = load_integration(write(tmp_path, text), {}).operations["other"].receipt
    assert (timedelta(seconds=9), 3) == (receipt.timeout, receipt.attempts)


CALLBACK = "response: {mode: callback, match: {call_id: c}, success: a}"
POLL = "mode: poll, status: {path: /x, success: done}"
CLOSED = "payload_schema: {additionalProperties: false, properties: {weight: {}}}"


def notice(text: str) -> str:
    """The notice of a failure."""
    return f"notices: {{failed: {{{text}}}}}"


@pytest.mark.parametrize(
    ("parts", "field", "message"),
    [
        (CALLBACK, "response.mode", "needs callbacks"),
        ("request: {method: GET, path: /x, body: payload}", "request.body", "GET"),
        ("request: {path: /x, body: '{payload}'}", "request.body", "write payload, not"),
        ("request: {path: '/x?a=b'}", "request.path", "use query"),
        ("request: {path: /x, body: {a: '{call.idd}'}}", "request.body.a", "mean 'id'?"),
        ("request: {path: '/{reference}'}", "request.path", "reference is not available"),
        ("request: {path: /x, body: {a: '}'}}", "request.body.a", "a literal one"),
        ("request: {path: /x, body: {a: '{}'}}", "request.body.a", "JMESPath"),
        ("request: {path: /x, body: foo(payload)}", "request.body", "unknown function foo"),
        ("request: {path: /x, body: 'length(payload, call)'}", "request.body", "takes 1"),
        ("request: {path: /x, body: 5}", "request.body", "must be a mapping"),
        ("request: {path: /x, query: {a: [1]}}", "request.query.a", "must be a text"),
        ("acknowledge: {path: /y}", "acknowledge", "needs success or failed"),
        ("acknowledge: {success: {ok: 1}}", "acknowledge.success", "needs acknowledge.path"),
        ("acknowledge: {failed: {path: y}}", "acknowledge.failed.path", "must start with /"),
        ("acknowledge: {failed: {path: /y, bdoy: 1}}", "acknowledge.failed.bdoy", "mean 'body'?"),
        (
            "acknowledge: {failed: {path: /y, method: GET, body: {}}}",
            "acknowledge.failed.body",
            "GET",
        ),
        ("acknowledge: {failed: {path: '/{kept.x}'}}", "acknowledge.failed.path", "receipt.keep.x"),
        (
            "acknowledge: {success: {path: '/{reason}'}}",
            "acknowledge.success.path",
            "not available",
        ),
        ("request: {body: payload}", "request.path", "is missing (or url)"),
        ("request: {path: /x, url: payload.link}", "request.url", "instead of path"),
        ("request: {url: kept.link}", "request.url", "kept is not available"),
        (
            f"response: {{{POLL.replace('path: /x', 'url: kept.poll')}}}",
            "response.status.url",
            "keep.poll",
        ),
        ("response: {mode: sync, status: {success: ok}}", "response.status.path", "is missing"),
        ("receipt: {keep: {Poll: x}}", "receipt.keep.Poll", "does not match"),
        ("receipt: {success: done}", "receipt.success", "mode sync"),
        ("acknowledge: {path: /y, method: GET, failed: {}}", "acknowledge.method", "no body"),
        ("response: {mode: pool}", "response.mode", "'sync', 'callback' or 'poll'"),
        ("response: {mode: poll}", "response.status", "how to ask"),
        ("response: {mode: poll, status: {path: /x}}", "response.status.success", "which answer"),
        (f"response: {{{POLL}, poll: {{every: 0s}}}}", "response.poll.every", "greater"),
        (f"response: {{{POLL}, match: {{}}}}", "response.match", "for callbacks"),
        (
            "response: {mode: sync, poll: {every: 1s}}",
            "response.poll",
            "modes poll and callback only",
        ),
        ("response: {mode: sync, late_window: 1h}", "response.late_window", "mode sync"),
        (
            f"on_failure: park, response: {{{POLL}, late_window: 1h}}",
            "response.late_window",
            "parked calls take late responses anyway",
        ),
        (notice("title: '{paylod.x}', message: m"), "notices.failed.title", "mean 'payload'?"),
        (
            notice("title: t, message: '{reason}'"),
            "notices.failed.message",
            "reason is not available here",
        ),
        (
            notice("title: t, message: '{call.cycle}'"),
            "notices.failed.message",
            "call.cycle is not available",
        ),
        (
            notice("title: t, message: m, alternative: '{callback_url}'"),
            "notices.failed.alternative",
            "callback_url is not available",
        ),
        (
            f"{CLOSED}, request: {{path: '/{{payload.wieght}}'}}",
            "request.path",
            "payload_schema has no wieght. Did you mean 'weight'?",
        ),
        (f"{CLOSED}, sum: payload.lines.cost", "sum", "payload_schema has no lines"),
        ("response: {mode: sync, failure: bad}", "response.failure", "mapping. Known fields: code"),
        (notice("title: t, message: '{x'"), "notices.failed.message", "not closed"),
        (notice("title: '', message: m"), "notices.failed.title", "at least 1"),
        ("response: {mode: sync, success: 'ok == true'}", "response.success", "`true`"),
        ("response: {mode: sync, success: '`ok`'}", "response.success", "single quotes"),
        ("response: {mode: sync, deadline: {floor: 1h}}", "response.deadline.floor", "ceiling"),
        ("parked_for: 0s", "parked_for", "greater"),
        ("reconcile: {every: 1h}", "reconcile", "needs response.status"),
        (f"response: {{{POLL}}}, reconcile: {{every: 4d}}", "reconcile.every", "longer than for"),
        (f"response: {{{POLL}}}, reconcile: {{within: 4d}}", "reconcile.within", "Known fields"),
        ("park: [no_response, unknwon]", "park.1", "Did you mean 'unknown'?"),
        ("park: [cancelled]", "park.0", "must be one of refused, no_receipt"),
        ("when_off: refuse, park: [breaker_open]", "park.0", "contradicts when_off"),
        ("sum: paylod.x", "sum", "mean 'payload'?"),
        ("sum: call.cycle", "sum", "call.cycle is not available"),
        ("request: {path: /x, repeat: sometimes}", "request.repeat", "'unless_reached'"),
        (
            "request: {path: /x, idempotency: {key: '{call.id}'}}",
            "request.idempotency.key",
            "must contain {call.idempotency_key}",
        ),
        (
            "request: {path: /x, idempotency: {}, idempotency_header: X}",
            "request.idempotency_header",
            "short form",
        ),
        (
            "request: {path: /x, method: GET, idempotency: {header: null, retention: 1d}}",
            "request.idempotency.retention",
            "needs a key",
        ),
        (
            "notices: {unknown: {title: t, message: m, alternative: a}}",
            "notices.unknown.alternative",
            "would do it twice",
        ),
        (
            "notices: {unknown: {de: {title: t, message: m, alternative: a}}}",
            "notices.unknown.de.alternative",
            "would do it twice",
        ),
        ("response: {mode: sync, success: '!a.b'}", "response.success", "write !(a.b)"),
        ("payload_schema: {$ref: 'http://x/y'}", "payload_schema", "within"),
        ("payload_schema: {$ref: '#/$defs/a'}", "payload_schema", "no such part"),
    ],
)
def test_invalid_parts_are_refused(tmp_path: Path, parts: str, field: str, message: str) -> None:
    """Mistakes that would only show at the first call are reported at load."""
    request = "" if "request:" in parts else "request: {path: /x}, "
    response = "" if "response:" in parts else ", response: {mode: sync}"
    operation = f"operations:\n  order: {{{request}{parts}{response}}}\n"
    (problem,) = problems(tmp_path, f"provider: acme\nbase_url: https://a.example\n{operation}")
    assert problem.field == f"operations.order.{field}"
    assert message in problem.message


@pytest.mark.parametrize(
    ("request_part", "field"),
    [
        ("{path: /x, idempotency_header: null}", ".idempotency_header"),
        ("{method: put, path: /x, idempotency: null}", ".idempotency"),
        ("{path: /x, idempotency: {header: null}}", ".idempotency"),
        ("{path: /x, idempotency_header: null, body: {a: '{call.id}'}}", ".idempotency_header"),
    ],
)
def test_requests_without_a_key_say_whether_they_may_be_repeated(
    tmp_path: Path, request_part: str, field: str
) -> None:
    """The error is at the field that takes the key away, and names both ways out."""
    text = MINIMAL.replace("{path: /orders}", request_part)
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.field) == (5, f"operations.order.request{field}")
    assert problem.column > 1
    assert "`repeat: unless_reached`" in problem.message
    assert "`idempotency: {header: Idempotency-Key}`" in problem.message
    assert problems(tmp_path, text.replace("path: /x", "path: /x, repeat: unless_reached")) == ()
    assert problems(tmp_path, text.replace("path: /x", "path: '/{call.idempotency_key}'")) == ()
    got = "{method: GET, path: /x, idempotency: null}"
    assert problems(tmp_path, MINIMAL.replace("{path: /orders}", got)) == ()


UNKEYED = MINIMAL.replace("/orders}", "/orders, idempotency_header: null, repeat: REPEAT}")


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (UNKEYED.replace("REPEAT", "always"), "request.repeat", "several times"),
        (
            UNKEYED.replace("REPEAT", "unless_reached") + "    on_failure: fail\n",
            "on_failure",
            "Add response.status",
        ),
        (
            UNKEYED.replace("REPEAT", "unless_reached") + "    park: [no_receipt]\n",
            "park",
            "Add response.status",
        ),
    ],
)
def test_warnings_say_what_may_go_wrong(
    tmp_path: Path, text: str, field: str, message: str
) -> None:
    """The file is valid; the warning has a position."""
    (warning,) = other_warnings(write(tmp_path, text))
    assert warning.field == f"operations.order.{field}"
    assert (warning.line, warning.column) > (4, 1)
    assert message in warning.message


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL.replace("{path: /orders}", "{path: /orders, repeat: always}"),
        UNKEYED.replace("REPEAT", "unless_reached"),
        UNKEYED.replace("REPEAT", "unless_reached") + "    on_failure: park\n",
        UNKEYED.replace("REPEAT", "unless_reached") + "    park: [unknown]\n",
        UNKEYED.replace("REPEAT", "unless_reached").replace("sync", "sync, status: {path: /x}")
        + "    on_failure: fail\n",
    ],
)
def test_files_without_warnings(tmp_path: Path, text: str) -> None:
    """A key, a status request or parking is enough."""
    assert other_warnings(write(tmp_path, text)) == []


def test_unknown_ends_of_unrepeatable_requests_are_parked(tmp_path: Path) -> None:
    """Unless the file says otherwise."""

    def parked(text: str) -> tuple[str, ...] | None:
        return load_integration(write(tmp_path, text), {}).operations["order"].parked_codes

    once = UNKEYED.replace("REPEAT", "unless_reached")
    assert parked(once) == ("unknown",)
    assert parked(once + "    on_failure: fail\n") is None
    assert parked(once + "    on_failure: fail\n    park: [unreadable]\n") == ("unreadable",)
    assert parked(MINIMAL) is None
    assert parked(MINIMAL + "    park: []\n") == ()


CYCLED = """
provider: acme
base_url: https://a.example
callbacks: {verify: {type: header, name: X-Key, secrets: ["env:A"]}, event_key: id}
operations:
  order:
    request: {path: /x}
    receipt: {reference: id}
    response: {mode: callback, match: {call_id: c}, success: ok, cycles: 2}
    acknowledge: {path: "/{reference}/ack", failed: {}}
"""


def test_several_cycles_need_a_reference_in_callbacks(tmp_path: Path) -> None:
    """If acknowledgements use it, callbacks contain it, or the file says that they do not."""
    (problem,) = problems(tmp_path, CYCLED)
    assert problem.field == "operations.order.response.match"
    assert "needs reference beside call_id" in problem.message
    for match in ("call_id: c, reference: d", "call_id: c, reference: null"):
        load_integration(write(tmp_path, CYCLED.replace("call_id: c", match)), {})
    load_integration(write(tmp_path, CYCLED.replace("cycles: 2", "cycles: 1")), {})


def test_poll_defaults(tmp_path: Path) -> None:
    """The interval is five seconds, and `success` may be that of the response."""
    text = MINIMAL.replace("mode: sync", "mode: poll, success: done, status: {path: /x}")
    assert load_integration(write(tmp_path, text), {}).operations["order"].response.poll is None
    text = text.replace("mode: poll", "mode: poll, poll: {}, late_window: 1h")
    response = load_integration(write(tmp_path, text), {}).operations["order"].response
    assert response.poll is not None
    assert response.poll.every == timedelta(seconds=5)
    assert response.late_window == timedelta(hours=1)


@pytest.mark.parametrize(
    "url", ["acme.example", "ftp://a.example", "http://u:p@a.example", "http://a.example?x=1", "http://[a"]
)  # fmt: skip
def test_base_url_is_an_absolute_url(tmp_path: Path, url: str) -> None:
    """Anything but an absolute URL without credentials and query is refused."""
    (problem,) = problems(tmp_path, MINIMAL.replace("https://acme.example", f"'{url}'"))
    assert problem.field == "base_url"
    assert url not in problem.message


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (
            "auth: [{type: bearer, token: 'env:A'}, {type: basic, username: u, password: 'env:B'}]",
            "auth.1",
            "sets the header authorization",
        ),
        (
            "auth: [&a {type: header, name: X-A, value: 'env:A'}, {<<: *a, name: x-a}]",
            "auth.1",
            "sets the header x-a",
        ),
        ("auth: [{type: bearer, tokn: 'env:A'}]", "auth.0.tokn", "mean 'token'?"),
        ("auth: {type: beerer}", "auth", "type must be one of"),
        ("hosts: {'*': open}", "hosts.*", "does not match"),
        ("hosts: {a.example: closed}", "hosts.a.example", "'auth' or 'open'"),
    ],
)
def test_invalid_authentications_and_hosts(
    tmp_path: Path, text: str, field: str, message: str
) -> None:
    """Mistakes outside of operations."""
    found = {p.field: p.message for p in problems(tmp_path, f"{text}\n{MINIMAL}")}
    assert message in found[field]


def test_several_authentications(tmp_path: Path) -> None:
    """One is a list of one."""
    one = "auth: {type: bearer, token: 'env:A'}\n"
    two = "auth: [{type: bearer, token: 'env:A'}, {type: header, name: X-V, value: 'env:B'}]\n"
    loaded = [load_integration(write(tmp_path, text + MINIMAL), {}).auth for text in (one, two)]
    assert [[spec.type for spec in auth] for auth in loaded] == [["bearer"], ["bearer", "header"]]


@pytest.mark.parametrize(
    ("parts", "field", "message"),
    [
        (
            "request: {path: /x, headers: {X-Key: 'env:KEY'}}",
            "request.headers.X-Key",
            "write {secret('env:KEY')}, or use auth",
        ),
        (
            "request: {path: /x, headers: {X-Key: 'Bearer env:KEY'}}",
            "request.headers.X-Key",
            "is sent as it is",
        ),
        (
            "request: {path: /x, query: {key: sk_live_1234567890}}",
            "request.query.key",
            "a secret written as a literal",
        ),
        (
            "request: {path: /x, body: {a: [{key: ghp_1234567890}]}}",
            "request.body.a.0.key",
            "a secret written as a literal",
        ),
        (
            "response: {mode: sync, failure: {when: split(a, b), reason: c}}",
            "response.failure.b)",
            "needs quotes",
        ),
        ("response: {mode: sync, success: 'contains(a'}", "response.success", "needs quotes"),
        (
            "response: {mode: sync, success: \"contains(['a'], !b.c)\"}",
            "response.success",
            "!(a.b)",
        ),
        (
            "response: {mode: sync, success: \"secret('env:KEY')\"}",
            "response.success",
            "within hmac and sha256",
        ),
        (
            "notices: {failed: {title: \"{secret('env:KEY')}\", message: m}}",
            "notices.failed.title",
            "within hmac and sha256",
        ),
    ],
)
def test_hints_for_common_mistakes(tmp_path: Path, parts: str, field: str, message: str) -> None:
    """With line, column and field, and without the secret."""
    request = "" if "request:" in parts else "request: {path: /x}, "
    response = "" if "response:" in parts else ", response: {mode: sync}"
    operation = f"operations:\n  order: {{{request}{parts}{response}}}\n"
    found = problems(tmp_path, f"provider: acme\nbase_url: https://a.example\n{operation}")
    messages = {problem.field: problem.message for problem in found}
    assert message in messages[f"operations.order.{field}"]
    assert all(problem.line == 4 and problem.column > 1 for problem in found)
    assert not any("1234567890" in problem.message for problem in found)


def test_two_authentications_in_one(tmp_path: Path) -> None:
    """The hint says how several are written, for two keys and for two in one mapping."""
    mixed = "auth: {type: bearer, token: 'env:A', username: u, password: 'env:B'}\n"
    twice = "auth: {type: bearer, token: 'env:A'}\nauth: {type: basic}\n"
    for text, field in ((mixed, "auth.username"), (twice, "auth")):
        found = {p.field: p.message for p in problems(tmp_path, text + MINIMAL)}
        assert "Several authentications at once are a list" in found[field]


KEYED = "request: {{path: /x, idempotency: {{max_length: {length}, key: '{key}'}}}}"
NOTICES = "notices: {unknown: {title: We do not know yet, message: TEXT}}"
ACKNOWLEDGED = "acknowledge: {path: /a, success: {ok: 1}, failed: {ok: 0}, undoes: false"


@pytest.mark.parametrize(
    ("parts", "field", "message"),
    [
        (
            "request: {path: /x, idempotency: {max_length: 64}}",
            "request.idempotency.max_length",
            "the provider takes 64",
        ),
        (
            KEYED.format(length=64, key="a-{sha256(call.idempotency_key)}"),
            "request.idempotency.max_length",
            "keys can have 66 characters",
        ),
        (
            KEYED.format(length=36, key="{uuid5(call.idempotency_key)}"),
            None,
            "",
        ),
        (f"{ACKNOWLEDGED}}}", "acknowledge.undoes", "acknowledged as a success after"),
        (f"{ACKNOWLEDGED}}}, response: {{mode: sync, late: hold}}", None, ""),
        (
            "request: {path: /x, headers: {X-Api-Key: abc}}",
            "request.headers.X-Api-Key",
            "in the file",
        ),
        ("request: {path: /x, headers: {X-Api-Key: \"{secret('env:A')}\"}}", None, ""),
        ("request: {path: /x, body: {kind: key_performance_indicator}}", None, ""),
        (
            "acknowledge: {path: /a, success: {}, failed: {}}",
            "acknowledge.failed",
            "same as success",
        ),
        (
            NOTICES.replace("TEXT", "Your card was not charged."),
            "notices.unknown.message",
            "was not charged",
        ),
        (NOTICES.replace("TEXT", "Please try again."), "notices.unknown.message", "try again"),
        (
            NOTICES.replace("TEXT", "'{payload.name}: nicht gebucht'"),
            "notices.unknown.message",
            "nicht gebucht",
        ),
        (NOTICES.replace("TEXT", "We do not know whether you were charged."), None, ""),
        (
            NOTICES.replace("TEXT", "'The shop did not confirm it, and it may still come.'"),
            None,
            "",
        ),
        (
            "notices: {delayed: {title: t, message: m, alternative: Pay with another card}}",
            "notices.delayed.alternative",
            "Pay with another",
        ),
    ],
)
def test_warnings_of_what_cannot_work(
    tmp_path: Path, parts: str, field: str | None, message: str
) -> None:
    """The file is valid all the same."""
    request = "" if "request:" in parts else "request: {path: /x}, "
    response = "" if "response:" in parts else ", response: {mode: sync}"
    operation = f"operations:\n  order: {{{request}{parts}{response}}}\n"
    text = f"provider: acme\nbase_url: https://a.example\n{operation}"
    found = other_warnings(write(tmp_path, text))
    expected = [] if field is None else [f"operations.order.{field}"]
    assert [problem.field for problem in found] == expected
    assert all(message in problem.message and problem.line == 4 for problem in found)


def other_warnings(path: Path) -> list[Problem]:
    """All but that about the idempotency key, which few of the files here state."""
    return [w for w in integration_warnings(path, {}) if not w.field.endswith(".idempotency")]


@pytest.mark.parametrize(
    ("stated", "is_warned"),
    [
        ("", True),
        (", idempotency: {header: Idempotency-Key}", False),
        (", idempotency_header: X-Key", False),
        (", query: {key: '{call.idempotency_key}'}", False),
        (", repeat: always", False),
        (", method: GET", False),
    ],
)
def test_warning_of_a_key_that_is_assumed(tmp_path: Path, stated: str, is_warned: bool) -> None:
    """A provider that ignores the default header would do the work twice."""
    text = MINIMAL.replace("/orders", f"/orders{stated}")
    found = integration_warnings(write(tmp_path, text), {})
    assert [(one.field, one.line) for one in found] == [
        ("operations.order.request.idempotency", 5)
    ] * is_warned


def test_warning_of_callbacks_without_a_signature(tmp_path: Path) -> None:
    """Whoever knows the token can say anything; asking the provider itself is safe."""
    text = MINIMAL.replace("operations:", TOKEN_CALLBACKS).replace("mode: sync", WAITING)
    (found,) = other_warnings(write(tmp_path, text))
    assert (found.field, "no signature covers the body" in found.message) == (
        "callbacks.verify",
        True,
    )
    fetched = text.replace("success: done", "fetch: true, status: {path: /x, success: done}")
    assert other_warnings(write(tmp_path, fetched)) == []


TOKEN_CALLBACKS = """callbacks: {verify: {type: header, name: X, secrets: ["env:A"]}, event_key: id}
operations:"""
WAITING = "mode: callback, match: {call_id: id}, success: done"


def test_a_catalog_is_loaded_from_a_folder(tmp_path: Path) -> None:
    """Every YAML file of a folder is loaded; errors for unknown names list the known ones."""
    write(tmp_path, MINIMAL)
    write(tmp_path, MINIMAL.replace("acme", "beta"), "beta.yml")
    write(tmp_path, "not yaml: [", "notes.txt")
    catalog = load_catalog(tmp_path, {})
    assert {"acme", "beta"} == set(catalog.integrations)
    path = catalog.operation("beta", "order").request.path
    assert path is not None
    assert path.source == "/orders"
    with pytest.raises(UnknownNameError, match="known providers: acme, beta"):
        catalog.integration("gamma")
    with pytest.raises(UnknownNameError, match="known operations: order"):
        catalog.operation("acme", "refund")


def test_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    """Two files for one provider are a problem too."""
    write(tmp_path, MINIMAL)
    write(tmp_path, MINIMAL, "copy.yaml")
    write(tmp_path, MINIMAL.replace("sync", "sink"), "bad.yaml")
    with pytest.raises(IntegrationFileError) as caught:
        load_catalog(tmp_path, {})
    assert [Path(p.file).name for p in caught.value.problems] == ["bad.yaml", "copy.yaml"]


def test_a_missing_folder_or_file_is_a_problem(tmp_path: Path) -> None:
    """It is reported without a line."""
    with pytest.raises(IntegrationFileError, match="is not a folder"):
        load_catalog(tmp_path / "nowhere", {})
    with pytest.raises(IntegrationFileError, match="contains no integration file"):
        load_catalog(tmp_path, {})
    with pytest.raises(IntegrationFileError, match="cannot be read"):
        load_integration(tmp_path / "nothing.yaml", {})


@pytest.mark.parametrize("limit", ["per_tenant: 5", "concurrent_per_tenant: 2", "quota_of: tenant"])
def test_limits_of_tenants_need_to_know_the_tenant(tmp_path: Path, limit: str) -> None:
    """Without `fairness` every request would be of the same tenant."""
    text = MINIMAL + f"limits: {{{limit}}}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.field == f"limits.{limit.partition(':')[0]}"
    assert "fairness" in problem.message
    write(tmp_path, text.replace("    request:", "    fairness: metadata.tenant\n    request:"))
    load_integration(tmp_path / "acme.yaml", {})
