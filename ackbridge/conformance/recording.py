"""Examples from real traffic: what was exchanged, without secrets and personal details.

Removed are credentials in headers, what the provider's redactor removes (its own secrets, tokens,
card numbers), the values of fields that usually contain personal details, and e-mail and IP
addresses in texts. That is a net with holes: read an example before you keep it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from ackbridge.catalog.catalog import sensitive_fields
from ackbridge.catalog.examples import Example, ExampleKind
from ackbridge.catalog.model import Integration
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import REMOVED

from .message import Message, parse_delivery
from .readings import Reading, UnreadableExampleError, read_example

CREDENTIAL_HEADERS: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"}
)
"""Never part of an example."""

_NOT_KEPT = frozenset(
    {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}
    | {"accept", "accept-encoding", "traceparent", "tracestate", "user-agent", "via"}
)
"""Headers that say nothing about the message."""

_PERSONAL = re.compile(
    r"(?:^|_)(?:(?:first|last|full|family|given|middle|maiden|display|card_?holder|account_holder)"
    r"_?name|name|surname|e?_?mail(?:_address)?|phone(?:_number)?|mobile|fax|street|address"
    r"|line_?[12]|city|town|zip|post(?:al)?_?code|birth_?da(?:te|y)|date_of_birth|dob|ip(?:_address)?"
    r"|iban|bic|account_number|tax_id|ssn|passport|licen[cs]e_number)$"
)
"""Names of fields, in snake case, whose texts are personal details."""

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-\s]")


@dataclass(frozen=True)
class Exchanged:
    """A request of ours and its answer, as they were on the wire; headers by lower-case name."""

    method: str
    url: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class RecordedDelivery:
    """A callback, as it arrived; headers by lower-case name."""

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Redaction:
    """Removes secrets and personal details of one provider's messages."""

    def __init__(self, integration: Integration, redactor: Redactor) -> None:
        self._redactor = redactor
        auths = (spec.name.lower() for spec in integration.auth if spec.type == "header")
        verify = integration.callbacks.verify if integration.callbacks else None
        secret = {verify.name.lower()} if verify is not None and verify.type == "header" else set()
        self._credentials = CREDENTIAL_HEADERS | set(auths) | secret
        fields = sensitive_fields(integration)
        self._sensitive = frozenset(path.rpartition(".")[2] for path in fields)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that say something about a message."""
        return {
            name: self.text(value)
            for name, value in sorted(headers.items())
            if name not in self._credentials and name not in _NOT_KEPT
        }

    def shown(self, headers: Mapping[str, str]) -> dict[str, str]:
        """All headers, the credentials masked."""
        return {
            name: REMOVED if name in self._credentials else self.masked(value)
            for name, value in headers.items()
        }

    def masked(self, text: str) -> str:
        """The beginning of a text, without what looks like a secret."""
        return self._redactor.clean_value(text)

    def text(self, text: str) -> str:
        """A text without secrets, e-mail and IP addresses."""
        cleaned = self._redactor.clean_value(text)
        return _IP.sub("192.0.2.1", _EMAIL.sub("somebody@example.com", cleaned))

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value without secrets and personal details.

        Args:
            name: of the field that it is in.
        """
        if name in self._sensitive:
            return _nobodys(value)
        if isinstance(value, dict):
            return {key: self.value(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, name) for inner in value]
        if not isinstance(value, str):
            return value
        return _made_up(value) if _is_personal(name) else self.text(value)

    def body(self, content: bytes) -> dict[str, Any]:
        """The body of an example: `body`, `text` or nothing."""
        if not content:
            return {}
        try:
            return {"body": self.value(json.loads(content))}
        except ValueError:
            return {"text": self.text(content.decode("utf-8", "replace"))}

    def form(self, text: str) -> str:
        """A form or a query."""
        pairs = parse_qsl(text, keep_blank_values=True)
        return urlencode([(name, self.value(value, name)) for name, value in pairs])


def example_of_exchange(
    integration: Integration,
    redaction: Redaction,
    operation: str,
    to: str,
    done: Exchanged,
    source: str,
) -> dict[str, Any]:
    """The document of an example, with what the file makes of it.

    Args:
        to: what is answered, as in `AnswerExample`.
    """
    answer = {"to": to, "status": done.status, "headers": redaction.headers(done.headers)}
    document = {
        "source": source,
        "operation": operation,
        "answer": {**answer, **redaction.body(done.body)},
    }
    return _with_meaning(integration, document)


