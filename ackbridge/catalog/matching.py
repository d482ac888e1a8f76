"""Interpret a provider's messages: which call a message is about, and what it means for it. Pure.

Expressions are evaluated over a message's document: the fields of its body and, beside them,
`body`, `headers` (lower-case names), `query` and, for HTTP answers, `status`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

from ackbridge.contracts.limits import MAX_CODE_LENGTH, MAX_KEY_LENGTH, MAX_REASON_LENGTH
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.names import SHORT_ID_PATTERN
from ackbridge.contracts.wire import digest, parse_duration
from ackbridge.http.retry_after import parse_retry_after
from ackbridge.security.redaction import Redactor
from ackbridge.security.specs import UrlVerify

from .callbacks import EventRule
from .expressions import Expression
from .model import (
    ExtensionRule,
    FailureRule,
    Integration,
    Operation,
    ReceiptFailureRule,
    ResponseSpec,
    StatusSpec,
)
from .templates import decimal_text

Document: TypeAlias = Mapping[str, Any]

THROTTLING_STATUSES = frozenset({408, 425, 429})

FIRST_ERROR_STATUS: Final = 400

MAX_KEPT_LENGTH: Final = 4096
"""Characters of a value of `receipt.keep`."""

_EARLIEST_TIMESTAMP = 10**9
"""Larger numbers of seconds are Unix times, not durations."""

_LATEST_TIMESTAMP = 10**11

_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)

SHAPES_ONLY = Redactor()
"""Removes what looks like a credential or a card number; knows no provider's secrets."""


@dataclass(frozen=True)
class Match:
    """The call that a message may be about.

    Attributes:
        call_id: as in the message; always one of this provider and this operation.
        reference: the provider's own id of its work.
    """

    operation: str
    call_id: str | None = None
    reference: str | None = None


class FailureText(NamedTuple):
    """Why a provider failed or refused, in its own words; free of secrets.

    Attributes:
        reason: for people; None if it says nothing.
        code: the provider's own code.
    """

    reason: str | None
    code: str | None


def find_event_key(integration: Integration, document: Document) -> str | None:
    """The key by which duplicates of a callback are recognised; None if it has none.

    Where anybody could repeat a delivery under another key, it is a digest of what is signed.
    """
    if integration.callbacks is None:
        return None
    key = _key(integration.callbacks.event_key, document)
    if key is not None and integration.has_unsigned_key:
        return f"signed:{digest(document.get('body'))}"
    return key


def object_of(rule: EventRule, document: Document) -> str | None:
    """What an event is about; None where its order does not matter."""
    return _reference(rule.object, document)


def find_matches(integration: Integration, document: Document) -> list[Match]:
    """The calls that a callback may be about, at most one for each operation, in the file's order.

    A call id of another operation or another provider is never a match, whatever the reference.
    """
    matches = []
    proven = _proven_call(integration, document)
    for name, operation in integration.operations.items():
        if operation.response.mode != "callback":
            continue
        match = operation.response.match
        call_id = proven or _key(match.call_id, document)
        if call_id is not None and not call_id.startswith(f"{integration.provider}.{name}."):
            if SHORT_ID_PATTERN.fullmatch(call_id) and operation.sends_short_id:
                # Stored as a reference of the call before it was sent.
                matches.append(Match(name, reference=call_id))
            continue
        reference = _key(match.reference, document)
        if call_id is not None or reference is not None:
            matches.append(Match(name, call_id, reference))
    return matches


def _proven_call(integration: Integration, document: Document) -> str | None:
    """The call that the URL of a callback was made for; nothing in a body counts beside it."""
    callbacks = integration.callbacks
    is_by_url = callbacks is not None and isinstance(callbacks.verify, UrlVerify)
    return _key(_URL_CALL, document) if is_by_url else None


_URL_CALL: Final = Expression("call.id")


