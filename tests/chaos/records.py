"""What is known about the calls of a run: three independent records, and the answers callers got.

Plain values that reading fills and reconciling compares; unit tests write them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Work:
    """What the provider did for one idempotency key.

    Attributes:
        cycle: of our call, by the key.
        status: `processing`, `completed` or `failed`.
        verdicts: the acknowledgements it accepted, in order: `success`, `failed`.
    """

    id: str
    key: str
    call_id: str
    cycle: int
    status: str
    verdicts: tuple[str, ...] = ()
    behaviour: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One event that the provider sent by callback, with all its copies and attempts.

    Attributes:
        news: `completed`, `failed` or `extended`; forged and malformed callbacks begin with
            `forged_` or `malformed_`.
        sent: how often it was sent.
        replies: the number of replies by status; None for no reply.
    """

    id: str
    news: str
    work: str
    call_id: str
    sent: int
    replies: Mapping[int | None, int]

    @property
    def is_true(self) -> bool:
        """Whether the provider signed it and it is well formed."""
        return not self.news.startswith(("forged_", "malformed_"))

    @property
    def is_taken(self) -> bool:
        """Whether the gateway replied with 2xx at least once."""
        return any(status is not None and 200 <= status < 300 for status in self.replies)


@dataclass(frozen=True)
class ProviderRecord:
    """The provider's record of one call.

    Attributes:
        requests: how often each idempotency key came.
        told_failed: works that the provider reported as failed, by callback or status request.
    """

    works: tuple[Work, ...] = ()
    events: tuple[Event, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    told_failed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Acknowledgement:
    """One acknowledgement in the ledger: accepted, or owed."""

    cycle: int
    kind: str
    is_owed: bool
    reason: str | None = None


@dataclass(frozen=True)
class Response:
    """One row of the recorded responses."""

    cycle: int
    event_key: str
    data: Any
    source: str


@dataclass(frozen=True)
class LedgerRecord:
    """The ledger's record of one call.

    Attributes:
        stage: None when there is no row.
        outcome: as JSON.
        applied: event keys that the duplicate index gives to this call.
    """

    stage: str | None = None
    reason: str | None = None
    outcome: Mapping[str, Any] | None = None
    responses: tuple[Response, ...] = ()
    applied: tuple[str, ...] = ()
    acknowledgements: tuple[Acknowledgement, ...] = ()

    @property
    def owed(self) -> tuple[Acknowledgement, ...]:
        """What the provider has not accepted."""
        return tuple(one for one in self.acknowledgements if one.is_owed)


@dataclass(frozen=True)
class EventRecords:
    """What the ledger has recorded about events of all calls.

    Attributes:
        suppressed: event keys that were logged with a reason.
        inbox: event keys in the inbox, with their state.
        owners: the calls an event key was applied to.
        suppressions: how many, repeats included.
    """

    suppressed: frozenset[str] = frozenset()
    inbox: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    suppressions: int = 0


class RunState(StrEnum):
    """How a run has ended; of a hosted call, how that has left its host.

    Attributes:
        CONTINUED: as new, or in a workflow of its own.
        FOLLOWED: another workflow has conducted the call.
    """

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONTINUED = "continued"
    TERMINATED = "terminated"
    TIMED_OUT = "timed out"
    FOLLOWED = "followed"


ENDED = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
"""The states in which a call may end."""


@dataclass(frozen=True)
class TaskFailure:
    """A workflow task that failed; one that was only too late does not count.

    Attributes:
        attempts: how often it was tried in a row.
    """

    cause: str
    message: str
    attempts: int = 1


@dataclass(frozen=True)
class Run:
    """One run in the engine, by its history.

    Attributes:
        chain: the id of the first run of its execution chain.
        failure: the type of the failure it ended with.
        outcome: as JSON, from the result or the failure's details.
        heard: event keys that came to it, by signal or with a receipt.
        receipts: the provider's references that it had from receipts.
        recorded: how many responses the ledger accepted from it.
        unreplayable: why the workflow's code does not replay it, if it does not.
        story: one line per event of interest.
        moved_from: the run of the host that the call was in before.
        is_hosted: it is the run of a host, which has other calls, too.
    """

    id: str
    chain: str
    state: RunState
    failure: str | None = None
    outcome: Mapping[str, Any] | None = None
    heard: frozenset[str] = frozenset()
    receipts: frozenset[str] = frozenset()
    recorded: int = 0
    task_failures: tuple[TaskFailure, ...] = ()
    unreplayable: str | None = None
    story: tuple[str, ...] = ()
    moved_from: str | None = None
    is_hosted: bool = False

    def is_hosted_elsewhere(self, moved: frozenset[str]) -> bool:
        """Whether a host says that the call's own workflow has it, to which it did not move.

        Args:
            moved: runs of hosts from which the call has moved.
        """
        return self.is_hosted and self.state is RunState.CONTINUED and self.id not in moved


@dataclass(frozen=True)
class Answer:
    """One answer that a caller got.

    Attributes:
        how: by which request.
        stage: as in `CallStatus`.
        outcome: as JSON, once there is one.
    """

    how: str
    stage: str
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CallerRecord:
    """What the callers of one call did, and which answers they got.

    Attributes:
        is_started: the engine has acknowledged the start.
        is_refusable: the request is invalid on purpose.
        refusal: how it was refused, if it was.
        gave_up: a caller waited for as long as the run allows, without an answer.
        orders: the actions on the call, in order.
        errors: unexpected errors of a caller.
    """

    is_started: bool = True
    is_refusable: bool = False
    refusal: str | None = None
    gave_up: bool = False
    answers: tuple[Answer, ...] = ()
    orders: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
