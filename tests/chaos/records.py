"""What is known about the calls of a run: three independent records, and what callers were told.

Plain values that reading fills and reconciling compares; unit tests write them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Work:
    """What the provider did or took under one idempotency key.

    Attributes:
        cycle: of our call, by the key.
        status: `processing`, `completed` or `failed`.
        verdicts: the acknowledgements it took, in order: `success`, `failed`.
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
    """One event the provider told us by callback, all its copies and tries together.

    Attributes:
        news: `completed`, `failed` or `extended`; what is no news begins with `forged_` or
            `malformed_`.
        sent: how often it left.
        replies: what it was answered with, by status; None for no answer.
    """

    id: str
    news: str
    work: str
    call_id: str
    sent: int
    replies: Mapping[int | None, int]

    @property
    def is_true(self) -> bool:
        """Whether the provider meant it."""
        return not self.news.startswith(("forged_", "malformed_"))

    @property
    def is_taken(self) -> bool:
        """Whether we answered it with 2xx at least once."""
        return any(status is not None and 200 <= status < 300 for status in self.replies)


@dataclass(frozen=True)
class Seen:
    """The provider's record of one call.

    Attributes:
        requests: how often each idempotency key came.
        told_failed: works that the provider has said to have failed, by callback or when asked.
    """

    works: tuple[Work, ...] = ()
    events: tuple[Event, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    told_failed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Acknowledgement:
    """One row of what the ledger knows to be acknowledged, or owed."""

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
class Kept:
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
class Ledgered:
    """What the ledger knows about events, whichever call they are of.

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
    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONTINUED = "continued"
    TERMINATED = "terminated"
    TIMED_OUT = "timed out"


ENDED = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
"""The states in which a call may end."""


@dataclass(frozen=True)
class TaskFailure:
    """A workflow task that failed, and did not just come too late.

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
        story: a line for each event worth telling.
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


@dataclass(frozen=True)
class Answer:
    """What a caller was told about its call.

    Attributes:
        how: by which request.
        stage: as in `CallStatus`.
        outcome: as JSON, once there is one.
    """

    how: str
    stage: str
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Told:
    """What the callers of one call did, and were told.

    Attributes:
        is_started: the engine has acknowledged the start.
        is_refusable: the request is invalid on purpose.
        refusal: how it was refused, if it was.
        gave_up: somebody waited for as long as the run allows, and had no answer.
        orders: what was done to the call, in order.
        troubles: what should not have happened to a caller.
    """

    is_started: bool = True
    is_refusable: bool = False
    refusal: str | None = None
    gave_up: bool = False
    answers: tuple[Answer, ...] = ()
    orders: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
