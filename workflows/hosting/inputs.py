"""Validate the raw arguments of workflows, signals and updates.

Handlers take raw JSON: a typed argument that does not parse fails the workflow task again and
again, or drops the signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.wire import InvalidInputError, NotEncrypted, Wire, parse_argument

Model = TypeVar("Model", bound=Wire)
State = TypeVar("State", bound=Wire)
Result = TypeVar("Result")


def read_start(
    arguments: tuple[Any, ...], model: type[Model], state: type[State]
) -> tuple[Model, State | None]:
    """Read what a workflow was started with, and the state of the run it continues, if any.

    A second argument is accepted only from the workflow itself, when it continues as new, and from
    a host of many calls that a call leaves.

    Raises:
        InvalidInputError: naming the field.
    """
    info = workflow.info()
    is_moved = info.parent is not None and info.parent.workflow_id.startswith(names.BULK_PREFIX)
    if (info.continued_run_id is not None or is_moved) and len(arguments) == 2:
        return parse_argument(model, arguments[:1]), state.model_validate(arguments[1])
    return parse_argument(model, arguments), None


def refuse_plain(arguments: tuple[Any, ...]) -> None:
    """Refuse a start in plain, where the deployment requires encryption.

    One that was accepted stays accepted when the deployment changes: the refusal is in the history.

    Raises:
        InvalidInputError: naming the setting.
    """
    if any(isinstance(one, NotEncrypted) for one in arguments) and workflow.patched(
        names.PLAIN_START_REFUSED
    ):
        raise InvalidInputError(
            "the arguments must be encrypted: this deployment accepts no plain starts"
            " (ACKBRIDGE_REQUIRE_ENCRYPTED)"
        )


def require_workflow_id(expected: str, field: str) -> None:
    """Refuse a workflow that was started under another id than its arguments call for.

    Args:
        field: the argument's field that the id is made of.

    Raises:
        InvalidInputError: naming the field.
    """
    actual = workflow.info().workflow_id
    if actual != expected:
        raise InvalidInputError(
            f"{field}: the workflow id must be {expected!r}; it was started as {actual!r}"
        )


def require_no_timeouts(reason: str) -> None:
    """Refuse execution and run timeouts, which would end a workflow without its clean-up.

    Raises:
        InvalidInputError: saying why.
    """
    info = workflow.info()
    if info.execution_timeout or info.run_timeout:
        raise InvalidInputError(f"workflow timeouts: must not be set; {reason}")


def invalid_request(reason: str | None) -> ApplicationError:
    """The failure of a workflow, update or query whose input does not validate."""
    return ApplicationError(reason or "", type=names.INVALID_REQUEST, non_retryable=True)


def handle_update(
    arguments: tuple[Any, ...], model: type[Model], handle: Callable[[Model], Result]
) -> Result:
    """Validate an update and handle it.

    Raises:
        ApplicationError: of type InvalidRequest, naming the field.
    """
    try:
        return handle(parse_argument(model, arguments))
    except InvalidInputError as error:
        raise invalid_request(str(error)) from None


def handle_signal(
    arguments: tuple[Any, ...],
    model: type[Model],
    handle: Callable[[Model], object],
    reject: Callable[[str], None],
) -> None:
    """Validate a signal and handle it; `reject` receives the problem, as a signal has no reply."""
    try:
        handle(parse_argument(model, arguments))
    except InvalidInputError as error:
        reject(str(error))
