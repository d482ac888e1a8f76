"""One operation of a file, as scenarios look at it: what it does, and what can be simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.catalog.catalog import check_payload
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.matching import find_event_key, is_receipt
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.rendering import render_request
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.conformance.solver.solve import CannotSimulateError
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.plan import OnFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.sandbox.provider_dialect import Incoming

from .request_routes import everything_said
from .sample_messages import MessageRequest, SampleMessages
from .sample_payloads import NoSampleError, make_payloads

_SAMPLE = "sample-key-1"
_MARK = "400000001"
_REFUSALS = (422, 400, 403, 404, 409, 410)


class PayloadRequiredError(Exception):
    """No payload can be made up for an operation; the text says why."""


@dataclass(frozen=True)
class Case:
    """One operation, and payloads for it.

    Attributes:
        name: of the operation.
        payloads: valid ones; all different.
    """

    integration: Integration
    name: str
    payloads: Sequence[Any]
    _possible: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def operation(self) -> Operation:
        """The operation."""
        return self.integration.operations[self.name]

    @property
    def mode(self) -> str:
        """How it is answered."""
        return self.operation.response.mode

    @property
    def parks(self) -> bool:
        """Whether a call that could not finish is parked."""
        return self.operation.on_failure is OnFailure.PARK

    @property
    def deadline(self) -> timedelta:
        """How long a response is awaited."""
        deadline = self.operation.response.deadline
        return min(deadline.initial, deadline.ceiling)

    def acknowledges(self, verdict: str) -> bool:
        """Whether the provider is told of this kind of end."""
        acknowledge = self.operation.acknowledge
        return acknowledge is not None and getattr(acknowledge, verdict) is not None

    @property
    def names_its_call(self) -> bool:
        """Whether a request says which call it is for."""
        said, request = self._said, self.request(_SAMPLE)
        return request.call_id in said or request.key in said

    @property
    def names_its_cycle(self) -> bool:
        """Whether a request carries the idempotency key."""
        return names.idempotency_key(self.request(_SAMPLE).call_id, 1) in self._said

    @property
    def refusal(self) -> int | None:
        """A status that is a refusal here; None when every answer is a receipt."""
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
        """A request for a call."""
        return CallRequest(
            provider=self.integration.provider,
            operation=self.name,
            key=key,
            payload=self.payloads[payload],
        )

    def obstacle(self, *needs: str) -> str | None:
        """Why something the provider would have to say cannot be simulated; None if it all can."""
        for need in needs:
            if need not in self._possible:
                self._possible[need] = self._why_not(need)
        return next((why for need in needs if (why := self._possible[need]) is not None), None)

    def knows_empty_callback(self) -> bool:
        """Whether `{}` has an event key."""
        document: dict[str, Any] = {"body": {}, "headers": {}, "query": {}}
        return find_event_key(self.integration, document) is not None

    @property
    def _said(self) -> str:
        outbound = render_request(
            self.integration, self.operation, context_of(self.request(_SAMPLE))
        )
        path, _, query = outbound.url.partition("?")
        return everything_said(
            Incoming(outbound.method, path, query, outbound.headers, outbound.content or b"")
        )

    def _why_not(self, need: str) -> str | None:
        try:
            _NEEDS[need](SampleMessages(self.integration, self.name), self.request(_SAMPLE))
        except CannotSimulateError as error:
            return f"cannot be simulated: {error}"
        return None


def make_case(integration: Integration, name: str, given: Any = None) -> Case:
    """Make up payloads for an operation.

    Args:
        given: a payload to use instead; None for none.

    Raises:
        PayloadRequiredError: there is none, or the request cannot be rendered with it.
        InvalidInputError: the given one is not valid.
    """
    operation = integration.operations[name]
    if given is not None:
        check_payload(operation, given)
        return Case(integration, name, [given, *_made_up(operation, besides=given)])
    try:
        payloads = _made_up(operation)
    except NoSampleError as error:
        raise PayloadRequiredError(f"no payload could be made up ({error})") from None
    complaint = ""
    rendered = []
    for payload in payloads:
        case = Case(integration, name, [payload])
        try:
            render_request(integration, operation, context_of(case.request(_SAMPLE)))
        except InvalidInputError as error:
            complaint = complaint or str(error)
        else:
            rendered.append(payload)
    if not rendered:
        raise PayloadRequiredError(f"made-up payloads do not fit the request ({complaint})")
    return Case(integration, name, rendered)


def context_of(request: CallRequest, cycle: int = 1) -> dict[str, Any]:
    """What templates see of a call."""
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


def _made_up(operation: Operation, besides: Any = None) -> list[Any]:
    if operation.payload_schema is not None:
        try:
            return [p for p in make_payloads(operation.payload_schema, 6) if p != besides]
        except NoSampleError:
            if besides is None:
                raise
            return []
    if besides is not None:
        return []
    # Without a schema everything that the templates read is a text.
    read = {name[1] for name in _names(operation) if name[0] == "payload" and len(name) > 1}
    return [dict.fromkeys(sorted(read), text) for text in ("made-up", "something-else")]


def _names(operation: Operation) -> Iterator[tuple[str, ...]]:
    """What the templates of an operation read."""
    request, status, acknowledge = (
        operation.request,
        operation.response.status,
        operation.acknowledge,
    )
    yield from _read_by([request.path, request.query, request.headers, request.body])
    if status is not None:
        yield from _read_by([status.path, status.query, status.headers])
    if acknowledge is not None:
        yield from _read_by([acknowledge.path, acknowledge.success, acknowledge.failed])


def _read_by(written: Any) -> Iterator[tuple[str, ...]]:
    match written:
        case Expression():
            yield from written.referenced_names()
        case Template():
            yield from _read_by(written.expressions)
        case BodyTemplate():
            yield from _read_by(written.content)
        case dict():
            yield from _read_by(list(written.values()))
        case list() | tuple():
            for one in written:
                yield from _read_by(one)


def _callback(telling: MessageRequest) -> Callable[[SampleMessages, CallRequest], object]:
    def compose(wording: SampleMessages, request: CallRequest) -> object:
        return wording.callback(telling, call_id=request.call_id, reference=_MARK, mark=_MARK)

    return compose


_SOON = datetime(2030, 1, 1, tzinfo=UTC)
_AGAIN = MessageRequest("failed", retryable=True)
_NEEDS: Mapping[str, Callable[[SampleMessages, CallRequest], object]] = {
    "receipt": lambda wording, _: wording.receipt(_MARK),
    "callback.completed": _callback(MessageRequest("completed")),
    "callback.failed": _callback(MessageRequest("failed")),
    "callback.failed_again": _callback(_AGAIN),
    "callback.extended": _callback(MessageRequest("extended", until=_SOON)),
    "status.processing": lambda wording, _: wording.status(_MARK, MessageRequest("processing")),
    "status.completed": lambda wording, _: wording.status(_MARK, MessageRequest("completed")),
    "status.failed": lambda wording, _: wording.status(_MARK, MessageRequest("failed")),
    "status.failed_again": lambda wording, _: wording.status(_MARK, _AGAIN),
    "sync.completed": lambda wording, _: wording.sync(_MARK, MessageRequest("completed")),
    "sync.failed": lambda wording, _: wording.sync(_MARK, MessageRequest("failed")),
    "sync.failed_again": lambda wording, _: wording.sync(_MARK, _AGAIN),
}
