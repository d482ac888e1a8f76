"""Conflicts between fields of an integration file.

The rules read the plain document and not the models, so that they are reported together with all
other problems and not only once those are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from ackbridge.contracts.notices import NOTICE_KINDS
from ackbridge.contracts.wire import parse_duration
from ackbridge.errors import did_you_mean, unknown_name

from .expressions import Expression
from .model import DeadlineSpec
from .templates import Template
from .yaml_document import FieldProblem, walk_texts

_CALLER = ("payload", "metadata", "call")
_SENT = (*_CALLER, "callback_url")
_CALL = ("id", "provider", "operation", "key")
_CYCLE = ("cycle", "idempotency_key")

# Where templates are (a part and its fields), and which names they can read there.
_TEMPLATES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (("request",), ("path", "query", "headers", "body"), _SENT),
    (("response", "status"), ("path", "query", "headers"), (*_SENT, "reference")),
    (("acknowledge",), ("path", "headers"), (*_SENT, "reference", "response", "reason")),
    (("acknowledge",), ("success",), (*_SENT, "reference", "response")),
    (("acknowledge",), ("failed",), (*_SENT, "reference", "reason")),
    # Notices are rendered before anything is sent, and users read them.
    (("notices",), NOTICE_KINDS, _CALLER),
)
_BODIES = ("body", "success", "failed")
_NEEDS_REFERENCE = "needs receipt.reference: where the receipt contains it"

Fields: TypeAlias = Mapping[str, Any]
"""Fields of a part, as written in the file."""


def find_conflicts(document: Any) -> Iterator[FieldProblem]:
    """Find fields that do not fit together; parts that are no mappings are ignored."""
    yield from _reprocess(document)
    for name, operation in _mapping(document, "operations").items():
        if not isinstance(operation, dict):
            continue
        for rule in (_callback, _poll, _late_window, _bodies, _deadline, _template_names):
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


def _callback(operation: Fields, document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("mode") != "callback":
        return
    match = _mapping(response, "match")
    if not _mapping(document, "callbacks"):
        yield _problem("response.mode", "mode callback needs callbacks with verify and event_key")
    if not match.get("call_id") and not match.get("reference"):
        yield _problem("response.match", "mode callback needs match.call_id or match.reference")
    if not response.get("success"):
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


def _has_references_by_cycle(operation: Fields) -> bool:
    """Whether a call can have several cycles, each acknowledged by its own reference."""
    cycles = _mapping(operation, "response").get("cycles", 1)
    acknowledge = walk_texts(operation.get("acknowledge"))
    has_cycles = operation.get("on_failure") == "park" or cycles != 1
    return has_cycles and any("{reference" in text for _, text in acknowledge)


def _poll(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("mode") != "poll":
        if response.get("poll") is not None:
            yield _problem("response.poll", "is allowed in mode poll only")
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


def _late_window(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    response = _mapping(operation, "response")
    if response.get("late_window") is None:
        return
    if response.get("mode") == "sync":
        message = "has no effect in mode sync: no response arrives later"
        yield _problem("response.late_window", message)
    if operation.get("on_failure") == "park":
        message = "has no effect with on_failure: park: parked calls take late responses anyway"
        yield _problem("response.late_window", message)


def _bodies(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    request, acknowledge = _mapping(operation, "request"), operation.get("acknowledge")
    if _is_get(request) and request.get("body") is not None:
        yield _problem("request.body", "a GET request has no body; use query")
    if isinstance(acknowledge, dict):
        if acknowledge.get("success") is None and acknowledge.get("failed") is None:
            message = "needs success or failed, or both: the bodies that are sent"
            yield _problem("acknowledge", message)
        if _is_get(acknowledge):
            yield _problem("acknowledge.method", "a GET request has no body")


def _is_get(request: Fields) -> bool:
    return str(request.get("method", "")).upper() == "GET"


def _deadline(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    written, default = _mapping(operation, "response", "deadline"), DeadlineSpec()
    ceiling = _duration(written.get("ceiling"), default.ceiling)
    for name in ("floor", "initial"):
        duration = _duration(written.get(name), getattr(default, name))
        if duration and ceiling and duration > ceiling:
            yield _problem(f"response.deadline.{name}", f"is longer than the ceiling ({ceiling})")


def _template_names(operation: Fields, _document: Any) -> Iterator[FieldProblem]:
    """Names in templates that do not exist there; they would silently be null."""
    has_reference = bool(_mapping(operation, "receipt").get("reference"))
    for where, fields, known in _TEMPLATES:
        part = _mapping(operation, *where)
        for field in fields:
            is_expression = field in _BODIES and isinstance(part.get(field), str)
            for path, text in walk_texts(part.get(field), (*where, field)):
                for expression in _expressions(text, is_expression=is_expression):
                    for problem in _unknown_names(expression, known, has_reference):
                        yield FieldProblem(path, f"{expression.text}: {problem}")


def _expressions(text: str, *, is_expression: bool) -> tuple[Expression, ...]:
    try:
        return (Expression(text),) if is_expression else Template.parse(text).expressions
    except ValueError:
        return ()  # reported where the field is parsed


def _unknown_names(
    expression: Expression, known: tuple[str, ...], has_reference: bool
) -> Iterator[str]:
    of_call = _CALL if known is _CALLER else (*_CALL, *_CYCLE)
    for first, *inner in expression.referenced_names():
        if first == "reference" and first in known and not has_reference:
            yield _NEEDS_REFERENCE
        elif first not in known:
            yield f"{first} is not available here.{_hint(first, known)}"
        elif first == "call" and inner and inner[0] not in of_call:
            yield f"call.{inner[0]} is not available here.{_hint(inner[0], of_call)}"


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
