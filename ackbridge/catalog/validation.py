"""What no single field of an integration file can get wrong alone.

The rules look at the plain document, not at models: so they are told together with every other
mistake, and not only once those are mended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from ackbridge.contracts.notices import NOTICE_KINDS
from ackbridge.contracts.wire import parse_duration

from .expressions import Expression
from .model import DeadlineSpec
from .templates import Template
from .yaml_document import FieldPath, FieldProblem, walk_texts

_CALLER = ("payload", "metadata", "call")
_SENT = (*_CALLER, "callback_url")
_CALL = ("id", "provider", "operation", "key")
_CYCLE = ("cycle", "idempotency_key")

# Where templates are, and what they know there.
_TEMPLATES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (("request",), ("path", "query", "headers", "body"), _SENT),
    (("response", "status"), ("path", "query", "headers"), (*_SENT, "reference")),
    (("acknowledge",), ("path", "headers"), (*_SENT, "reference", "response", "reason")),
    (("acknowledge",), ("success",), (*_SENT, "reference", "response")),
    (("acknowledge",), ("failed",), (*_SENT, "reference", "reason")),
    # They are written before anything is sent, and for people: no cycle, no provider's words.
    (("notices",), NOTICE_KINDS, _CALLER),
)
_BODIES = ("body", "success", "failed")


def find_conflicts(document: Any) -> Iterator[FieldProblem]:
    """Everything that does not fit together; what is no mapping is somebody else's to tell."""
    yield from _reprocess(document)
    for name, operation in _at(document, "operations").items():
        here: FieldPath = ("operations", name)
        if isinstance(operation, dict):
            yield from _callback(document, operation, here)
            yield from _poll(operation, here)
            yield from _late_window(operation, here)
            yield from _bodies(operation, here)
            yield from _deadline(operation, here)
            yield from _names(operation, here)


def _reprocess(document: Any) -> Iterator[FieldProblem]:
    reprocess, operations = _at(document, "reprocess"), _at(document, "operations")
    if reprocess and (reprocess.get("cron") is None) == (reprocess.get("every") is None):
        yield FieldProblem(("reprocess",), "needs either cron or every: when batches begin")
    operation = reprocess.get("operation")
    if isinstance(operation, str) and operation not in operations:
        message = f"there is no {operation} here{_near(operation, tuple(operations))}"
        yield FieldProblem(("reprocess", "operation"), message)


def _callback(
    document: Any, operation: Mapping[str, Any], here: FieldPath
) -> Iterator[FieldProblem]:
    response = _at(operation, "response")
    if response.get("mode") != "callback":
        return
    match = _at(response, "match")
    if not _at(document, "callbacks"):
        message = "callback needs callbacks with verify and event_key"
        yield FieldProblem((*here, "response", "mode"), message)
    if not match.get("call_id") and not match.get("reference"):
        message = "callback needs match.call_id or match.reference"
        yield FieldProblem((*here, "response", "match"), message)
    if not response.get("success"):
        message = "callback needs success: which message is the response"
        yield FieldProblem((*here, "response", "success"), message)
    if match.get("reference") and not _at(operation, "receipt").get("reference"):
        message = "match.reference needs receipt.reference: where the receipt has it"
        if not match.get("call_id"):
            yield FieldProblem((*here, "response", "match", "reference"), message)
    if _may_confuse_cycles(operation) and match.get("call_id") and "reference" not in match:
        message = (
            "reference is needed beside call_id: acknowledgements go by {reference}, and without it"
            " a late answer of one cycle is taken for the next one's; null if events have none"
        )
        yield FieldProblem((*here, "response", "match"), message)


def _may_confuse_cycles(operation: Mapping[str, Any]) -> bool:
    """Whether a call can have several cycles that are acknowledged by their own references."""
    again = (
        operation.get("on_failure") == "park" or _at(operation, "response").get("cycles", 1) != 1
    )
    return again and any(
        "{reference" in text for _, text in walk_texts(operation.get("acknowledge"))
    )


