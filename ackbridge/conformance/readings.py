"""What an integration file makes of recorded messages, read by the code that reads real ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ackbridge.catalog.callbacks import CallbackSpec, HandshakeRule
from ackbridge.catalog.examples import (
    DeliveryExample,
    Example,
    ExampleKind,
    Meaning,
    RecordedExample,
    RequestExample,
)
from ackbridge.catalog.matching import (
    accepts_acknowledgement,
    asks_to_retry,
    classify,
    is_receipt,
    is_retryable_status,
    receipt_data,
    receipt_failure,
    receipt_reference,
    receipt_response,
    refusal,
    result_data,
)
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.rendering import (
    OutboundRequest,
    apply_hook,
    render_acknowledgement,
    render_request,
    render_result,
    render_status,
)
from ackbridge.catalog.yaml_document import FieldPath, FieldProblem
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import Problem, SecretError, SignatureError
from ackbridge.gateway.event import (
    InboundEvent,
    event_key_of,
    find_handshake,
    make_document,
    read_event,
    split_delivery,
)
from ackbridge.gateway.handshake import render_handshake
from ackbridge.security.inbound import build_verifier
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import REMOVED, Secrets

from .message import Message
from .template_context import template_context

_KINDS = {
    MessageKind.RESPONSE: ExampleKind.SUCCESS,
    MessageKind.FAILURE: ExampleKind.FAILURE,
    MessageKind.EXTENSION: ExampleKind.EXTENSION,
    MessageKind.DOORBELL: ExampleKind.DOORBELL,
}
_AT = datetime(2030, 1, 1, tzinfo=UTC)
"""When messages are read; nothing that is compared depends on it."""

_RESULT_MAY_FOLLOW = (404, 409)
"""The work is done, and its result may show a moment later."""

_REDACTOR = Redactor()


class UnreadableExampleError(Exception):
    """The file can make nothing of a message; the text says why."""


@dataclass(frozen=True)
class Reading:
    """One event of an example, or an answer: what the file makes of it.

    Attributes:
        operation: that it is for; None if it is for none.
    """

    operation: str | None
    meaning: Meaning


@dataclass(frozen=True)
class CheckedExample:
    """An example with what the file makes of it, and where that is not what the example says."""

    recorded: RecordedExample
    readings: tuple[Reading, ...]
    problems: tuple[Problem, ...]
    is_verified: bool = False  # whether its signature was verified


class ExampleSecrets(Secrets):
    """The secrets of an example, by reference; made-up ones for all other references."""

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        super().__init__({}, Path())
        self._given = given

    def resolve(self, ref: str) -> str:
        if self._given is None:
            return f"made-up-{ref}"
        if ref not in self._given:
            raise SecretError(f"{ref}: is not among the example's secrets")
        return self._given[ref]


def check_example(integration: Integration, recorded: RecordedExample) -> CheckedExample:
    """Evaluate a file over one of its examples."""
    example = recorded.example
    verify = example.delivery.verify if example.delivery is not None else None
    ExampleSecrets(verify.secrets if verify else None).use_in_task()
    found: list[FieldProblem] = []
    readings: tuple[Reading, ...] = ()
    try:
        readings = tuple(read_example(integration, example))
        found += _differences(example, readings)
    except UnreadableExampleError as error:
        found.append(FieldProblem(("means",), f"the file cannot read this: {error}"))
    found += _wrong_request(integration, example)
    if example.delivery is not None and verify is not None:
        found += _forged(integration, example.delivery)
    problems = tuple(map(recorded.problem, found))
    return CheckedExample(recorded, readings, problems, is_verified=verify is not None)


def missing_examples(integration: Integration, readings: Iterable[Reading]) -> Iterator[str]:
    """What the file reads and no example shows, in words."""
    shown = {(one.operation, one.meaning.kind) for one in readings}
    for name, operation in integration.operations.items():
        missing = [kind for kind in _kinds_read_by(operation) if (name, kind) not in shown]
        if missing:
            yield f"operations.{name}: no example of {', '.join(missing)}"


def _kinds_read_by(operation: Operation) -> Iterator[ExampleKind]:
    """The kinds of messages that an operation needs to end in every way that it has rules for."""
    response = operation.response
    if response.mode != "sync":
        yield ExampleKind.RECEIPT
    if response.fetch:
        yield ExampleKind.DOORBELL
    yield ExampleKind.SUCCESS
    own = response.status or response
    if response.failure is not None or own.failure is not None:
        yield ExampleKind.FAILURE
    if response.extension is not None or own.extension is not None:
        yield ExampleKind.EXTENSION
    if response.mode == "poll":
        yield ExampleKind.PENDING


def read_example(integration: Integration, example: Example) -> Iterator[Reading]:
    """What the file makes of an example, event by event.

    Raises:
        UnreadableExampleError: nothing.
    """
    if example.answer is not None and example.operation is not None:
        operation, answer = integration.operations[example.operation], example.answer
        document = Message.of_answer(answer, integration.code).document
        yield Reading(example.operation, read_answer(operation, answer.to, answer.status, document))
    elif example.delivery is not None:
        yield from _read_delivery(integration, example, example.delivery)


def _read_delivery(
    integration: Integration, example: Example, delivery: DeliveryExample
) -> Iterator[Reading]:
    callbacks = integration.callbacks
    if callbacks is None:
        raise UnreadableExampleError("the file has no callbacks")
    problem = None
    try:
        document = Message.of_delivery(delivery, callbacks.encoding, integration.code).document
    except InvalidInputError as error:
        problem = error
        headers, query = delivery.lower_headers, dict(parse_qsl(delivery.query))
        document = make_document(None, headers, query)
    rule = find_handshake(callbacks, document)
    if rule is not None:
        yield _handshake(rule, document)
    elif problem is not None:
        raise UnreadableExampleError(str(problem))
    else:
        for number, event in enumerate(event_documents(callbacks, document)):
            wanted = example.operation_of(example.means[min(number, len(example.means) - 1)])
            yield read_event_document(integration, event, wanted)


def event_documents(callbacks: CallbackSpec, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a delivery.

    Raises:
        UnreadableExampleError: they are not where the file says.
    """
    if callbacks.each is None:
        return [document]
    try:
        return split_delivery(callbacks.each, document)
    except InvalidInputError as error:
        raise UnreadableExampleError(f"{error}; see callbacks.each") from None


