"""What no single field of an integration file can get wrong alone."""

from __future__ import annotations

from collections.abc import Iterator

from .schema import Integration, Operation

Contradiction = tuple[tuple[str, ...], str]
"""Where it is, and what is wrong."""


def contradictions(integration: Integration) -> Iterator[Contradiction]:
    """Everything that does not fit together."""
    for name, operation in integration.operations.items():
        here = ("operations", name)
        if operation.response.mode == "callback":
            yield from _callback(integration, operation, here)
        if operation.request.method == "GET" and operation.request.body is not None:
            yield (*here, "request", "body"), "a GET request has no body; use query"
        acknowledge = operation.acknowledge
        if acknowledge and acknowledge.success is None and acknowledge.failed is None:
            yield (*here, "acknowledge"), "says neither what to send on success nor on failure"
        deadline = operation.response.deadline
        if not deadline.floor <= deadline.initial <= deadline.ceiling:
            yield (*here, "response", "deadline"), "needs floor <= initial <= ceiling"


def _callback(
    integration: Integration, operation: Operation, here: tuple[str, ...]
) -> Iterator[Contradiction]:
    response = operation.response
    if integration.callbacks is None:
        yield (*here, "response", "mode"), "callback needs `callbacks` with verify and event_key"
    if response.match.call_id is None and response.match.reference is None:
        yield (*here, "response", "match"), "callback needs match.call_id or match.reference"
    if response.success is None:
        yield (*here, "response", "success"), "callback needs to know what a success looks like"
    if response.match.call_id is None and operation.receipt.reference is None:
        yield (
            (*here, "receipt", "reference"),
            "matching by reference needs receipt.reference: where the receipt has it",
        )
