"""The workflow `BulkCalls`: many calls hosted by one workflow, and how to address one of them.

Signals, the query and the updates of a call are sent to its host, with the `call_id` as one more
field of their argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import AwareDatetime, Field
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from . import search_attributes
from .calls import CallOutcome, CallRequest, Effect, OutcomeCode, Stage, Waiting
from .messages import ProviderMessage
from .names import search_token
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


def host_attributes(requests: Iterable[CallRequest]) -> TypedSearchAttributes:
    """By which the host of a call is found, and the hosts of a provider's calls."""
    several = list(requests)
    tokens = [search_token(request.call_id) for request in several]
    pairs: list[SearchAttributePair[Any]] = [SearchAttributePair(search_attributes.CALLS, tokens)]
    providers = {request.provider for request in several}
    if len(providers) == 1:
        pairs.append(SearchAttributePair(search_attributes.PROVIDER, providers.pop()))
    return TypedSearchAttributes(pairs)


class HostedMessage(ProviderMessage):
    """A provider's message, addressed to one of a host's calls."""

    call_id: str

    @classmethod
    def of(cls, message: ProviderMessage, call_id: str) -> HostedMessage:
        return cls.model_construct(**vars(message), call_id=call_id)


class HostedState(Wire):
    """Where one call of a host is; what is not said here, the query with its `call_id` says.

    Attributes:
        since: when it entered the stage.
        owes: whether the provider has not accepted an acknowledgement.
        deadline: until when the response is awaited.
        waiting: what it waits for now.
        performing: the step that is performed for it through a queue of its provider.
        last_error: shortened.
    """

    call_id: str
    stage: Stage
    since: AwareDatetime
    effect: Effect
    code: OutcomeCode | None = None
    owes: bool = False
    deadline: AwareDatetime | None = None
    waiting: Waiting | None = None
    performing: str | None = None
    last_error: str | None = None


class BulkStatus(Wire):
    """The result of the query `status` without a `call_id`.

    Attributes:
        stages: how many open calls are in each stage.
        open: the ids of open calls.
        moved: the ids of calls that were moved into workflows of their own.
        states: the calls that are open, the oldest in their stage first, and then those that have
            ended here.
    """

    calls: int
    stages: dict[str, int]
    open: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    states: tuple[HostedState, ...] = ()


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
