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

REVISION: Final = 1
"""The version of the commands of a call that is planned now.

Whoever changes their order or kind takes the next number and branches on `Plan.revision`, so that a
call keeps the commands of the worker that has planned it. See docs/decisions/0007.
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
        local: whether the first attempt may be a local activity (no rate limit, no dedicated
            egress); otherwise every attempt goes through the provider's queue.
        timeout: of one attempt.
        attempts, within: the maximum number of attempts, and their time altogether.
        queue_within: how long it may wait for a worker of the provider's queue.
        fairness: the fairness key there.
        leased: whether every attempt needs a lease, for which it waits without being an attempt.
        looks_when_refused: whether the inbox is read before the refusal of a request is acted on
            that was sent within a workflow task, where no message can be seen; false in plans from
            before.
    """

    local: bool
    timeout: timedelta
    attempts: int
    within: timedelta
    queue_within: timedelta
    fairness: str | None = None
    leased: bool = False
    looks_when_refused: bool = False


class AcknowledgePlan(Wire):
    """How responses are acknowledged: `timeout` of one attempt, `within` of all of them.

    Attributes:
        local: whether the first attempt may be a local activity (no dedicated egress), which limits
            do not restrict; None: as `SendPlan.local`.
        asks_after: whether a provider that can be asked is asked again when the last failed one is
            over without being accepted; false in plans from before.
    """

    timeout: timedelta
    within: timedelta
    on_success: bool
    on_failed: bool
    local: bool | None = None
    asks_after: bool = False


class PollPlan(Wire):
    """How often the provider is asked for its response.

    Attributes:
        every: the pause between two status requests.
        timeout: of one status request.
        first_after: the pause before the first one, where a callback is expected first.
    """

    every: timedelta
    timeout: timedelta
    first_after: timedelta = timedelta(0)


class ResultPlan(Wire):
    """One more request after a success: `timeout` of one attempt, `within` of all of them."""

    timeout: timedelta
    within: timedelta


class ReconcilePlan(Wire):
    """How an unknown end is reconciled: a status request `every`, for `within` at the most."""

    every: timedelta
    within: timedelta


class Plan(Wire):
    """Everything the protocol needs to know about a call's operation.

    Attributes:
        deadline: how long to wait for the response, from the moment of sending.
        deadline_reason: why that long, for people.
        ceiling: extensions never move the deadline further than this from the sending.
        ask_status: whether the operation has a status request.
        poll: how the provider is asked until the deadline; in mode `poll`, and beside callbacks.
        cycles: the maximum number of rounds.
        late_window: how long a call that would fail for lack of a response stays open, parked, for
            a late one; None: not at all.
        parked_for: how long a parked call waits at the most.
        notices: by kind (`delayed`, `failed`, `refused`, `cancelled`).
        not_now: why nothing may be sent now (a flag, or the breaker); the call is parked or fails.
        standing: the flags and the breaker as they were at admission.
        when_off: what becomes of a call that must not be sent now; None: as `on_failure` says.
        indexed: whether our search attributes are registered with the engine.
        revision: `REVISION` of the worker that made this plan. The workflow branches on it, and not
            on a patch of the engine's, which is evaluated too early where a query splits a workflow
            task (docs/decisions/0007).
        reply: which subscriber gets the call's notices.
        reprocess_attempts: how often a parked call is reprocessed before it ends.
        next_batches: when the next scheduled batches reprocess parked calls at the latest.
        repeatable: whether the request may be sent again after an attempt that may have arrived: it
            carries an idempotency key, or the file says `repeat: always`.
        undoes: whether an accepted failed acknowledgement calls the work off.
        key_retention: how long the provider keeps an idempotency key; None: for ever.
        reconcile: of an end with unknown effect; None: it stays unknown.
        park: which codes park, or `unknown`; None: as `on_failure` says.
        result: the request for the result of work that is done; None: the message has it.
        amount: the decimal value of the operation's `sum`, for lists of unknown calls.
        delayed_after: when the caller is told that the response takes longer, from the moment of
            sending; None: at the deadline.
        sensitive: the fields of payload and response that only the caller is shown.
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
    revision: int
    reply: ReplyPlan | None = None
    reprocess_attempts: int
    next_batches: tuple[AwareDatetime, ...] = ()
    repeatable: bool = True
    undoes: bool = True
    key_retention: timedelta | None = None
    reconcile: ReconcilePlan | None = None
    park: tuple[str, ...] | None = None
    amount: str | None = None
    result: ResultPlan | None = None
    delayed_after: timedelta | None = None
    sensitive: tuple[str, ...] = ()


class Prepared(Wire):
    """The result of `prepare`: a plan, or the outcome that this call already had.

    Attributes:
        recorded: without a plan, how the call has ended. With one, its response was recorded in
            a workflow task that was lost: it counts, and is still to be acknowledged.
        repeated: this call was prepared before. A request that was sent in the workflow task which
            was lost then may have reached the provider, though no history knows it.
        sent: the result of the first attempt to send, where `prepare` made one.
        taken_over: another workflow has conducted the call, and has ended without an outcome. It
            may have sent the request, in any way.
        first_claimed_at: of a call that is taken over: nothing was sent before.
        reference: of a call that is taken over, what the provider called its work last, if known.
    """

    plan: Plan | None = None
    repeated: bool = False
    recorded: CallOutcome | None = None
    sent: Sent | FailedAttempt | None = None
    taken_over: bool = False
    first_claimed_at: AwareDatetime | None = None
    reference: str | None = None
