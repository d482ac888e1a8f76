"""What `prepare` decides for a call. It is in history, so replay never reads configuration."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, Field

from .calls import CallOutcome, Notice
from .control import AdmissionState
from .deliveries import ReplyPlan
from .steps import FailedAttempt, Sent
from .wire import Wire

REVISION: Final = 4
"""What calls that are planned now do differently from those of older workers.

1: see docs/decisions/0007. 2: a parked call asks its flags and breaker before it is sent again.
3: one arrival that comes by two ways is no duplicate. 4: once a request has been tried, the time it
waits in its provider's queue is part of the time for a receipt.
"""


class ResponseMode(StrEnum):
    SYNC = "sync"
    CALLBACK = "callback"
    POLL = "poll"


class OnFailure(StrEnum):
    PARK = "park"
    FAIL = "fail"


class WhenOff(StrEnum):
    PARK = "park"
    REFUSE = "refuse"


class LatePolicy(StrEnum):
    ACCEPT = "accept"
    IGNORE = "ignore"
    HOLD = "hold"


class SendPlan(Wire):
    """How the request is sent.

    Attributes:
        local: whether the first attempt may ride in the workflow task (no rate limit, no
            dedicated egress); otherwise every attempt goes through the provider's queue.
        timeout: of one attempt.
        attempts, within: how often, and for how long altogether.
        queue_within: how long it may wait for a worker of the provider's queue.
        fairness: whose turn it takes there; each gets theirs.
    """

    local: bool
    timeout: timedelta
    attempts: int
    within: timedelta
    queue_within: timedelta
    fairness: str | None = None


class AcknowledgePlan(Wire):
    """How answers are acknowledged: the timeout of one attempt, and the budget of them all."""

    timeout: timedelta
    within: timedelta
    on_success: bool
    on_failed: bool


class PollPlan(Wire):
    """How often the provider is asked for its response.

    Attributes:
        every: the pause between two questions.
        timeout: of one question.
    """

    every: timedelta
    timeout: timedelta


class Plan(Wire):
    """Everything the protocol needs to know about a call's operation.

    Attributes:
        deadline: how long to wait for the response, from the moment of sending.
        deadline_reason: why that long, for people.
        ceiling: extensions never move the deadline further than this from the sending.
        ask_status: whether the provider can be asked before we give up.
        poll: in mode `poll`, how the provider is asked until the deadline.
        cycles: how many rounds at the most.
        late_window: how long a call that would fail for lack of an answer stays open, parked, for
            a late one; None: not at all.
        parked_for: how long a parked call waits at the most.
        notices: by kind (`delayed`, `failed`, `refused`, `cancelled`).
        not_now: why nothing may be sent now (a flag, or the breaker); the call is parked or fails.
        standing: how the flags and the breaker stood that were asked.
        when_off: what becomes of a call that must not be sent now; None: as `on_failure` says.
        indexed: whether our search attributes are registered with the engine.
        revision: `REVISION` of the worker that made this plan, 0 before there were any. A call goes
            on as it began: the workflow asks this, and no patch of the engine's, which would be
            asked too early where a query splits a workflow task (decision 7).
        owed_indexed: whether `AckbridgeOwed` is among them.
        reply: which subscriber is told what becomes of the call; None: nobody.
        reprocess_attempts: how often a parked call is taken up again before it ends; None in plans
            from before there were batches, which know no bound.
        next_batches: when the next scheduled batches take parked calls up at the latest.
    """

    mode: ResponseMode
    send: SendPlan
    deadline: timedelta
    deadline_reason: str
    ceiling: timedelta
    ask_status: bool = False
    poll: PollPlan | None = None
    acknowledge: AcknowledgePlan | None = None
    cycles: int = 1
    on_failure: OnFailure = OnFailure.FAIL
    late: LatePolicy = LatePolicy.ACCEPT
    late_window: timedelta | None = None
    parked_for: timedelta = timedelta(days=7)
    notices: dict[str, Notice] = Field(default_factory=dict)
    not_now: str | None = None
    standing: AdmissionState | None = None
    when_off: WhenOff | None = None
    indexed: bool = False
    owed_indexed: bool = False
    revision: int = 0
    reply: ReplyPlan | None = None
    reprocess_attempts: int | None = None
    next_batches: tuple[AwareDatetime, ...] = ()

    @property
    def is_revised(self) -> bool:
        """Whether no older worker has made it, and the call may do what theirs do not."""
        return self.revision > 0

    @property
    def knows_batches(self) -> bool:
        """Whether the call counts how often it is parked and taken up again."""
        return self.reprocess_attempts is not None

    @property
    def asks_again(self) -> bool:
        """Whether the call, parked, asks its flags and breaker before it is sent again."""
        return self.revision > 1

    @property
    def counts_waiting(self) -> bool:
        """Whether the time in the queue is part of the time for a receipt, after a first try."""
        return self.revision > 3


class Prepared(Wire):
    """What `prepare` answers: a plan, or the outcome this call already had.

    Attributes:
        recorded: without a plan, how the call has ended. With one, its response was recorded in
            a workflow task that was lost: it stands, and has yet to be acknowledged.
        repeated: this call was prepared before. A send that rode in the workflow task which was
            lost then may have left us, though no history knows it.
        sent: what became of the request that rode along; None: none did.
    """

    plan: Plan | None = None
    repeated: bool = False
    recorded: CallOutcome | None = None
    sent: Sent | FailedAttempt | None = None
