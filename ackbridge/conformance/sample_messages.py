"""Messages of a provider for each situation, in the shapes that its integration file reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.matching import receipt_reference
from ackbridge.catalog.model import ExtensionRule, FailureRule, Integration, Operation
from ackbridge.conformance.solver.drafts import Path, ValueKind
from ackbridge.conformance.solver.solve import CannotSimulateError, Requirement, Shape, compose
from ackbridge.conformance.solver.targets import (
    Target,
    exactly,
    false,
    marked,
    one_of,
    something,
    text,
    true,
)

JobStatus = Literal["processing", "completed", "failed", "extended"]
"""The status of a job, or what a message says of it."""


@dataclass(frozen=True)
class MessageRequest:
    """What a message says; an extension ends at `until`, `seconds` from now."""

    status: JobStatus
    reason: str = "out of stock"
    retryable: bool = False
    until: datetime | None = None
    seconds: int = 60


_Rules = Mapping[str, tuple[str, Any]]
"""The rules that a message is read by (success, failure, ...), each with its field in the file."""


class SampleMessages:
    """The messages of one operation. All methods raise `CannotSimulateError`."""

    def __init__(self, integration: Integration, name: str) -> None:
        self._integration = integration
        self._name = name
        self._operation: Operation = integration.operations[name]

    @property
    def never_fails(self) -> bool:
        return self._operation.response.failure is None

    def receipt(self, mark: str) -> Shape:
        """A receipt, whose reference contains the digits `mark`."""
        return compose(list(self._reference(mark)), ValueKind.ANSWER, {("status",): 200})

    def sync(self, mark: str, message: MessageRequest) -> Shape:
        """The response in `sync` mode, which is a receipt in any case."""
        requirements = [*self._conditions(self._response_rules, message), *self._reference(mark)]
        preferences = self._preferences(self._response_rules, message)
        return _first_solution(
            lambda: compose(requirements, ValueKind.ANSWER, {("status",): 200}, preferences),
            lambda: compose(
                [*requirements, *self._accepted()], ValueKind.ANSWER, preferences=preferences
            ),
        )

    def status(self, reference: str | None, message: MessageRequest) -> Shape:
        rules = self._status_rules
        preferences = self._preferences(rules, message)
        if reference is not None:
            # A provider may repeat its own id, which is read from here too.
            preferences += self._reference_requirement(
                "receipt.reference", self._operation.receipt.reference, reference
            )
        requirements = list(self._conditions(rules, message))
        if "success" not in rules and message.status == "processing":
            # Any 2xx would be the response.
            return compose(requirements, ValueKind.ANSWER, {("status",): 404})
        return compose(requirements, ValueKind.ANSWER, {("status",): 200}, preferences)

    def callback(
        self,
        message: MessageRequest,
        *,
        call_id: str,
        reference: str | None,
        mark: str,
        query: Mapping[str, str] | None = None,
    ) -> Shape:
        """A callback whose event key contains the digits `mark`; `query` is that of its URL."""
        match, callbacks = self._operation.response.match, self._integration.callbacks
        requirements = list(self._conditions(self._response_rules, message))
        if match.call_id is not None:
            requirements.append(
                self._one("response.match.call_id", match.call_id, exactly(call_id))
            )
        requirements += self._reference_requirement(
            "response.match.reference", match.reference, reference
        )
        if callbacks is not None and callbacks.event_key is not None:
            requirement = Requirement(
                callbacks.event_key, marked(mark), "callbacks.event_key", "be a new id"
            )
            requirements.append(requirement)
        preferences = self._preferences(self._response_rules, message)
        given: dict[Path, Any] = {("query",): dict(query)} if query else {}
        return compose(requirements, ValueKind.CALLBACK, given, preferences)

    def _reference(self, mark: str) -> Iterator[Requirement]:
        expression = self._operation.receipt.reference
        if expression is not None:
            yield self._one("receipt.reference", expression, marked(mark), "be a new id")

    def _accepted(self) -> Iterator[Requirement]:
        accept = self._operation.receipt.accept
        if accept is None:
            raise CannotSimulateError(
                f"{self._field('receipt.accept')}: only a 2xx status is a receipt, and no 2xx"
                " answer can say this"
            )
        yield self._one("receipt.accept", accept, true(), "hold")

    def _reference_requirement(
        self, field: str, expression: Expression | None, reference: str | None
    ) -> list[Requirement]:
        if expression is None or reference is None:
            return []
        numbers = [int(reference)] if reference.isdecimal() else []
        wanted = one_of(reference, *numbers)
        return [self._one(field, expression, wanted, f"be {reference}")]

    def _conditions(self, rules: _Rules, message: MessageRequest) -> Iterator[Requirement]:
        """The conditions that must hold, or not hold, for a message to be read as it is meant."""
        status = message.status
        if "failure" in rules:
            field, failure = rules["failure"]
            yield self._condition(f"{field}.when", failure.when, holds=status == "failed")
            if status == "failed":
                yield from self._failure(field, failure, message)
        elif status == "failed":
            raise CannotSimulateError(f"{self._field('response.failure')}: no message is a failure")
        if status == "failed":
            return
        if "extension" in rules:
            field, extension = rules["extension"]
            yield self._condition(f"{field}.when", extension.when, holds=status == "extended")
            if status == "extended":
                yield from self._extension(field, extension, message)
        elif status == "extended":
            reason = "no message asks for more time"
            raise CannotSimulateError(f"{self._field('response.extension')}: {reason}")
        if "success" in rules and status != "extended":
            yield self._condition(*rules["success"], holds=status == "completed")

    def _failure(
        self, field: str, rule: FailureRule, message: MessageRequest
    ) -> Iterator[Requirement]:
        yield self._condition(f"{field}.retryable", rule.retryable, holds=message.retryable)
        if rule.reason is not None:
            wanted = text(message.reason)
            yield self._one(f"{field}.reason", rule.reason, wanted, "be a text")

    def _extension(
        self, field: str, rule: ExtensionRule, message: MessageRequest
    ) -> Iterator[Requirement]:
        if rule.until is not None and message.until is not None:
            moment = one_of(message.until.isoformat(), int(message.until.timestamp()))
            yield self._one(f"{field}.until", rule.until, moment, "be a time")
        if rule.by is not None:
            span = one_of(message.seconds, f"{message.seconds}s")
            yield self._one(f"{field}.by", rule.by, span, "be a time span")

    def _preferences(self, rules: _Rules, message: MessageRequest) -> list[Requirement]:
        """What a real message would also contain."""
        if "data" not in rules or message.status != "completed":
            return []
        return [self._one(*rules["data"], something(), "be something")]

    def _condition(self, field: str, expression: Expression, *, holds: bool) -> Requirement:
        return self._one(
            field, expression, true() if holds else false(), "hold" if holds else "not hold"
        )

    def _one(
        self, field: str, expression: Expression, target: Target, expectation: str = ""
    ) -> Requirement:
        return Requirement(expression, target, self._field(field), expectation or "be ours")

    def _field(self, field: str) -> str:
        return f"operations.{self._name}.{field}"

    @cached_property
    def _response_rules(self) -> _Rules:
        return _rules("response", self._operation.response)

    @cached_property
    def _status_rules(self) -> _Rules:
        """The status request's own rules, or else those of the response."""
        own = self._operation.response.status
        return {**self._response_rules, **(_rules("response.status", own) if own else {})}


def reference_in(operation: Operation, shape: Shape) -> str | None:
    return receipt_reference(operation, shape.document)


def _rules(field: str, part: object) -> _Rules:
    found = {name: getattr(part, name) for name in ("success", "failure", "extension", "data")}
    return {name: (f"{field}.{name}", rule) for name, rule in found.items() if rule is not None}


def _first_solution(*attempts: Any) -> Shape:
    first: CannotSimulateError | None = None
    for attempt in attempts:
        try:
            shape: Shape = attempt()
        except CannotSimulateError as error:
            first = first or error
        else:
            return shape
    raise first or CannotSimulateError("nothing was tried")