def classify(
    operation: Operation,
    document: Document,
    event_key: str,
    source: MessageSource,
    received_at: datetime,
    redactor: Redactor = SHAPES_ONLY,
) -> ProviderMessage | None:
    """What a message means; None when it is nothing that the operation waits for.

    A failure takes precedence over an extension, and both over a success. With `fetch`, a callback
    is a doorbell, whatever it says.

    Args:
        source: for `STATUS`, the rules of `response.status` apply.
        redactor: removes secrets from the reason of a failure.
    """
    if source is MessageSource.CALLBACK and operation.response.fetch:
        return ProviderMessage(
            kind=MessageKind.DOORBELL,
            event_key=event_key,
            source=source,
            received_at=received_at,
            reference=_reference(operation.response.match.reference, document),
        )
    status = document.get("status")
    is_error = isinstance(status, int) and status >= FIRST_ERROR_STATUS
    rules = _rules(operation, source, is_error=is_error)
    meaning: dict[str, Any]
    if rules.failure is not None and rules.failure.when.holds(document):
        meaning = _failure(rules.failure, document, redactor)
    elif rules.extension is not None and rules.extension.when.holds(document):
        meaning = _extension(rules.extension, document, operation)
    elif _is_success(rules, document, source):
        meaning = {"kind": MessageKind.RESPONSE}
    else:
        return None
    is_callback = source is MessageSource.CALLBACK
    reference = operation.response.match.reference if is_callback else operation.receipt.reference
    return ProviderMessage(
        event_key=event_key,
        source=source,
        received_at=received_at,
        reference=_reference(reference, document),
        data=_data(operation, rules.data, document),
        sensitive=operation.sensitive,
        **meaning,
    )


def receipt_reference(operation: Operation, document: Document) -> str | None:
    """The provider's own id of its work in its receipt; None if there is none."""
    return _reference(operation.receipt.reference, document)


def receipt_data(operation: Operation, document: Document) -> Any:
    """What the caller gets of the receipt; None where the operation takes nothing from it."""
    data = operation.receipt.data
    return data.search(document) if data is not None else None


def receipt_response(
    operation: Operation, document: Document, event_key: str, received_at: datetime
) -> ProviderMessage | None:
    """The response that a receipt is already, by `receipt.success`; None if it is none."""
    success = operation.receipt.success
    if success is None or not success.holds(document):
        return None
    data = _data(operation, operation.response.data, document)
    return ProviderMessage(
        kind=MessageKind.RESPONSE,
        event_key=event_key,
        source=MessageSource.SYNC,
        received_at=received_at,
        reference=receipt_reference(operation, document),
        data=document.get("body") if data is None else data,
        sensitive=operation.sensitive,
    )


def result_data(operation: Operation, document: Document) -> Any:
    """The response in the answer to the request for the result."""
    data = operation.response.data
    return data.search(document) if data is not None else document.get("body")


def kept_values(operation: Operation, document: Document) -> dict[str, str | int | float | bool]:
    """What an answer has of `receipt.keep`, without null and what is not kept."""
    found = {name: one.search(document) for name, one in operation.receipt.keep.items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str | int | float) and len(str(value)) <= MAX_KEPT_LENGTH
    }


def asks_to_retry(operation: Operation, document: Document) -> bool:
    """Whether an answer says "not now", by `receipt.retry`."""
    retry = operation.receipt.retry
    return retry is not None and retry.holds(document)


def receipt_pause(operation: Operation, document: Document, now: datetime) -> timedelta | None:
    """How long the provider asks to wait, by `receipt.pause`; None if it does not say."""
    pause = operation.receipt.pause
    value = pause.search(document) if pause is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    moment = _unix_time(value)
    found = parse_retry_after(str(value) if moment is None else moment.isoformat(), now)
    return _duration(value) if found is None and isinstance(value, str) else found


def receipt_failure(
    operation: Operation, document: Document, redactor: Redactor = SHAPES_ONLY
) -> FailureText | None:
    """The failure that an answer to the request reports by `receipt.failure.when`; None if none.

    Nothing took effect then, whatever the status.
    """
    rule = operation.receipt.failure
    if rule is None or rule.when is None or not rule.when.holds(document):
        return None
    return refusal(operation, document, redactor)


def refusal(
    operation: Operation, document: Document, redactor: Redactor = SHAPES_ONLY
) -> FailureText:
    """Why the provider refused the request, or failed by `receipt.failure`, in its own words."""
    rule = operation.receipt.failure or ReceiptFailureRule()
    reason = _reason(rule.reason, document, redactor)
    if reason is None:
        text = _error_text(document)
        reason = None if text is None else redactor.clean(text, MAX_REASON_LENGTH)
    return FailureText(reason, _code(rule.code, document, redactor))