def _handshake(rule: HandshakeRule, document: dict[str, Any]) -> Reading:
    try:
        content, _, _ = render_handshake(rule.reply, document)
    except ValueError as error:
        raise UnreadableExampleError(f"{error}; see callbacks.handshakes") from None
    return Reading(None, Meaning(kind=ExampleKind.HANDSHAKE, reply=content))


def read_answer(operation: Operation, to: str, status: int, document: dict[str, Any]) -> Meaning:
    """What the file makes of an answer.

    Args:
        to: what is answered, as in `AnswerExample`.

    Raises:
        UnreadableExampleError: nothing.
    """
    match to:
        case "request":
            return _read_receipt(operation, status, document)
        case "status":
            return _read_status(operation, status, document)
        case "result":
            return _read_result(operation, status, document)
        case _:
            return _read_acknowledged(operation, status, document)


def _read_receipt(operation: Operation, status: int, document: dict[str, Any]) -> Meaning:
    if asks_to_retry(operation, document):
        return Meaning(kind=ExampleKind.RETRY)
    reference = receipt_reference(operation, document)
    failure = receipt_failure(operation, document)
    if failure is not None:
        return Meaning(
            kind=ExampleKind.FAILURE,
            reference=reference,
            reason=failure.reason,
            code=failure.code,
            retryable=False,
        )
    if not is_receipt(operation, status, document):
        return _not_accepted(operation, status, document)
    if operation.response.mode == "sync":
        message = classify(operation, document, "answer", MessageSource.SYNC, _AT)
        if message is None:
            raise UnreadableExampleError(
                "the answer is neither a success nor a failure; see response.success"
            )
        return _meaning_of(message)
    data = receipt_data(operation, document)
    final = receipt_response(operation, document, "answer", _AT)
    if final is not None:
        return _meaning_of(final).model_copy(update={"data": data})
    return Meaning(kind=ExampleKind.RECEIPT, reference=reference, data=data)


def _read_status(operation: Operation, status: int, document: dict[str, Any]) -> Meaning:
    if operation.response.status is None:
        raise UnreadableExampleError("the operation has no status request; see response.status")
    message = classify(operation, document, "answer", MessageSource.STATUS, _AT)
    if message is not None:
        return _meaning_of(message)
    is_retried = is_retryable_status(status)
    return Meaning(kind=ExampleKind.RETRY if is_retried else ExampleKind.PENDING)


