"""Understanding what a provider says: which call it is about, and what it means for it. Pure.

A message's document is its body's fields beside `body`, `headers` (lower-case names), `query` and,
for HTTP answers, `status`; all expressions are evaluated over it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts.limits import MAX_KEY_LENGTH, MAX_REASON_LENGTH
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.wire import parse_duration
from ackbridge.security.redaction import Redactor

from .expressions import Expression
from .model import ExtensionRule, FailureRule, Integration, Operation, ResponseSpec, StatusSpec

Document = Mapping[str, Any]
SHAPES_ONLY = Redactor()
"""For whoever has no secrets at hand."""


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
    return _key(integration.callbacks.event_key, document)


def find_matches(integration: Integration, document: Document) -> list[Match]:
    """Every operation whose call this may be about, in the order of the file.

    A provider may only speak about its own calls: a call id of another operation, or of another
    provider, is none of this operation's, whatever reference comes with it.
    """
    return list(_candidates(integration, document))


def _candidates(integration: Integration, document: Document) -> Iterator[Match]:
    for name, operation in integration.operations.items():
        if operation.response.mode != "callback":
            continue
        by = operation.response.match
        call_id = _key(by.call_id, document)
        if call_id is not None and not call_id.startswith(f"{integration.provider}.{name}."):
            continue
        reference = _key(by.reference, document)
        if call_id is not None or reference is not None:
            yield Match(name, call_id, reference)


def classify(
    operation: Operation,
    document: Document,
    event_key: str,
    source: MessageSource,
    received_at: datetime,
    redactor: Redactor = SHAPES_ONLY,
) -> ProviderMessage | None:
    """What a message means; None when it is nothing the operation waits for.

    A failure wins over an extension, and both over a success: what contradicts itself is none.

    Args:
        document: the message; with `status` where it is an HTTP answer.
        source: for `STATUS`, the operation's rules for status answers hold.
        redactor: takes the provider's secrets out of the reason of a failure.
    """
    rules = _rules(operation, source)
    said: dict[str, Any] | None = None
    if rules.failure is not None and rules.failure.when.holds(document):
        said = _failure(rules.failure, document, redactor)
    elif rules.extension is not None and rules.extension.when.holds(document):
        said = _extension(rules.extension, document, operation)
    elif _is_success(rules, document, source):
        said = {"kind": MessageKind.RESPONSE}
    if said is None:
        return None
    data = rules.data.search(document) if rules.data else document.get("body")
    names_it = _match_reference if source is MessageSource.CALLBACK else receipt_reference
    return ProviderMessage(
        event_key=event_key,
        source=source,
        received_at=received_at,
        reference=names_it(operation, document),
        data=data,
        **said,
    )


def receipt_reference(operation: Operation, document: Document) -> str | None:
    """The provider's own id of its work, as its receipt says; None when it says none."""
    return _reference(operation.receipt.reference, document)


def _match_reference(operation: Operation, document: Document) -> str | None:
    return _reference(operation.response.match.reference, document)


def _reference(expression: Expression | None, document: Document) -> str | None:
    reference = _key(expression, document)
    return reference if reference is not None and len(reference) <= MAX_KEY_LENGTH else None


def is_receipt(operation: Operation, status: int, document: Document) -> bool:
    """Whether an answer says that the provider has the request."""
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


def _rules(operation: Operation, source: MessageSource) -> _Rules:
    response = operation.response
    own: ResponseSpec | StatusSpec = response
    if source is MessageSource.STATUS and response.status is not None:
        own = response.status
    return _Rules(
        own.success or response.success,
        own.failure or response.failure,
        own.extension or response.extension,
        own.data or response.data,
    )


def _is_success(rules: _Rules, document: Document, source: MessageSource) -> bool:
    if rules.success is not None:
        return rules.success.holds(document)
    if source not in (MessageSource.SYNC, MessageSource.STATUS):
        return False
    status = document.get("status")
    return isinstance(status, int) and 200 <= status < 300


def _failure(rule: FailureRule, document: Document, redactor: Redactor) -> dict[str, Any]:
    reason = rule.reason.search(document) if rule.reason else None
    text = reason if isinstance(reason, str) or reason is None else json.dumps(reason)
    return {
        "kind": MessageKind.FAILURE,
        "retryable": rule.retryable.holds(document),
        "reason": None if text is None else redactor.clean(text, MAX_REASON_LENGTH),
    }


def _extension(rule: ExtensionRule, document: Document, operation: Operation) -> dict[str, Any]:
    until = _moment(rule.until.search(document)) if rule.until else None
    by = _span(rule.by.search(document)) if rule.by else None
    if until is None and by is None:
        # It asks for time and does not say how much: as much as it had.
        by = operation.response.deadline.initial
    return {"kind": MessageKind.EXTENSION, "until": until, "extend_by": by}


def _key(expression: Expression | None, document: Document) -> str | None:
    """An id: a text or a number that is not empty."""
    value = expression.search(document) if expression is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value) or None


def _moment(value: Any) -> datetime | None:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _span(value: Any) -> timedelta | None:
    try:
        span = timedelta(seconds=value) if isinstance(value, int | float) else parse_duration(value)
    except (ValueError, OverflowError):
        return None
    return span if isinstance(span, timedelta) and span > timedelta(0) else None
