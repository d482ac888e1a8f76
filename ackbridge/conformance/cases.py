"""One operation of an integration file under test: its payloads, and what can be simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from ackbridge.catalog.catalog import check_payload
from ackbridge.catalog.examples import Example, ExampleKind
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.matching import find_event_key
from ackbridge.catalog.model import UNKNOWN, HttpRequest, Integration, Operation
from ackbridge.catalog.rendering import OutboundRequest, render_request
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.contracts.calls import CallRequest, Effect, OutcomeCode
from ackbridge.contracts.plan import OnFailure
from ackbridge.contracts.wire import InvalidInputError

from .message import Message
from .readings import UnreadableExampleError, read_answer
from .sample_messages import ERROR, MessageRequest, NoExampleError, SampleMessages
from .sample_payloads import NoSampleError, generate_payloads, vary
from .template_context import template_context

_SAMPLE_KEY = "sample-key-1"
_MARK = "400000001"
_PAYLOADS = 6
_REFUSALS = (422, 400, 403, 404, 409, 410)
_REFUSED = ExampleKind.REFUSED
_DEFINITIVE = (OutcomeCode.REFUSED, OutcomeCode.PROVIDER_FAILED)


class PayloadRequiredError(Exception):
    """No payload can be generated for an operation; the text says why."""


@dataclass(frozen=True)
class Case:
    """One operation, and payloads for it, which are valid and distinct."""

    integration: Integration
    name: str
    payloads: Sequence[Any]
    samples: SampleMessages
    _missing: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def operation(self) -> Operation:
        return self.integration.operations[self.name]

    @property
    def mode(self) -> str:
        """`callback`, `poll` or `sync`."""
        return self.operation.response.mode

    def parks(self, code: OutcomeCode, effect: Effect) -> bool:
        """Whether a call that cannot finish is parked, by why it cannot and its effect."""
        codes = self.operation.parked_codes
        if codes is not None:
            return code in codes or (effect is Effect.UNKNOWN and UNKNOWN in codes)
        is_definitive = code in _DEFINITIVE and effect is Effect.NONE
        return self.operation.on_failure is OnFailure.PARK and not is_definitive

    @property
    def is_repeatable(self) -> bool:
        """Whether a request that may have arrived may be sent again."""
        return self.operation.request.is_repeatable

    @property
    def calls_off(self) -> bool:
        """Whether an accepted failed acknowledgement calls the work off."""
        acknowledge = self.operation.acknowledge
        return acknowledge is not None and acknowledge.undoes and self.acknowledges("failed")

    @property
    def effect_when_silent(self) -> Effect:
        """The effect of a call whose provider accepts everything and never responds."""
        return Effect.NONE if self.calls_off else Effect.UNKNOWN

    @property
    def rounds(self) -> int:
        """How often a request is sent whose provider accepts everything and never responds."""
        return self.operation.response.cycles if self.calls_off or self.is_repeatable else 1

    @property
    def deadline(self) -> timedelta:
        deadline = self.operation.response.deadline
        return min(deadline.initial, deadline.ceiling)

    def acknowledges(self, verdict: str) -> bool:
        acknowledge = self.operation.acknowledge
        return acknowledge is not None and getattr(acknowledge, verdict) is not None

    @cached_property
    def identifies_call(self) -> bool:
        """Whether the requests of two calls with the same payload differ."""
        return self._rendered(_SAMPLE_KEY, 1) != self._rendered(f"{_SAMPLE_KEY}-other", 1)

    @cached_property
    def identifies_cycle(self) -> bool:
        """Whether the requests of two cycles differ, by their idempotency keys."""
        return self._rendered(_SAMPLE_KEY, 1) != self._rendered(_SAMPLE_KEY, 2)

    @cached_property
    def refusal(self) -> int | None:
        """A status that is a refusal; None where every reply is something else."""
        recorded = self.samples.refusal()
        if recorded is not None:
            return recorded.status
        return next(filter(self._refuses, _REFUSALS), None)

    def _refuses(self, status: int) -> bool:
        document = Message(status, body=ERROR).document
        try:
            return read_answer(self.operation, "request", status, document).kind is _REFUSED
        except UnreadableExampleError:
            return False

    def request(self, key: str, payload: int = 0) -> CallRequest:
        return CallRequest(
            provider=self.integration.provider,
            operation=self.name,
            key=key,
            payload=self.payloads[payload],
        )

    def missing(self, *messages: str) -> str | None:
        """Why the provider cannot send one of these messages; None if it can send all."""
        for name in messages:
            if name not in self._missing:
                self._missing[name] = self._try_message(name)
        return next(filter(None, (self._missing[name] for name in messages)), None)

    def has_key_for_empty_callback(self) -> bool:
        document: dict[str, Any] = {"body": {}, "headers": {}, "query": {}}
        return find_event_key(self.integration, document) is not None

    def _rendered(self, key: str, cycle: int) -> OutboundRequest:
        context = template_context(self.request(key), cycle)
        return render_request(self.integration, self.operation, context)

    def _try_message(self, name: str) -> str | None:
        try:
            _MESSAGES[name](self.samples, self.request(_SAMPLE_KEY))
        except NoExampleError as error:
            return f"cannot be played: {error}"
        return None


def make_case(
    integration: Integration, name: str, examples: Sequence[Example] = (), given: Any = None
) -> Case:
    """A case whose payloads are those of the examples, and variations or small ones.

    Args:
        given: a payload that comes first, if it is not None.

    Raises:
        PayloadRequiredError: there is none with which the request can be rendered.
        InvalidInputError: the given one is not valid.
    """
    operation = integration.operations[name]
    samples = SampleMessages(integration, name, examples)
    calls = (one.call for one in examples if one.call and one.operation == name)
    known = [call.payload for call in calls if "payload" in call.model_fields_set]
    if given is not None:
        check_payload(operation, given)
        known.insert(0, given)
    known = [one for index, one in enumerate(known) if one not in known[:index]]
    problem, payloads = "", []
    if operation.payload_schema is not None and len(known) < 2:
        try:
            known += [*vary(known[:1], operation.payload_schema)]
            known += [] if known else generate_payloads(operation.payload_schema, _PAYLOADS)
        except NoSampleError as error:
            problem = str(error)
    elif operation.payload_schema is None:
        known += _payloads_of_templates(operation)
    for payload in known:
        case = Case(integration, name, [payload], samples)
        try:
            check_payload(operation, payload)
            render_request(integration, operation, template_context(case.request(_SAMPLE_KEY)))
        except InvalidInputError as error:
            problem = problem or str(error)
        else:
            payloads += [] if payload in payloads else [payload]
    if not payloads:
        raise PayloadRequiredError(f"no payload is known that fits the request ({problem})")
    return Case(integration, name, payloads, samples)


def _payloads_of_templates(operation: Operation) -> list[Any]:
    """Without a schema, every field that a template reads is a text."""
    names = [name for name in _names(operation) if name[0] == "payload"]
    fields = {name[1] for name in names if len(name) > 1}
    if names and not fields:
        fields = {"made_up"}  # the payload as a whole is sent
    return [dict.fromkeys(sorted(fields), text) for text in ("made-up", "something-else")]


def _names(operation: Operation) -> Iterator[tuple[str, ...]]:
    request, status, acknowledge = (
        operation.request,
        operation.response.status,
        operation.acknowledge,
    )
    sent: list[HttpRequest | None] = [request, status]
    if acknowledge is not None:
        sent += [acknowledge.request("success"), acknowledge.request("failed")]
    yield from _names_in([one.expressions for one in sent if one is not None])


def _names_in(template: Any) -> Iterator[tuple[str, ...]]:
    match template:
        case Expression():
            yield from template.referenced_names()
        case Template():
            yield from _names_in(template.expressions)
        case BodyTemplate():
            yield from _names_in(template.content)
        case dict():
            yield from _names_in(list(template.values()))
        case list() | tuple():
            for one in template:
                yield from _names_in(one)


def _callback(message: MessageRequest) -> Callable[[SampleMessages, CallRequest], object]:
    def compose(samples: SampleMessages, request: CallRequest) -> object:
        return samples.callback(message, call_id=request.call_id, reference=_MARK, mark=_MARK)

    return compose


_FUTURE = datetime(2030, 1, 1, tzinfo=UTC)
_RETRYABLE = MessageRequest("failed", retryable=True)
_MESSAGES: Mapping[str, Callable[[SampleMessages, CallRequest], object]] = {
    "receipt": lambda samples, _: samples.receipt(_MARK),
    "receipt.final": lambda samples, _: samples.final_receipt(_MARK),
    "callback.completed": _callback(MessageRequest("completed")),
    "callback.failed": _callback(MessageRequest("failed")),
    "callback.failed_again": _callback(_RETRYABLE),
    "callback.extended": _callback(MessageRequest("extended", until=_FUTURE)),
    "status.processing": lambda samples, _: samples.status(_MARK, MessageRequest("processing")),
    "status.completed": lambda samples, _: samples.status(_MARK, MessageRequest("completed")),
    "status.failed": lambda samples, _: samples.status(_MARK, MessageRequest("failed")),
    "status.failed_again": lambda samples, _: samples.status(_MARK, _RETRYABLE),
    "sync.completed": lambda samples, _: samples.sync(_MARK, MessageRequest("completed")),
    "sync.failed": lambda samples, _: samples.sync(_MARK, MessageRequest("failed")),
    "sync.failed_again": lambda samples, _: samples.sync(_MARK, _RETRYABLE),
}