def _read_result(operation: Operation, status: int, document: dict[str, Any]) -> Meaning:
    if operation.response.result is None:
        raise UnreadableExampleError("nothing asks for a result; see response.result")
    if 200 <= status < 300:
        return Meaning(kind=ExampleKind.SUCCESS, response=result_data(operation, document))
    if status in _RESULT_MAY_FOLLOW:
        return Meaning(kind=ExampleKind.RETRY)
    return _not_accepted(operation, status, document)


def _read_acknowledged(operation: Operation, status: int, document: dict[str, Any]) -> Meaning:
    if accepts_acknowledgement(operation, document):
        return Meaning(kind=ExampleKind.ACCEPTED)
    return _not_accepted(operation, status, document)


def _not_accepted(operation: Operation, status: int, document: dict[str, Any]) -> Meaning:
    if is_retryable_status(status):
        return Meaning(kind=ExampleKind.RETRY)
    said = refusal(operation, document)
    return Meaning(kind=ExampleKind.REFUSED, reason=said.reason, code=said.code)


def read_event_document(
    integration: Integration, document: dict[str, Any], operation: str | None
) -> Reading:
    """What the file makes of one event.

    Args:
        operation: that it is for, where several can read it.

    Raises:
        UnreadableExampleError: nothing.
    """
    if integration.callbacks is None:
        raise UnreadableExampleError("the file has no callbacks")
    ignore = integration.callbacks.ignore
    if ignore is not None and ignore.holds(document):
        return Reading(None, Meaning(kind=ExampleKind.IGNORED))
    try:
        event_key = event_key_of(integration, document)
        event = read_event(integration, event_key, document, _AT, _REDACTOR)
    except InvalidInputError as error:
        raise UnreadableExampleError(f"{error}; see callbacks.event_key") from None
    except ValueError as error:
        raise UnreadableExampleError(str(error)) from None
    if not event.interpretations:
        for name, rule in integration.callbacks.events.items():
            if rule.when.holds(document):
                meaning = Meaning(kind=ExampleKind.EVENT, event=name, event_key=event_key)
                return Reading(None, meaning)
    return _reading_of(event, operation)


def _reading_of(event: InboundEvent, wanted: str | None) -> Reading:
    """The event as the wanted operation reads it, or else the first one that can."""
    key = {"event_key": event.event_key}
    interpretations = sorted(event.interpretations, key=lambda one: one.match.operation != wanted)
    for one in interpretations[:1]:
        known = {**key, "call_id": one.match.call_id, "reference": one.match.reference}
        meaning = _meaning_of(one.message).model_copy(update=known)
        return Reading(one.match.operation, meaning)
    for match in sorted(event.matches, key=lambda one: one.operation != wanted)[:1]:
        known = {**key, "call_id": match.call_id, "reference": match.reference}
        pending = Meaning.model_validate({"kind": ExampleKind.PENDING, **known})
        return Reading(match.operation, pending)
    return Reading(None, Meaning.model_validate({"kind": ExampleKind.UNMATCHED, **key}))


def _meaning_of(message: ProviderMessage) -> Meaning:
    kind = _KINDS[message.kind]
    shared: dict[str, Any] = {"kind": kind, "reference": message.reference}
    match message.kind:
        case MessageKind.RESPONSE:
            shared["response"] = message.data
        case MessageKind.FAILURE:
            shared |= {"reason": message.reason, "code": message.code}
            shared["retryable"] = message.retryable
        case MessageKind.EXTENSION:
            shared |= {"until": message.until, "by": message.extend_by}
    return Meaning.model_validate(shared)


def _differences(example: Example, readings: tuple[Reading, ...]) -> Iterator[FieldProblem]:
    if len(readings) != len(example.means):
        message = f"says {len(example.means)} event(s); the file reads {len(readings)}"
        yield FieldProblem(("means",), message)
        return
    for index, (said, reading) in enumerate(zip(example.means, readings, strict=True)):
        at: FieldPath = ("means", index)
        yield from _compare(example.operation_of(said), said, reading, at)


def _compare(
    operation: str | None, said: Meaning, reading: Reading, at: FieldPath
) -> Iterator[FieldProblem]:
    read = reading.meaning
    if operation not in (None, reading.operation) and reading.operation is not None:
        yield FieldProblem(at, f"is for {operation}; the file reads it for {reading.operation}")
    if said.kind is not read.kind:
        see = _responsible(operation or reading.operation, said.kind)
        yield FieldProblem(
            (*at, "kind"), f"is {said.kind}; the file reads it as {read.kind}; see {see}"
        )
        return
    for name in sorted(said.model_fields_set - {"kind", "operation"}):
        wanted, found = _plain(said, name), _plain(read, name)
        if wanted != found:
            yield FieldProblem((*at, name), f"is {wanted}; the file reads {found}")