def _poll(operation: Mapping[str, Any], here: FieldPath) -> Iterator[FieldProblem]:
    response = _at(operation, "response")
    is_polled = response.get("mode") == "poll"
    if response.get("poll") is not None and not is_polled:
        yield FieldProblem((*here, "response", "poll"), "is for mode poll only")
    if not is_polled:
        return
    status = _at(response, "status")
    if not status:
        message = "poll needs status: how to ask for the response"
        yield FieldProblem((*here, "response", "status"), message)
    elif not status.get("success") and not response.get("success"):
        message = "poll needs success: which answer is the response"
        yield FieldProblem((*here, "response", "status", "success"), message)
    if response.get("match") is not None:
        message = "is for callbacks; in mode poll we ask about one call"
        yield FieldProblem((*here, "response", "match"), message)


def _late_window(operation: Mapping[str, Any], here: FieldPath) -> Iterator[FieldProblem]:
    response = _at(operation, "response")
    if response.get("late_window") is None:
        return
    path = (*here, "response", "late_window")
    if response.get("mode") == "sync":
        yield FieldProblem(path, "is of no use in mode sync: nothing comes later")
    if operation.get("on_failure") == "park":
        message = "is of no use with on_failure: park: parked calls take late responses anyway"
        yield FieldProblem(path, message)


def _bodies(operation: Mapping[str, Any], here: FieldPath) -> Iterator[FieldProblem]:
    request, acknowledge = _at(operation, "request"), operation.get("acknowledge")
    if str(request.get("method", "")).upper() == "GET" and request.get("body") is not None:
        yield FieldProblem((*here, "request", "body"), "a GET request has no body; use query")
    if isinstance(acknowledge, dict):
        if acknowledge.get("success") is None and acknowledge.get("failed") is None:
            message = "says neither what to send on success nor when it failed"
            yield FieldProblem((*here, "acknowledge"), message)
        if str(acknowledge.get("method", "")).upper() == "GET":
            yield FieldProblem((*here, "acknowledge", "method"), "a GET request has no body")


def _deadline(operation: Mapping[str, Any], here: FieldPath) -> Iterator[FieldProblem]:
    written = _at(operation, "response", "deadline")
    default = DeadlineSpec()
    spans = {
        name: _span(written.get(name), getattr(default, name))
        for name in ("floor", "initial", "ceiling")
    }
    floor, initial, ceiling = spans["floor"], spans["initial"], spans["ceiling"]
    path = (*here, "response", "deadline")
    if floor and ceiling and floor > ceiling:
        yield FieldProblem((*path, "floor"), f"is longer than the ceiling ({ceiling})")
    if initial and ceiling and initial > ceiling:
        yield FieldProblem((*path, "initial"), f"is longer than the ceiling ({ceiling})")


def _names(operation: Mapping[str, Any], here: FieldPath) -> Iterator[FieldProblem]:
    """Expressions of templates that read what is not there: they would silently be null."""
    has_reference = bool(_at(operation, "receipt").get("reference"))
    for where, fields, known in _TEMPLATES:
        part = _at(operation, *where)
        for field in fields:
            for path, text in walk_texts(part.get(field), (*here, *where, field)):
                whole = field in _BODIES and isinstance(part.get(field), str)
                for expression in _expressions(text, whole):
                    for problem in _unknown(expression, known, has_reference):
                        yield FieldProblem(path, f"{expression.text}: {problem}")


def _expressions(text: str, whole: bool) -> tuple[Expression, ...]:
    try:
        return (Expression(text),) if whole else Template.read(text).expressions
    except ValueError:
        return ()  # told where the field is read


def _unknown(expression: Expression, known: tuple[str, ...], has_reference: bool) -> Iterator[str]:
    of_call = _CALL if known is _CALLER else (*_CALL, *_CYCLE)
    for first, *rest in expression.names():
        if first == "reference" and first in known and not has_reference:
            yield "needs receipt.reference: where the receipt has it"
        elif first not in known:
            yield f"there is no {first} here{_near(first, known)}"
        elif first == "call" and rest and rest[0] not in of_call:
            yield f"there is no call.{rest[0]}{_near(rest[0], of_call)}"


def _near(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(known)}"


def _span(written: Any, default: timedelta) -> timedelta | None:
    if written is None:
        return default
    try:
        span = parse_duration(written)
    except ValueError:
        return None
    if isinstance(span, int | float):
        return timedelta(seconds=span)
    return span if isinstance(span, timedelta) else None


def _at(value: Any, *path: str) -> Mapping[str, Any]:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