def accepts_acknowledgement(operation: Operation, document: Document) -> bool:
    """Whether the provider's answer accepts an acknowledgement."""
    status = document.get("status")
    if isinstance(status, int) and status < FIRST_ERROR_STATUS:
        return True
    accept = operation.acknowledge.accept if operation.acknowledge else None
    return accept is not None and accept.holds(document)


def is_retryable_status(status: int) -> bool:
    """Whether the same request may succeed a moment later."""
    return status in THROTTLING_STATUSES or status >= 500


def is_receipt(operation: Operation, status: int, document: Document) -> bool:
    """Whether an answer shows that the provider has received the request."""
    if 200 <= status < 300:
        return True
    accept = operation.receipt.accept
    return accept is not None and accept.holds(document)


@dataclass(frozen=True)
class _Rules:
    success: Expression | None
    failure: FailureRule | None
    extension: ExtensionRule | None
    data: Expression | None


def _rules(operation: Operation, source: MessageSource, *, is_error: bool) -> _Rules:
    response = operation.response
    own: ResponseSpec | StatusSpec = response
    if source is MessageSource.STATUS and response.status is not None:
        own = response.status
        if is_error:
            # "Not found" is no failure of the work, whatever such a body has in a callback.
            return _Rules(own.success, own.failure, own.extension, own.data or response.data)
    return _Rules(
        own.success or response.success,
        own.failure or response.failure,
        own.extension or response.extension,
        own.data or response.data,
    )


def _is_success(rules: _Rules, document: Document, source: MessageSource) -> bool:
    if rules.success is not None:
        return rules.success.holds(document)
    if source is MessageSource.SYNC:
        return True  # a receipt: a 2xx, or what `receipt.accept` says
    status = document.get("status")
    return source is MessageSource.STATUS and isinstance(status, int) and 200 <= status < 300


def _data(operation: Operation, selected: Expression | None, document: Document) -> Any:
    """The response in a message; its whole body where the response is in the result."""
    if selected is None or operation.response.result is not None:
        return document.get("body")
    return selected.search(document)


def _failure(rule: FailureRule, document: Document, redactor: Redactor) -> dict[str, Any]:
    return {
        "kind": MessageKind.FAILURE,
        "retryable": rule.retryable.holds(document),
        "reason": _reason(rule.reason, document, redactor),
        "code": _code(rule.code, document, redactor),
    }


def _reason(expression: Expression | None, document: Document, redactor: Redactor) -> str | None:
    reason = expression.search(document) if expression is not None else None
    if reason is None:
        return None
    text = reason if isinstance(reason, str) else json.dumps(reason)
    return redactor.clean(text, MAX_REASON_LENGTH)


def _code(expression: Expression | None, document: Document, redactor: Redactor) -> str | None:
    code = _key(expression, document)
    return None if code is None else redactor.clean(code, MAX_CODE_LENGTH)


def _error_text(document: Document) -> str | None:
    """The error in an answer's body: a problem of RFC 9457, one of the usual fields, or a text."""
    body = document.get("body")
    if isinstance(body, str) and _media_type(document) in _PLAIN_TYPES:
        return body.strip() or None
    if isinstance(body, list):
        body = {"errors": body}
    if not isinstance(body, dict):
        return None
    texts = [body.get("detail"), *_error_fields(body), body.get("title"), *_first_of_errors(body)]
    if _media_type(document) == "application/problem+json":
        texts.insert(1, body.get("title"))
    usual = next((text for text in texts if isinstance(text, str) and text), None)
    return usual or _text_within(body, _MAX_ERROR_LEVELS)