def example_of_delivery(
    integration: Integration, redaction: Redaction, arrived: RecordedDelivery, source: str
) -> dict[str, Any]:
    """As `example_of_exchange`, of a callback. Its signature no longer holds, and is left out."""
    encoding = integration.callbacks.encoding if integration.callbacks else "json"
    delivery: dict[str, Any] = {
        "method": arrived.method,
        "headers": _without_signatures(redaction.headers(arrived.headers)),
    }
    if arrived.query:
        delivery["query"] = redaction.form(arrived.query)
    if encoding == "form":
        delivery["text"] = redaction.form(arrived.body.decode("utf-8", "replace"))
    elif encoding == "xml":
        message = Message(body=parse_delivery("xml", arrived.body, b""), encoding="xml")
        message.body = redaction.value(message.body)
        delivery["text"] = message.content.decode()
    else:
        delivery |= redaction.body(arrived.body)
    return _with_meaning(integration, {"source": source, "delivery": delivery})


def readings_of(integration: Integration, document: Mapping[str, Any]) -> list[Reading]:
    """What the file makes of an example that has no meaning yet.

    Raises:
        UnreadableExampleError: nothing.
    """
    example = Example.model_validate({**document, "means": _unknown(document)})
    return list(read_example(integration, example))


def file_name(document: Mapping[str, Any], number: int = 1) -> str:
    """A file name for an example: what it is about, and what it is."""
    means = document["means"]
    first = means[0] if isinstance(means, list) else means
    answer = document.get("answer")
    about = document.get("operation") or first.get("operation") or "callback"
    parts = [about, answer["to"] if answer else "callback", first["kind"]]
    if first.get("retryable"):
        parts.append("retryable")
    return "-".join([*parts, *([str(number)] if number > 1 else [])]) + ".json"


def _with_meaning(integration: Integration, document: dict[str, Any]) -> dict[str, Any]:
    try:
        readings = readings_of(integration, document)
    except UnreadableExampleError as error:
        return {
            **document,
            "about": f"the file cannot read it: {error}",
            "means": _unknown(document),
        }
    operations = {reading.operation for reading in readings}
    operation = next(iter(operations)) if len(operations) == 1 else None
    means = [_described(reading, with_operation=operation is None) for reading in readings]
    if operation is not None and "operation" not in document:
        document = {"source": document["source"], "operation": operation, **document}
    return {**document, "means": means[0] if len(means) == 1 else means}


def _unknown(document: Mapping[str, Any]) -> dict[str, Any]:
    """A meaning that a message of this sort can have, until it is known."""
    kind = ExampleKind.RETRY if "answer" in document else ExampleKind.UNMATCHED
    return {"kind": kind.value}


def _described(reading: Reading, *, with_operation: bool) -> dict[str, Any]:
    plain = reading.meaning.model_dump(mode="json", exclude_unset=True)
    found = {name: value for name, value in plain.items() if value is not None}
    if reading.meaning.kind is ExampleKind.SUCCESS:
        found["response"] = plain.get("response")
    if with_operation and reading.operation is not None:
        found["operation"] = reading.operation
    return found


def _without_signatures(headers: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if "signature" not in name and "hmac" not in name
    }


def _is_personal(name: str) -> bool:
    return _PERSONAL.search(_CAMEL.sub("_", name).lower()) is not None


def _nobodys(value: Any) -> Any:
    """A sensitive value: of the same form, and nobody's."""
    if isinstance(value, dict):
        return {key: _nobodys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nobodys(inner) for inner in value]
    if isinstance(value, str):
        return _made_up(value)
    return value if value is None or isinstance(value, bool) else 0


def _made_up(value: str) -> str:
    """A value of the same kind that is nobody's."""
    if not value or value == REMOVED:
        return value
    if _EMAIL.fullmatch(value):
        return "somebody@example.com"
    return re.sub(r"\d", "0", value) if any(map(str.isdigit, value)) else "Somebody"


def path_of(url: str) -> str:
    """The path and the query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
