"""Understanding what a provider says: which call it is about, and what it means for it. Pure.

A message's document is its body's fields beside `body`, `headers` (lower-case names), `query` and,
for HTTP answers, `status`; all expressions are evaluated over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.wire import parse_duration

from .schema import ExtensionRule, FailureRule, Integration, Operation, Status
from .templates import evaluate

Document = Mapping[str, Any]
LONGEST_KEY = 512


@dataclass(frozen=True)
class Match:
    """Which call a message may be about.

    Attributes:
        call_id: as the message says; always one of this provider's and this operation's.
        reference: the provider's own id of its work.
    """

    operation: str
    call_id: str | None = None
    reference: str | None = None


def find_event_key(integration: Integration, document: Document) -> str | None:
    """What makes two callbacks the same one; None when the callback does not say."""
    if integration.callbacks is None:
        return None
    return _key(evaluate(integration.callbacks.event_key, document))


def candidates(integration: Integration, document: Document) -> list[Match]:
    """Every operation whose call this may be about, in the order of the file."""
    return list(_candidates(integration, document))


def _candidates(integration: Integration, document: Document) -> Iterator[Match]:
    for name, operation in integration.operations.items():
        if operation.response.mode != "callback":
            continue
        by = operation.response.match
        call_id = _key(evaluate(by.call_id, document)) if by.call_id else None
        reference = _key(evaluate(by.reference, document)) if by.reference else None
        # A provider may only speak about its own calls.
        if call_id is not None and not call_id.startswith(f"{integration.provider}.{name}."):
            call_id = None
        if call_id is not None or reference is not None:
            yield Match(name, call_id, reference)


def classify(
    operation: Operation,
    document: Document,
    event_key: str,
    source: MessageSource,
    received_at: datetime,
) -> ProviderMessage | None:
    """What a message means; None when it is nothing the operation waits for.

    A failure wins over a success: what contradicts itself is not a success.
    """
    rules = _rules(operation, source)
    said: dict[str, Any] | None = None
    if rules.extension is not None and _is_true(rules.extension.when, document):
        said = _extension(rules.extension, document, operation)
    elif rules.failure is not None and _is_true(rules.failure.when, document):
        said = _failure(rules.failure, document)
    elif _is_success(rules, document, source):
        said = {"kind": MessageKind.RESPONSE}
    if said is None:
        return None
    data = evaluate(rules.data, document) if rules.data else document.get("body")
    return ProviderMessage(
        event_key=event_key, source=source, received_at=received_at, data=data, **said
    )


def receipt_reference(operation: Operation, document: Document) -> str | None:
    """The provider's own id of its work, as its receipt says."""
    expression = operation.receipt.reference
    return _key(evaluate(expression, document)) if expression else None


def is_receipt(operation: Operation, status: int, document: Document) -> bool:
    """Whether an answer says that the provider has the request."""
    if 200 <= status < 300:
        return True
    accept = operation.receipt.accept
    return accept is not None and _is_true(accept, document)


@dataclass(frozen=True)
class _Rules:
    success: str | None
    failure: FailureRule | None
    extension: ExtensionRule | None
    data: str | None


def _rules(operation: Operation, source: MessageSource) -> _Rules:
    response = operation.response
    own = response.status if source is MessageSource.STATUS else None
    if not isinstance(own, Status):
        return _Rules(response.success, response.failure, response.extension, response.data)
    return _Rules(
        own.success or response.success,
        own.failure or response.failure,
        own.extension or response.extension,
        own.data or response.data,
    )


def _is_success(rules: _Rules, document: Document, source: MessageSource) -> bool:
    if rules.success is not None:
        return _is_true(rules.success, document)
    return source is MessageSource.SYNC and 200 <= int(document.get("status", 0)) < 300


def _failure(rule: FailureRule, document: Document) -> dict[str, Any]:
    retryable = rule.retryable
    reason = evaluate(rule.reason, document) if rule.reason else None
    return {
        "kind": MessageKind.FAILURE,
        "retryable": retryable if isinstance(retryable, bool) else _is_true(retryable, document),
        "reason": None if reason is None else str(reason)[:2000],
    }


def _extension(rule: ExtensionRule, document: Document, operation: Operation) -> dict[str, Any]:
    until = _moment(evaluate(rule.until, document)) if rule.until else None
    by = _span(evaluate(rule.by, document)) if rule.by else None
    if until is None and by is None:
        # It asks for time and does not say how much: as much as it had.
        by = operation.response.deadline.initial
    return {"kind": MessageKind.EXTENSION, "until": until, "extend_by": by}


def _is_true(expression: str, document: Document) -> bool:
    return bool(evaluate(expression, document))


def _key(value: Any) -> str | None:
    if value is None or isinstance(value, bool | dict | list):
        return None
    text = str(value)
    return text if 0 < len(text) <= LONGEST_KEY else None


def _moment(value: Any) -> datetime | None:
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _span(value: Any) -> timedelta | None:
    try:
        if isinstance(value, int | float):
            return timedelta(seconds=value)
        span = parse_duration(str(value))
    except (ValueError, OverflowError):
        return None
    return span if isinstance(span, timedelta) else None
