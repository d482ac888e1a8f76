"""Conflicts between fields of an integration file.

The rules read the plain document and not the models, so that they are reported together with all
other problems and not only once those are fixed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, TypeAlias, TypeGuard
from urllib.parse import urlsplit

from ackbridge.contracts.calls import OutcomeCode
from ackbridge.contracts.notices import NOTICE_KINDS
from ackbridge.contracts.wire import duration_text, parse_duration
from ackbridge.errors import did_you_mean, unknown_name
from ackbridge.http.egress import is_loopback_host, why_refused
from ackbridge.security.redaction import looks_like_secret

from .expressions import Expression, RequestExpression
from .model import (
    IDEMPOTENCY_HEADER,
    DeadlineSpec,
    Integration,
    ReconcileSpec,
)
from .templates import Template, reads_idempotency_key
from .yaml_document import FieldPath, FieldProblem, walk_texts

_CALLER = ("payload", "metadata", "call")
_SENT = (*_CALLER, "callback_url")
_LISTED = ("since", "until", "page")
_KNOWN = (*_SENT, "reference", "kept")
_REQUEST = ("path", "url", "query", "headers", "body")
_CALL = ("id", "short", "provider", "operation", "key")
_CYCLE = ("cycle", "idempotency_key")

# Where templates are (a part and its fields), and which names they can read there.
_TEMPLATES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ("sum",), _CALLER),
    (("request",), _REQUEST, _SENT),
    (("request", "idempotency"), ("key",), _SENT),
    (("response", "status"), _REQUEST, _KNOWN),
    (("response", "result"), _REQUEST, (*_KNOWN, "message")),
    (("acknowledge",), ("path", "url", "headers"), (*_KNOWN, "response", "reason")),
    (("acknowledge",), ("success",), (*_KNOWN, "response")),
    (("acknowledge",), ("failed",), (*_KNOWN, "reason")),
    (("acknowledge", "success"), _REQUEST, (*_KNOWN, "response")),
    (("acknowledge", "failed"), _REQUEST, (*_KNOWN, "reason")),
    # Notices are rendered before anything is sent, and users read them.
    (("notices",), NOTICE_KINDS, _CALLER),
)
_EXPRESSIONS = ("url", "body", "success", "failed", "sum")
"""Fields in which a text is one expression."""
_NEEDS_REFERENCE = "needs receipt.reference: where the receipt contains it"

_UNKEYED = (
    "carries no idempotency key, so it must say whether it may be repeated. Either add `repeat:"
    " unless_reached` (sent again only where nothing can have arrived) or `repeat: always`; or send"
    " a key: `idempotency: {header: Idempotency-Key}`, or {call.idempotency_key} in a template"
)

Fields: TypeAlias = Mapping[str, Any]
"""Fields of a part, as written in the file."""


def find_conflicts(document: Any) -> Iterator[FieldProblem]:
    """Find fields that do not fit together; parts that are no mappings are ignored."""
    yield from _reprocess(document)
    yield from _callbacks(document)
    yield from _auths(document)
    yield from _limits(document)
    yield from find_refused_addresses(document)
    yield from _readable_credentials(document)
    for name, operation in _mapping(document, "operations").items():
        if not isinstance(operation, dict):
            continue
        for rule in _RULES:
            for problem in rule(operation, document):
                yield FieldProblem(("operations", name, *problem.path), problem.message)


def _problem(field: str, message: str) -> FieldProblem:
    return FieldProblem(tuple(field.split(".")), message)


def _reprocess(document: Any) -> Iterator[FieldProblem]:
    reprocess, operations = _mapping(document, "reprocess"), _mapping(document, "operations")
    if reprocess and (reprocess.get("cron") is None) == (reprocess.get("every") is None):
        yield _problem("reprocess", "needs either cron or every: when batches start")
    operation = reprocess.get("operation")
    if isinstance(operation, str) and operation not in operations:
        yield _problem("reprocess.operation", unknown_name("operation", operation, operations))


def _callbacks(document: Any) -> Iterator[FieldProblem]:
    callbacks, operations = _mapping(document, "callbacks"), _mapping(document, "operations")
    responses = [_mapping(operation, "response") for operation in operations.values()]
    is_optional = not callbacks.get("events") and all(
        response.get("fetch") is True
        for response in responses
        if response.get("mode") == "callback"
    )
    if "event_key" in callbacks and callbacks["event_key"] is None and not is_optional:
        message = (
            "is null: duplicates cannot be recognised. Only where every operation in mode callback"
            " has fetch: true, and there are no events, deliveries need no key"
        )
        yield _problem("callbacks.event_key", message)
    for path, text in walk_texts(callbacks.get("handshakes"), ("callbacks", "handshakes")):
        if any(one.carries_secrets for one in _expressions(text, is_expression=False)):
            yield FieldProblem(path, "secret() is allowed within hmac and sha256 only")
    listed = _mapping(callbacks, "list")
    if listed and callbacks.get("event_key") is None and "event_key" in callbacks:
        message = "needs callbacks.event_key: what is listed may have been delivered before"
        yield _problem("callbacks.list", message)
    for field in ("path", "query", "headers"):
        for path, text in walk_texts(listed.get(field), ("callbacks", "list", field)):
            for expression in _expressions(text, is_expression=False):
                for problem in _unknown_names(expression, _LISTED, {}):
                    yield FieldProblem(path, f"{expression.text}: {problem}")


def find_refused_addresses(document: Any) -> Iterator[FieldProblem]:
    """Find URLs and hosts to which no request will be sent, whatever is resolved."""
    networks = []
    for text in _list(document, "private_networks"):
        with suppress(ValueError):
            networks.append(ip_network(str(text), strict=False))
    for path, url in _urls(document):
        if (reason := why_refused(_host_of(url), networks)) is not None:
            yield FieldProblem(path, reason)
    for pattern in _mapping(document, "hosts"):
        if (reason := why_refused(str(pattern).partition(":")[0], networks)) is not None:
            yield FieldProblem(("hosts", pattern), reason)


def _readable_credentials(document: Any) -> Iterator[FieldProblem]:
    """Credentials that would be sent over `http`."""
    if _mapping(document).get("plain_http") is True:
        return
    operations = _mapping(document, "operations").values()
    texts = (
        text
        for operation in operations
        for _, request in _requests(_mapping(operation))
        for field in _REQUEST
        for _, text in walk_texts(request.get(field))
    )
    has_credentials = bool(_mapping(document).get("auth")) or any(map(_carries_secret, texts))
    for path, url in _urls(document):
        is_readable = url.lower().startswith("http:") and not is_loopback_host(_host_of(url))
        is_for_credentials = path[0] == "auth" or (path == ("base_url",) and has_credentials)
        if is_readable and is_for_credentials:
            message = (
                "credentials would be sent over http, which everybody on the way can read: use"
                " https, or say plain_http: true where the network can be trusted"
            )
            yield FieldProblem(path, message)


def _carries_secret(text: str) -> bool:
    if "secret(" not in text:
        return False
    found = (*_expressions(text, is_expression=True), *_expressions(text, is_expression=False))
    return any(one.carries_secrets for one in found)


def _urls(document: Any) -> Iterator[tuple[FieldPath, str]]:
    """The URLs that a file has literally: of the provider, its token endpoints, a subscriber."""
    whole = _mapping(document)
    for field in ("base_url", "url"):
        if isinstance(whole.get(field), str):
            yield (field,), whole[field]
    auth = whole.get("auth")
    for index, spec in enumerate(auth if isinstance(auth, list) else [auth]):
        url = _mapping(spec).get("token_url")
        if isinstance(url, str):
            yield (
                ("auth", index, "token_url") if isinstance(auth, list) else ("auth", "token_url"),
                url,
            )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _list(document: Any, field: str) -> list[Any]:
    value = _mapping(document).get(field)
    return value if isinstance(value, list) else []


def _limits(document: Any) -> Iterator[FieldProblem]:
    limits = _mapping(document, "limits")
    of_tenants = {
        "per_tenant": limits.get("per_tenant") is not None,
        "concurrent_per_tenant": limits.get("concurrent_per_tenant") is not None,
        "quota_of": limits.get("quota_of") == "tenant",
    }
    operations = _mapping(document, "operations").values()
    if any(isinstance(one, dict) and one.get("fairness") is not None for one in operations):
        return
    for field, is_set in of_tenants.items():
        if is_set:
            yield _problem(f"limits.{field}", "no operation has `fairness`, which names the tenant")


def _fetch(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("fetch") is not True:
        return
    if response.get("mode") != "callback":
        yield _problem("response.fetch", "is for mode callback: it says what a callback is")
    if not _mapping(response, "status"):
        yield _problem("response.fetch", "needs response.status: how to ask for the response")


def _auths(document: Any) -> Iterator[FieldProblem]:
    """Several authentications that would set the same header."""
    auth = document.get("auth") if isinstance(document, dict) else None
    seen: dict[str, int] = {}
    for index, spec in enumerate(auth if isinstance(auth, list) else ()):
        name = _header_set_by(_mapping(spec)).lower()
        first = seen.setdefault(name, index)
        if first != index:
            message = f"sets the header {name}, as the authentication before it does"
            yield FieldProblem(("auth", index), message)


def _header_set_by(spec: Fields) -> str:
    if spec.get("type") == "sign":
        return str(spec.get("header", "Signature"))
    return str(spec.get("name", "Authorization"))


def _callback(operation: Fields, document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("mode") != "callback":
        return
    match = _mapping(response, "match")
    if not _mapping(document, "callbacks"):
        yield _problem("response.mode", "mode callback needs callbacks with verify and event_key")
    verify = _mapping(_mapping(document, "callbacks"), "verify")
    if verify.get("type") == "url":
        match = {"call_id": "call.id", **match}
        if not _sends_callback_url(operation, document):
            yield _problem("request", "needs {callback_url}: callbacks.verify is of type url")
    if not match.get("call_id") and not match.get("reference"):
        yield _problem("response.match", "mode callback needs match.call_id or match.reference")
    fetched = _mapping(response, "status") if response.get("fetch") is True else {}
    if not response.get("success") and not fetched.get("success"):
        message = "mode callback needs success: which message is the response"
        yield _problem("response.success", message)
    has_reference = _mapping(operation, "receipt").get("reference")
    if match.get("reference") and not match.get("call_id") and not has_reference:
        yield _problem("response.match.reference", _NEEDS_REFERENCE)
    if match.get("call_id") and "reference" not in match and _has_references_by_cycle(operation):
        message = (
            "needs reference beside call_id: acknowledgements use {reference}, and without it a"
            " late response of one cycle is taken for that of the next; null if callbacks have none"
        )
        yield _problem("response.match", message)


def _sends_callback_url(operation: Fields, document: Any) -> bool:
    """Whether the request has the URL; a hook may add it."""
    texts = (text for _, text in walk_texts(operation.get("request")))
    has_hook = isinstance(document, dict) and bool(document.get("hook"))
    return has_hook or any("callback_url" in text for text in texts)


def _has_references_by_cycle(operation: Fields) -> bool:
    """Whether a call can have several cycles, each acknowledged by its own reference."""
    cycles = _mapping(operation, "response").get("cycles", 1)
    acknowledge = walk_texts(operation.get("acknowledge"))
    parks = operation.get("on_failure") == "park" or bool(operation.get("park"))
    has_cycles = parks or cycles != 1
    return has_cycles and any("{reference" in text for _, text in acknowledge)


def _poll(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("mode") != "poll":
        yield from _poll_beside(response)
        return
    status = _mapping(response, "status")
    if not status:
        yield _problem("response.status", "mode poll needs status: how to ask for the response")
    elif not status.get("success") and not response.get("success"):
        message = "mode poll needs success: which answer is the response"
        yield _problem("response.status.success", message)
    if response.get("match") is not None:
        message = "is for callbacks; in mode poll a status request is about one call"
        yield _problem("response.match", message)


def _poll_beside(response: Fields) -> Iterator[FieldProblem]:
    """Polling beside callbacks, which may get lost."""
    if response.get("poll") is None:
        return
    if response.get("mode") != "callback":
        yield _problem("response.poll", "is allowed in modes poll and callback only")
    elif not _mapping(response, "status"):
        yield _problem("response.status", "poll needs status: how to ask for the response")


def _targets(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    """Every request needs a path or a URL."""
    for path, part in _requests(operation):
        has_path, has_url = (part.get(field) is not None for field in ("path", "url"))
        if has_path and has_url:
            yield FieldProblem((*path, "url"), "is allowed instead of path only, not beside it")
        elif not has_path and not has_url:
            yield FieldProblem((*path, "path"), "is missing (or url)")


def _literal_secrets(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    """References that are not resolved where they stand, and secrets written as literals."""
    for path, request in _requests(operation):
        for field in _REQUEST:
            for where, text in walk_texts(request.get(field), (*path, field)):
                if found := _REFERENCE.fullmatch(text):
                    message = (
                        f"is sent as it is: write {{secret('{found[1]}')}}, or use auth, where such"
                        " references are resolved"
                    )
                    yield FieldProblem(where, message)
                elif looks_like_secret(text):
                    # Not repeated.
                    message = (
                        "looks like a secret written as a literal: put it into a variable of the"
                        " environment, and write {secret('env:NAME')} or use auth"
                    )
                    yield FieldProblem(where, message)


_REFERENCE = re.compile(r"(?:(?:Bearer|Basic|Token|Key) +)?(env:[A-Za-z_]\w*)", re.IGNORECASE)


def _requests(operation: Fields) -> Iterator[tuple[FieldPath, Fields]]:
    """The operation's requests as they are written."""
    if isinstance(operation.get("request"), dict):
        yield ("request",), operation["request"]
    response = _mapping(operation, "response")
    for name in ("status", "result"):
        if isinstance(response.get(name), dict):
            yield ("response", name), response[name]
    acknowledge = operation.get("acknowledge")
    if not isinstance(acknowledge, dict):
        return
    if _has_target(acknowledge):
        yield ("acknowledge",), acknowledge
    for kind in ("success", "failed"):
        if not _has_target(acknowledge) and _has_target(_mapping(acknowledge, kind)):
            yield ("acknowledge", kind), acknowledge[kind]


