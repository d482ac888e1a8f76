"""Messages of a provider for each situation, in the shapes of its recorded examples.

An example is sent as it was recorded, with the ids of the call and of the work, the event key and
the times replaced. Where an operation has no example of a kind, a message is made up if that is
trivial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal

from ackbridge.catalog.examples import Example, ExampleKind, Meaning
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.matching import find_event_key, receipt_reference
from ackbridge.catalog.model import Integration, Operation
from ackbridge.contracts.wire import InvalidInputError

from .made_up import fill, make_true, wrap_event
from .message import (
    Message,
    keep_only,
    moments,
    relocate,
    renew,
    replace_id,
    replace_time,
    spans,
)
from .readings import (
    Reading,
    UnreadableExampleError,
    event_documents,
    read_answer,
    read_event_document,
    read_example,
)

JobStatus = Literal["processing", "completed", "failed", "extended"]
"""The status of a job, or what a message says of it."""

_KINDS: Mapping[JobStatus, ExampleKind] = {
    "processing": ExampleKind.PENDING,
    "completed": ExampleKind.SUCCESS,
    "failed": ExampleKind.FAILURE,
    "extended": ExampleKind.EXTENSION,
}
ERROR: Final = {"error": {"message": "no such luck"}}
"""The body of errors for which there is no example."""

_CLOSE = timedelta(seconds=2)
"""Providers write times in whole seconds."""


class NoExampleError(Exception):
    """There is no message for a situation; the text says which example is missing."""


@dataclass(frozen=True)
class MessageRequest:
    """What a message says; an extension ends at `until`, `seconds` from now."""

    status: JobStatus
    retryable: bool = False
    until: datetime | None = None
    seconds: int = 60

    @property
    def kind(self) -> ExampleKind:
        return _KINDS[self.status]


@dataclass(frozen=True)
class _Sample:
    """A recorded message of one operation, and what the file makes of it."""

    source: str  # `callback`, or what is answered
    meaning: Meaning
    message: Message


class SampleMessages:
    """The messages of one operation. All methods raise `NoExampleError`."""

    def __init__(
        self,
        integration: Integration,
        name: str,
        examples: Sequence[Example],
        move: Callable[[str], str] = str,
    ) -> None:
        """Messages of an operation; `move` gives a URL of the provider its simulated address."""
        self._integration = integration
        self._name = name
        self._operation: Operation = integration.operations[name]
        self._samples = [
            sample for example in examples for sample in _samples(integration, name, example)
        ]
        for sample in self._samples:
            relocate(sample.message, move)

    @cached_property
    def can_fail(self) -> bool:
        """Whether a callback can say that the provider failed, or only that there is something."""
        if self._operation.response.fetch:
            return True
        try:
            self._find("callback", ExampleKind.FAILURE, retryable=False)
        except NoExampleError:
            return False
        return True

    def receipt(self, mark: str) -> Message:
        """A receipt, with a reference of its own."""
        return self._with_reference(self._find("request", ExampleKind.RECEIPT), mark)

    def sync(self, mark: str, wanted: MessageRequest) -> Message:
        """The response in `sync` mode, which is a receipt in any case."""
        message = self._find("request", wanted.kind, retryable=wanted.retryable)
        return self._with_reference(message, mark)

    def status(self, reference: str | None, wanted: MessageRequest) -> Message:
        """An answer to a status request."""
        message = self._find("status", wanted.kind, retryable=wanted.retryable)
        read = _reads(self._operation.receipt.reference)
        if reference is not None:
            # A provider may repeat its own id, which is read from here too.
            replace_id(message, read, reference)
        return self._with_times(message, self._status_rule("extension"), wanted)

    def callback(
        self,
        wanted: MessageRequest,
        *,
        call_id: str,
        reference: str | None,
        mark: str,
        query: Mapping[str, str] | None = None,
    ) -> Message:
        """A callback with an event key of its own; `query` is that of the callback URL."""
        kind = ExampleKind.DOORBELL if self._operation.response.fetch else wanted.kind
        message = self._find("callback", kind, retryable=wanted.retryable)
        message.query.update(query or {})
        match = self._operation.response.match
        self._replace(message, "response.match.call_id", match.call_id, call_id)
        if reference is not None:
            field, expression = "response.match.reference", match.reference
            is_needed = match.call_id is None
            self._replace(message, field, expression, reference, is_needed=is_needed)
        message = self._with_times(message, self._operation.response.extension, wanted)
        return self._with_event_key(message, kind, mark)

    def final_receipt(self, mark: str) -> Message:
        """A receipt that is the response already, by `receipt.success`."""
        return self._with_reference(self._find("request", ExampleKind.SUCCESS), mark)

    def result(self, reference: str | None) -> Message:
        """An answer to the request for the result."""
        message = self._find("result", ExampleKind.SUCCESS)
        if reference is not None:
            replace_id(message, _reads(self._operation.receipt.reference), reference)
        return message

    def refusal(self) -> Message | None:
        """A recorded refusal of the request, if there is one."""
        return self._recorded("request", ExampleKind.REFUSED, None)

    def acknowledged(self, verdict: str) -> Message:
        """An answer that accepts an acknowledgement."""
        recorded = self._recorded(verdict, ExampleKind.ACCEPTED, None)
        return recorded or Message(200, {"content-type": "application/json"}, {}, {})

    def error(self, status: int) -> Message:
        """A recorded answer to the request with this status, or else one that is made up."""
        kinds = (ExampleKind.REFUSED, ExampleKind.RETRY)
        found = (one for one in self._samples if one.meaning.kind in kinds)
        for sample in found:
            if sample.source == "request" and sample.message.status == status:
                return sample.message.copy()
        return Message(status, {"content-type": "application/json"}, {}, ERROR)

    def _find(self, source: str, kind: ExampleKind, *, retryable: bool | None = None) -> Message:
        """A message of a kind, which may be changed.

        Args:
            retryable: of a failure: whether the operation may be sent again.
        """
        if kind is not ExampleKind.FAILURE:
            retryable = None
        message = self._recorded(source, kind, retryable)
        if message is None:
            message = self._made_up(source, kind, retryable=bool(retryable))
        if message is None:
            raise NoExampleError(self._missing(source, kind, retryable))
        return message

    def _recorded(self, source: str, kind: ExampleKind, retryable: bool | None) -> Message | None:
        found = (one for one in self._samples if (one.source, one.meaning.kind) == (source, kind))
        right = (one for one in found if retryable in (None, one.meaning.retryable))
        sample = next(right, None)
        return sample.message.copy() if sample else None

    def _made_up(self, source: str, kind: ExampleKind, *, retryable: bool) -> Message | None:
        if self._integration.code.read is not None:
            return None  # what the hook reads is nobody's guess
        message = Message(None if source == "callback" else 200, {}, {}, {})
        if source == "callback":
            self._make_delivery(message)
        if kind is ExampleKind.PENDING:
            # What no rule explains means: not yet.
            message.status = 404
        if kind is ExampleKind.FAILURE and (rule := self._rule(source, "failure")) is not None:
            make_true(message, rule.when)
            if retryable:
                make_true(message, rule.retryable)
            fill(message, rule.reason, "out of stock")
        elif kind is ExampleKind.EXTENSION and (rule := self._rule(source, "extension")):
            make_true(message, rule.when)
            fill(message, rule.until, "2030-01-01T00:00:00+00:00")
            fill(message, rule.by, 60)
        elif kind is ExampleKind.SUCCESS and (success := self._rule(source, "success")):
            make_true(message, success)
        if kind is ExampleKind.SUCCESS:
            fill(message, self._operation.response.data)
        self._fill_ids(message, source)
        each = self._integration.callbacks.each if self._integration.callbacks else None
        if source == "callback" and each is not None and not wrap_event(message, each):
            return None
        meaning = self._read(source, message)
        if meaning is None or meaning.kind is not kind or not self._has_ids(source, meaning):
            return None
        is_other = kind is ExampleKind.FAILURE and bool(meaning.retryable) is not retryable
        return None if is_other else message

    def _has_ids(self, source: str, meaning: Meaning) -> bool:
        match = self._operation.response.match
        if source == "callback":
            return (meaning.call_id if match.call_id else meaning.reference) is not None
        is_needed = source == "request" and self._operation.receipt.reference is not None
        return meaning.reference is not None or not is_needed

    def _make_delivery(self, message: Message) -> None:
        """In the encoding of callbacks; only where the whole body is the event."""
        callbacks = self._integration.callbacks
        if callbacks is not None and callbacks.encoding != "json":
            message.encoding = callbacks.encoding
            if callbacks.encoding == "query":
                message.method = "GET"

    def _fill_ids(self, message: Message, source: str) -> None:
        if source == "request":
            fill(message, self._operation.receipt.reference)
        elif source == "callback":
            match, callbacks = self._operation.response.match, self._integration.callbacks
            fill(message, match.call_id, f"{self._integration.provider}.{self._name}.made-up")
            fill(message, match.reference)
            fill(message, callbacks.event_key if callbacks else None)

    def _rule(self, source: str, name: str) -> Any:
        """The expression or rule that decides whether a message is a success, a failure, ..."""
        if source == "status":
            return self._status_rule(name)
        if source == "request" and self._operation.response.mode != "sync":
            return getattr(self._operation.receipt, name, None)
        return getattr(self._operation.response, name, None)

    def _status_rule(self, name: str) -> Any:
        """The status request's own rule, or else that of the response."""
        response = self._operation.response
        own = getattr(response.status, name) if response.status else None
        return own or getattr(response, name)

    def _read(self, source: str, message: Message) -> Meaning | None:
        """What the file makes of a message; None if that is nothing for this operation."""
        try:
            return self._reading(source, message).meaning
        except (UnreadableExampleError, IndexError):
            return None

    def _reading(self, source: str, message: Message) -> Reading:
        if source == "callback":
            event = self.event_document(message)
            return read_event_document(self._integration, event, self._name)
        document = message.document
        status = message.status or 200
        return Reading(self._name, read_answer(self._operation, source, status, document))

    def _with_reference(self, message: Message, mark: str) -> Message:
        """With a reference of its own, where the file reads one from it."""
        expression = self._operation.receipt.reference
        if expression is None:
            return message
        kind = self._kind("request", message)
        old = receipt_reference(self._operation, message.document)
        renew(message, _reads(expression), mark, lambda one: self._kind("request", one) == kind)
        if receipt_reference(self._operation, message.document) in (None, old):
            field = self._field("receipt.reference")
            raise NoExampleError(f"{field}: {expression} is no id of its own in every answer")
        return message

    def _with_event_key(self, message: Message, kind: ExampleKind, mark: str) -> Message:
        callbacks = self._integration.callbacks
        if callbacks is None or callbacks.event_key is None:
            return message
        expression = callbacks.event_key
        before = self._identity(message)
        old = self._event_key(message)

        def is_kept(one: Message) -> bool:
            return self._identity(one) == before

        recorded = self._recorded("callback", kind, None)
        renew(message, self._event_key, mark, is_kept)
        first = self._event_key(recorded) if recorded else old
        if self._event_key(message) in (None, first):
            raise NoExampleError(
                f"callbacks.event_key: {expression} is the same in every {kind} of {self._name},"
                " so that the second one is a duplicate"
            )
        return message

    def event_document(self, message: Message) -> dict[str, Any]:
        """What expressions see of the only event of a delivery."""
        callbacks = self._integration.callbacks
        return event_documents(callbacks, message.document)[0] if callbacks else message.document

    def _event_key(self, message: Message) -> str | None:
        try:
            return find_event_key(self._integration, self.event_document(message))
        except (UnreadableExampleError, IndexError):
            return None

    def _reads_event(self, expression: Expression) -> Callable[[Message], Any]:
        def read(message: Message) -> Any:
            try:
                return expression.search(self.event_document(message))
            except (UnreadableExampleError, IndexError):
                return None

        return read

    def _identity(self, message: Message) -> tuple[object, ...]:
        """What must not change when the event key is replaced."""
        meaning = self._read("callback", message)
        if meaning is None:
            return ()
        return meaning.kind, meaning.call_id, meaning.reference, meaning.retryable

    def _with_times(self, message: Message, rule: Any, wanted: MessageRequest) -> Message:
        if wanted.status != "extended" or rule is None:
            return message
        if rule.until is not None and wanted.until is not None:
            until = wanted.until.replace(microsecond=0)
            read_until = self._reads_event(rule.until)

            def ends_then(one: Message) -> bool:
                meaning = self._read("status" if one.status else "callback", one)
                found = meaning.until if meaning else None
                return found is not None and abs(found - until) < _CLOSE

            if not replace_time(message, read_until, ends_then, moments(until)):
                field = self._field("response.extension.until")
                raise NoExampleError(f"{field}: {rule.until} reads no time that could be replaced")
        if rule.by is not None:
            asked = timedelta(seconds=wanted.seconds)

            def takes_that(one: Message) -> bool:
                meaning = self._read("status" if one.status else "callback", one)
                return meaning is not None and meaning.by == asked

            read_by = self._reads_event(rule.by)
            replace_time(message, read_by, takes_that, spans(wanted.seconds))
        return message

    def _kind(self, source: str, message: Message) -> ExampleKind | None:
        meaning = self._read(source, message)
        return meaning.kind if meaning else None

    def _replace(
        self,
        message: Message,
        field: str,
        expression: Expression | None,
        new: str,
        *,
        is_needed: bool = True,
    ) -> None:
        if expression is None or replace_id(message, self._reads_event(expression), new):
            return
        if is_needed:
            raise NoExampleError(
                f"{self._field(field)}: {expression} reads no id that could be replaced"
            )

    def _missing(self, source: str, kind: ExampleKind, retryable: bool | None) -> str:
        what = {True: "retryable ", False: "final ", None: ""}[retryable]
        request = "request" if source == "request" else f"{source} request"
        where = "a delivery" if source == "callback" else f"an answer to the {request}"
        field = {
            ExampleKind.RECEIPT: "receipt",
            ExampleKind.FAILURE: "response.failure",
            ExampleKind.EXTENSION: "response.extension",
        }.get(kind, "response.status" if source == "status" else "response.success")
        return f"no example of {where} that is a {what}{kind} ({self._field(field)}); add one"

    def _field(self, field: str) -> str:
        return f"operations.{self._name}.{field}"


def _samples(integration: Integration, name: str, example: Example) -> Iterator[_Sample]:
    """The messages in an example that are for an operation."""
    try:
        readings = list(read_example(integration, example))
        if example.answer is not None and example.operation == name:
            message = Message.of_answer(example.answer, integration.code)
            yield _Sample(example.answer.to, readings[0].meaning, message)
        elif example.delivery is not None and integration.callbacks is not None:
            each, encoding = integration.callbacks.each, integration.callbacks.encoding
            for number, reading in enumerate(readings):
                if reading.operation == name:
                    message = Message.of_delivery(example.delivery, encoding, integration.code)
                    if each is not None and len(readings) > 1:
                        if message.encoding == "code":
                            continue  # only the hook could leave the other events out
                        keep_only(message, each, number)
                    yield _Sample("callback", reading.meaning, message)
    except (UnreadableExampleError, InvalidInputError):
        return  # `check` reports it


def _reads(expression: Expression | None) -> Callable[[Message], Any]:
    if expression is None:
        return lambda _message: None
    return lambda message: expression.search(message.document)