def _plain(meaning: Meaning, name: str) -> str:
    """The value of a field as JSON, in which 1, 1.0 and true differ."""
    value = meaning.model_dump(mode="json", include={name})[name]
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_FIELDS = {
    ExampleKind.RECEIPT: "receipt",
    ExampleKind.REFUSED: "receipt.accept",
    ExampleKind.RETRY: "receipt",
    ExampleKind.SUCCESS: "response.success",
    ExampleKind.FAILURE: "response.failure",
    ExampleKind.EXTENSION: "response.extension",
    ExampleKind.PENDING: "response",
    ExampleKind.ACCEPTED: "acknowledge.accept",
    ExampleKind.DOORBELL: "response.fetch",
}


def _responsible(operation: str | None, kind: ExampleKind) -> str:
    """The field that decides whether a message is of a kind."""
    if kind in _FIELDS:
        return f"operations.{operation}.{_FIELDS[kind]}"
    return "callbacks"


class _RemovedSecrets(Secrets):
    """What recorded requests have in place of secrets."""

    def resolve(self, ref: str) -> str:  # noqa: ARG002 -- the same for all
        return REMOVED


_REMOVED_SECRETS = _RemovedSecrets({}, Path())


def _wrong_request(integration: Integration, example: Example) -> Iterator[FieldProblem]:
    """Where the file's request for the call differs from the recorded one."""
    call, recorded, answer = example.call, example.request, example.answer
    if call is None or recorded is None or answer is None or example.operation is None:
        return
    request = CallRequest(
        provider=integration.provider,
        operation=example.operation,
        key=call.key,
        payload=call.payload,
        metadata=call.metadata,
    )
    operation = integration.operations[example.operation]
    known = {name: getattr(call, name) for name in ("reference", "kept", "response", "reason")}
    context = {**template_context(request), **known}
    _REMOVED_SECRETS.use_in_task()
    try:
        rendered = _render(integration, operation, answer.to, context)
        if rendered is not None and integration.hook is not None:
            rendered = apply_hook(integration, rendered, context, _REMOVED_SECRETS)
    except InvalidInputError as error:
        yield FieldProblem(("call",), f"the file cannot make a request of it: {error}")
        return
    if rendered is None:
        yield FieldProblem(("request",), "the file sends no such request")
        return
    for name, wanted, found in _parts_of_request(recorded, rendered):
        if wanted != found:
            at = ("request", *name)
            yield FieldProblem(at, f"is {_text(wanted)}; the file sends {_text(found)}")


def _render(
    integration: Integration, operation: Operation, to: str, context: dict[str, Any]
) -> OutboundRequest | None:
    match to:
        case "request":
            return render_request(integration, operation, context)
        case "status":
            return render_status(integration, operation, context)
        case "result":
            return render_result(integration, operation, context)
        case _:
            return render_acknowledgement(integration, operation, to, context)


def _parts_of_request(
    recorded: RequestExample, rendered: OutboundRequest
) -> Iterator[tuple[FieldPath, Any, Any]]:
    url = urlsplit(rendered.url)
    yield ("method",), recorded.method, rendered.method
    yield ("path",), recorded.path, url.path + (f"?{url.query}" if url.query else "")
    sent = {name.lower(): value for name, value in rendered.headers.items()}
    for name, value in recorded.headers.items():
        yield ("headers", name), value, sent.get(name.lower())
    if recorded.model_fields_set & {"body", "text", "base64"}:
        field = "body" if "body" in recorded.model_fields_set else "text"
        yield (field,), _content(recorded.raw), _content(rendered.content or b"")


def _content(raw: bytes) -> Any:
    """A JSON document, or the text."""
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")


def _text(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _forged(integration: Integration, delivery: DeliveryExample) -> Iterator[FieldProblem]:
    """Why the file's verification rejects a delivery that says how it is verified."""
    callbacks, verify = integration.callbacks, delivery.verify
    if callbacks is None or verify is None:
        return
    verifier = build_verifier(callbacks.verify, ExampleSecrets(verify.secrets), lambda: verify.at)
    try:
        verifier.verify(delivery.lower_headers, delivery.raw)
    except (SignatureError, SecretError) as error:
        message = f"the file's callbacks.verify rejects the delivery: {error}"
        yield FieldProblem(("delivery", "verify"), message)