def _has_target(part: Fields) -> bool:
    return part.get("path") is not None or part.get("url") is not None


def _final_receipt(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    is_sync = _mapping(operation, "response").get("mode") == "sync"
    if is_sync and _mapping(operation, "receipt").get("success") is not None:
        message = "has no effect in mode sync; there, response.success says what is the response"
        yield _problem("receipt.success", message)


def _late_window(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("late_window") is None:
        return
    if response.get("mode") == "sync":
        message = "has no effect in mode sync: no response arrives later"
        yield _problem("response.late_window", message)
    if operation.get("on_failure") == "park" and operation.get("park") is None:
        message = "has no effect with on_failure: park: parked calls take late responses anyway"
        yield _problem("response.late_window", message)


def _bodies(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    for path, request in _requests(operation):
        is_get = _is_get(request, default="GET" if path[0] == "response" else "POST")
        if is_get and request.get("body") is not None:
            yield FieldProblem((*path, "body"), "a GET request has no body; use query")
    acknowledge = operation.get("acknowledge")
    if isinstance(acknowledge, dict):
        if acknowledge.get("success") is None and acknowledge.get("failed") is None:
            message = "needs success or failed, or both: what is sent"
            yield _problem("acknowledge", message)
        if _is_get(acknowledge) and _has_target(acknowledge):
            yield _problem("acknowledge.method", "a GET request has no body")


def _idempotency(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    request = operation.get("request")
    if not isinstance(request, dict):
        return
    spec = _mapping(request, "idempotency")
    if "idempotency" in request and "idempotency_header" in request:
        yield _problem("request.idempotency_header", "is a short form of idempotency.header")
    key = spec.get("key")
    if key is not None and not _reads_key(str(key), is_expression=False):
        message = "must contain {call.idempotency_key}: keys differ by call and by cycle"
        yield _problem("request.idempotency.key", message)
    if key is not None and spec.get("header", IDEMPOTENCY_HEADER) is None:
        yield _problem("request.idempotency.key", "needs a header")
    if _carries_key(request):
        return
    if spec.get("retention") is not None:
        message = "needs a key: a header, or {call.idempotency_key} in a template"
        yield _problem("request.idempotency.retention", message)
    if request.get("repeat") is None and not _is_get(request):
        where = next((f for f in ("idempotency", "idempotency_header") if f in request), None)
        yield _problem(f"request.{where}" if where else "request", _UNKEYED)


def _carries_key(request: Fields) -> bool:
    written = request.get("idempotency_header", IDEMPOTENCY_HEADER)
    if "idempotency" in request:
        spec = request["idempotency"]
        written = spec.get("header", IDEMPOTENCY_HEADER) if isinstance(spec, dict) else spec
    return written is not None or any(
        _reads_key(text, is_expression=field in _EXPRESSIONS and path == (field,))
        for field in _REQUEST
        for path, text in walk_texts(request.get(field), (field,))
    )


def _reads_key(text: str, *, is_expression: bool) -> bool:
    return any(map(reads_idempotency_key, _expressions(text, is_expression=is_expression)))


def _ends(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    reconcile = operation.get("reconcile")
    if reconcile is not None and not _mapping(operation, "response", "status"):
        yield _problem("reconcile", "needs response.status: how to ask the provider")
    default = ReconcileSpec()
    every = _duration(_mapping(reconcile).get("every"), default.every)
    within = _duration(_mapping(reconcile).get("for"), default.within)
    if every and within and every > within:
        yield _problem(
            "reconcile.every", f"is longer than for ({duration_text(within)}): nothing is asked"
        )
    parked = operation.get("park")
    if isinstance(parked, list) and operation.get("when_off") == "refuse":
        for index, code in enumerate(parked):
            if code in (OutcomeCode.SWITCHED_OFF, OutcomeCode.BREAKER_OPEN):
                yield FieldProblem(("park", index), f"{code} contradicts when_off: refuse")


def _unknown_notice(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    unknown = _mapping(operation, "notices", "unknown")
    message = (
        "a text about an unknown effect has no alternative: the work may be done, and its user"
        " would do it twice"
    )
    for path in ((), *((language,) for language in unknown)):
        if _mapping(unknown, *path).get("alternative") is not None:
            yield FieldProblem(("notices", "unknown", *path, "alternative"), message)


def _is_get(request: Fields, default: str = "POST") -> bool:
    return str(request.get("method", default)).upper() == "GET"


def _deadline(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    written, default = _mapping(operation, "response", "deadline"), DeadlineSpec()
    ceiling = _duration(written.get("ceiling"), default.ceiling)
    for name in ("floor", "initial"):
        duration = _duration(written.get(name), getattr(default, name))
        if duration and ceiling and duration > ceiling:
            yield _problem(
                f"response.deadline.{name}",
                f"is longer than the ceiling ({duration_text(ceiling)})",
            )


def _template_names(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    """Names in templates that do not exist there; they would silently be null."""
    receipt, schema = _mapping(operation, "receipt"), operation.get("payload_schema")
    for where, fields, known in _TEMPLATES:
        part = _mapping(operation, *where)
        for field in fields:
            is_expression = field in _EXPRESSIONS and isinstance(part.get(field), str)
            for path, text in walk_texts(part.get(field), (*where, field)):
                for expression in _expressions(text, is_expression=is_expression):
                    for problem in (
                        *_unknown_names(expression, known, receipt),
                        *_unknown_payload(expression, schema),
                    ):
                        yield FieldProblem(path, f"{expression.text}: {problem}")


def _sensitive(operation: Fields, _document: Fields) -> Iterator[FieldProblem]:
    """What is stored and shown in plain must not be made of sensitive fields, nor be misspelt."""
    paths = [tuple(path.split(".")) for path in _list(operation, "sensitive") if _is_text(path)]
    for field in ("sum", "fairness"):
        text = operation.get(field)
        for expression in _expressions(text, is_expression=True) if _is_text(text) else ():
            for read in expression.referenced_names():
                if any(read[: len(path)] == path[: len(read)] for path in paths):
                    reason = f"reads {'.'.join(read)}, which is sensitive: it is shown in plain"
                    yield _problem(field, reason)
    schema = operation.get("payload_schema")
    for path in paths:
        unknown = _unknown_property(schema, path[1:]) if path[0] == "payload" else None
        if unknown is not None:
            yield _problem("sensitive", f"{'.'.join(path)}: {unknown}")


def _unknown_payload(expression: Expression, schema: Any) -> Iterator[str]:
    for first, *inner in expression.referenced_names():
        unknown = _unknown_property(schema, tuple(inner)) if first == "payload" else None
        if unknown is not None:
            yield unknown


def _unknown_property(schema: Any, path: tuple[str, ...]) -> str | None:
    """Why a payload never has this path; None: it may have."""
    for name in path:
        while isinstance(schema, dict) and isinstance(schema.get("items"), dict):
            schema = schema["items"]
        if not isinstance(schema, dict) or not isinstance(known := schema.get("properties"), dict):
            return None
        if "patternProperties" in schema:
            return None
        if name not in known:
            is_closed = schema.get("additionalProperties") is False
            return (
                f"payload_schema has no {name}.{_hint(name, tuple(known))}" if is_closed else None
            )
        schema = known[name]
    return None


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str)


def _expressions(text: str, *, is_expression: bool) -> tuple[Expression, ...]:
    try:
        return (RequestExpression(text),) if is_expression else Template.parse(text).expressions
    except ValueError:
        return ()  # reported where the field is parsed


def _unknown_names(
    expression: Expression, known: tuple[str, ...], receipt: Fields
) -> Iterator[str]:
    of_call = _CALL if known is _CALLER else (*_CALL, *_CYCLE)
    kept = tuple(_mapping(receipt, "keep"))
    for first, *inner in expression.referenced_names():
        if first == "reference" and first in known and not receipt.get("reference"):
            yield _NEEDS_REFERENCE
        elif first not in known:
            yield f"{first} is not available here.{_hint(first, known)}"
        elif first == "call" and inner and inner[0] not in of_call:
            yield f"call.{inner[0]} is not available here.{_hint(inner[0], of_call)}"
        elif first == "kept" and (not inner or inner[0] not in kept):
            hint = did_you_mean(inner[0], kept) if inner else ""
            yield f"needs receipt.keep.{inner[0] if inner else '<name>'}.{hint}"


def _hint(name: str, known: tuple[str, ...]) -> str:
    return did_you_mean(name, known) or f" Available: {', '.join(known)}"


def _duration(written: Any, default: timedelta) -> timedelta | None:
    if written is None:
        return default
    try:
        duration = parse_duration(written)
    except ValueError:
        return None
    if isinstance(duration, int | float):
        return timedelta(seconds=duration)
    return duration if isinstance(duration, timedelta) else None


def _mapping(value: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at a path; empty if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


_RULES = (
    _sensitive,
    _callback,
    _fetch,
    _poll,
    _literal_secrets,
    _targets,
    _final_receipt,
    _late_window,
    _bodies,
    _idempotency,
    _ends,
    _unknown_notice,
    _deadline,
    _template_names,
)


def find_unknown_subscribers(
    integration: Integration, known: Iterable[str]
) -> Iterator[FieldProblem]:
    """Find events that are sent to a subscriber that does not exist."""
    events = integration.callbacks.events if integration.callbacks is not None else {}
    for name, rule in events.items():
        if rule.notify is not None and rule.notify not in known:
            message = unknown_name("subscriber", rule.notify, known)
            yield FieldProblem(("callbacks", "events", name, "notify"), message)