def _text_within(value: Any, levels: int) -> str | None:
    """The first text about an error in what is unusual, such as a fault of SOAP."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list) and value and levels:
        return _text_within(value[0], levels - 1)
    if not isinstance(value, dict) or not levels:
        return None
    fields = {name.lower().replace("_", ""): inner for name, inner in value.items()}
    texts = (fields[name] for name in _ERROR_TEXTS if isinstance(fields.get(name), str))
    inner = (_text_within(fields[name], levels - 1) for name in _AROUND_ERRORS if name in fields)
    found = next(filter(None, (*texts, *inner)), None)
    return found or _text_of_only_field(value, levels) or _text_of_fields(fields.get("errors"))


def _text_of_only_field(value: Mapping[str, Any], levels: int) -> str | None:
    """Within the root of XML, or an envelope; the texts of an order, say, explain no refusal."""
    if len(value) != 1:
        return None
    ((name, only),) = value.items()
    is_envelope = isinstance(only, dict) and _ENVELOPE.search(name) is not None
    return _text_within(only, levels - 1) if is_envelope else None


def _text_of_fields(errors: Any) -> str | None:
    """The first of the errors by field, as Rails and Shopify have them."""
    if not isinstance(errors, dict):
        return None
    for name, said in errors.items():
        first = said[0] if isinstance(said, list) and said else said
        if isinstance(first, str) and first:
            return f"{name}: {first}"
    return None


def _error_fields(body: Mapping[str, Any]) -> list[Any]:
    error = body.get("error")
    inner = error.get("message") if isinstance(error, dict) else error
    return [body.get("error_description"), inner, body.get("message")]


def _first_of_errors(body: Mapping[str, Any]) -> list[Any]:
    """The texts of `errors`, or of the first one of a list, as JSON:API and GraphQL have them."""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else errors
    if not isinstance(first, dict):
        return [first]
    return [first.get("detail"), first.get("message"), first.get("title")]


_MAX_ERROR_LEVELS: Final = 8

_ENVELOPE: Final = re.compile(
    "envelope|error|exception|failure|fault|problem|reply|respon|result|status", re.IGNORECASE
)
"""In the name of an only field that has the error inside."""

_ERROR_TEXTS: Final = (
    "message",
    "errormessage",
    "errormsg",
    "description",
    "faultstring",
    "msg",
    "detail",
    "reason",
    "text",
    "#text",
    "title",
)
"""Fields with the text of an error, in lower case and without underscores."""

_AROUND_ERRORS: Final = (
    "error",
    "errors",
    "fault",
    "detail",
    "reason",
    "text",
    "errormessages",
    "body",
    "errorcodes",
)
"""Fields with an error inside, likewise."""

_PLAIN_TYPES: Final = frozenset({"text/plain", "application/json"})


def _media_type(document: Document) -> str:
    content_type = (document.get("headers") or {}).get("content-type", "")
    return str(content_type).partition(";")[0].strip().lower()


def _extension(rule: ExtensionRule, document: Document, operation: Operation) -> dict[str, Any]:
    until = _timestamp(rule.until.search(document)) if rule.until else None
    by = _duration(rule.by.search(document)) if rule.by else None
    if until is None and by is None:
        # It does not say how much time it needs.
        by = operation.response.deadline.initial
    return {"kind": MessageKind.EXTENSION, "until": until, "extend_by": by}


def _reference(expression: Expression | None, document: Document) -> str | None:
    reference = _key(expression, document)
    return reference if reference is not None and len(reference) <= MAX_KEY_LENGTH else None


def _key(expression: Expression | None, document: Document) -> str | None:
    """A text or a number that is not empty, as a text."""
    value = expression.search(document) if expression is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return (decimal_text(value) if isinstance(value, float) else str(value)) or None


def _timestamp(value: Any) -> datetime | None:
    moment = _unix_time(value)
    if moment is not None:
        return moment
    try:
        timestamp = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def _unix_time(value: Any) -> datetime | None:
    """A moment as seconds or milliseconds since 1970; smaller numbers are none."""
    number = _number(value)
    if number is None or not _EARLIEST_TIMESTAMP <= number < _LATEST_TIMESTAMP * 1000:
        return None
    return datetime.fromtimestamp(number / (1 if number < _LATEST_TIMESTAMP else 1000), UTC)


def _number(value: Any) -> float | None:
    """A number, or a text of one, as forms and headers have them."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if isinstance(value, int | float) else None


def _duration(value: Any) -> timedelta | None:
    number = _number(value)
    try:
        duration = parse_duration(value) if number is None else timedelta(seconds=number)
    except (ValueError, OverflowError):
        return None
    return duration if isinstance(duration, timedelta) and duration > timedelta(0) else None
