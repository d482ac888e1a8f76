"""The workflow `BulkCalls`: many calls hosted by one workflow, and how to address one of them.

Signals, the query and the updates of a call are sent to its host, with the `call_id` as one more
field of their argument.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from .calls import CallOutcome
from .messages import ProviderMessage
from .steps import FailedAttempt
from .wire import StrictModel, Wire

MAX_HOSTED: Final = 100
"""Calls of one host. Their ids have to fit into a search attribute, which takes 2 KiB."""


class BulkRequest(StrictModel):
    """The one argument of the workflow `BulkCalls`.

    Attributes:
        requests: `CallRequest`s, each with an id of its own. Each is validated by itself, so that
            an invalid one does not reject the others.
    """

    requests: tuple[Any, ...] = Field(min_length=1, max_length=MAX_HOSTED)


class Rejection(Wire):
    """Why a request is not a call: `InvalidRequest` or `KeyReused`. Nothing was sent."""

    type: str
    reason: str


class CallEnd(Wire):
    """How a call left its host; one of the last three is set.

    Attributes:
        index: of its request.
        call_id: empty if the request is not valid.
        moved_to: the id of the workflow that hosts it now.
    """

    index: int
    call_id: str
    outcome: CallOutcome | None = None
    rejected: Rejection | None = None
    moved_to: str | None = None


class HoldMessageStep(Wire):
    """Hold a message for operators: its call left its host, and has ended meanwhile."""

    call_id: str
    message: ProviderMessage
    reason: str


class TakeEnds(StrictModel):
    """The update `take_ends`: wait until more calls than `after` have left the host."""

    after: int = Field(default=0, ge=0)


class CallEnds(Wire):
    """The result of the update `take_ends`, and of the workflow.

    Attributes:
        ends: in the order in which the calls ended, from number `after` on; at most
            `MAX_RESULT_BYTES` of JSON.
        remaining: how many calls are still in the host, or did not fit into this answer.
    """

    ends: tuple[CallEnd, ...]
    remaining: int = 0


class HostedMessage(ProviderMessage):
    """A provider's message, addressed to one of a host's calls."""

    call_id: str

    @classmethod
    def of(cls, message: ProviderMessage, call_id: str) -> HostedMessage:
        return cls.model_construct(**vars(message), call_id=call_id)


class BulkStatus(Wire):
    """The result of the query `status` without a `call_id`.

    Attributes:
        stages: how many open calls are in each stage.
        open: the ids of open calls.
        moved: the ids of calls that were moved into workflows of their own.
    """

    calls: int
    stages: dict[str, int]
    open: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


class BatchedStep(Wire):
    """A step of one call, with the name of its activity.

    Attributes:
        key: identifies the step in the run of its host.
        timeout: seconds of one attempt.
    """

    key: int
    name: str
    argument: Any
    timeout: float


class StepBatch(Wire):
    """The argument of the activity `perform_steps`."""

    steps: tuple[BatchedStep, ...]


class BatchedResult(Wire):
    """What became of a step.

    Attributes:
        value: its result.
        failure: why it failed.
        is_pending: neither yet: ask again with the same key.
    """

    value: Any = None
    failure: FailedAttempt | None = None
    is_pending: bool = False


class BatchResult(Wire):
    """The result of `perform_steps`, in the order of the steps.

    Attributes:
        size: of the results, in bytes of JSON.
    """

    results: tuple[BatchedResult, ...]
    size: int
