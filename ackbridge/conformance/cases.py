"""One operation of an integration file under test: its payloads, and what can be simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.catalog.catalog import check_payload
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.matching import find_event_key, is_receipt
from ackbridge.catalog.model import UNKNOWN, HttpRequest, Integration, Operation
from ackbridge.catalog.rendering import render_request
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.conformance.solver.solve import CannotSimulateError
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, Effect, OutcomeCode
from ackbridge.contracts.plan import OnFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.sandbox.provider_dialect import IncomingRequest

from .request_matching import request_text
from .sample_messages import MessageRequest, SampleMessages
from .sample_payloads import NoSampleError, generate_payloads

_SAMPLE_KEY = "sample-key-1"
_MARK = "400000001"
_REFUSALS = (422, 400, 403, 404, 409, 410)
_DEFINITIVE = (OutcomeCode.REFUSED, OutcomeCode.PROVIDER_FAILED)


class PayloadRequiredError(Exception):
    """No payload can be generated for an operation; the text says why."""


@dataclass(frozen=True)
class Case:
    """One operation, and payloads for it, which are valid and distinct."""

    integration: Integration
    name: str
    payloads: Sequence[Any]
    _skip_reasons: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

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

    @property
    def identifies_call(self) -> bool:
        """Whether its requests contain the call id or the key."""
        text, request = self._request_text, self.request(_SAMPLE_KEY)
        return request.call_id in text or request.key in text

    @property
    def identifies_cycle(self) -> bool:
        """Whether its requests contain the idempotency key."""
        return names.idempotency_key(self.request(_SAMPLE_KEY).call_id, 1) in self._request_text

    @property
    def refusal(self) -> int | None:
        """A status that is a refusal; None where every reply is a receipt."""
        document = {"error": {"message": "no"}, "headers": {}, "query": {}}
        return next(
            (
                status
                for status in _REFUSALS
                if not is_receipt(self.operation, status, {**document, "status": status})
            ),
            None,
        )

    def request(self, key: str, payload: int = 0) -> CallRequest:
        return CallRequest(
            provider=self.integration.provider,
            operation=self.name,
            key=key,
            payload=self.payloads[payload],
        )

    def skip_reason(self, *messages: str) -> str | None:
        """Why one of these messages of the provider cannot be simulated; None if all can."""
        for name in messages:
            if name not in self._skip_reasons:
                self._skip_reasons[name] = self._try_message(name)
        return next(filter(None, (self._skip_reasons[name] for name in messages)), None)

    def has_key_for_empty_callback(self) -> bool:
        document: dict[str, Any] = {"body": {}, "headers": {}, "query": {}}
        return find_event_key(self.integration, document) is not None

    @property
    def _request_text(self) -> str:
        outbound = render_request(
            self.integration, self.operation, template_context(self.request(_SAMPLE_KEY))
        )
        path, _, query = outbound.url.partition("?")
        return request_text(
            IncomingRequest(outbound.method, path, query, outbound.headers, outbound.content or b"")
        )

    def _try_message(self, name: str) -> str | None:
        try:
            _MESSAGES[name](SampleMessages(self.integration, self.name), self.request(_SAMPLE_KEY))
        except CannotSimulateError as error:
            return f"cannot be simulated: {error}"
        return None


def make_case(integration: Integration, name: str, given: Any = None) -> Case:
    """A case with generated payloads; `given`, if not None, comes first.

    Raises:
        PayloadRequiredError: none can be generated with which the request can be rendered.
        InvalidInputError: the given one is not valid.
    """
    operation = integration.operations[name]
    if given is not None:
        check_payload(operation, given)
        return Case(integration, name, [given, *_generate_payloads(operation, besides=given)])
    try:
        payloads = _generate_payloads(operation)
    except NoSampleError as error:
        raise PayloadRequiredError(f"no payload could be generated ({error})") from None
    problem = ""
    rendered = []
    for payload in payloads:
        case = Case(integration, name, [payload])
        try:
            render_request(integration, operation, template_context(case.request(_SAMPLE_KEY)))
        except InvalidInputError as error:
            problem = problem or str(error)
        else:
            rendered.append(payload)
    if not rendered:
        raise PayloadRequiredError(f"no generated payload fits the request ({problem})")
    return Case(integration, name, rendered)


def template_context(request: CallRequest, cycle: int = 1) -> dict[str, Any]:
    return {
        "payload": request.payload,
        "metadata": {},
        "call": {
            "id": request.call_id,
            "provider": request.provider,
            "operation": request.operation,
            "key": request.key,
            "cycle": cycle,
            "idempotency_key": names.idempotency_key(request.call_id, cycle),
        },
        "callback_url": f"http://127.0.0.1/callbacks/{request.provider}",
        "reference": None,
        "response": None,
        "reason": None,
    }


def _generate_payloads(operation: Operation, besides: Any = None) -> list[Any]:
    if operation.payload_schema is not None:
        try:
            return [p for p in generate_payloads(operation.payload_schema, 6) if p != besides]
        except NoSampleError:
            if besides is None:
                raise
            return []
    if besides is not None:
        return []
    # Without a schema, every field that a template reads is a text.
    fields = {name[1] for name in _names(operation) if name[0] == "payload" and len(name) > 1}
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
