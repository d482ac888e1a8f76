"""Arguments and results of the activities: one model each, plain JSON."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic import AwareDatetime, Field

from .calls import CallOutcome, CallRequest, Effect, Notice, Stage
from .messages import ProviderMessage
from .wire import Duration, Wire

Kept = str | int | float | bool
"""A value that is kept for later requests of its cycle."""


class PrepareStep(Wire):
    """Check the request and claim the call.

    Attributes:
        run_chain: the id of the first run of this execution chain.
        sends: whether this activity may also send the request, where the plan allows a local send.
        host: the id of the workflow that hosts the call; None: the call's own.
    """

    request: CallRequest
    run_chain: str
    sends: bool = False
    host: str | None = None


class FailedAttempt(Wire):
    """A failed first attempt that was made by another step's activity.

    Attributes:
        kind: a `StepFailure`.
        reason: one safe line for people.
        reached: whether the provider may have got it.
        again_after: how long to wait before another try; None when there shall be none.
        code: the provider's own code of a refusal.
        throttled: it answered 408, 425 or 429, which is no failure for the breaker.
    """

    kind: str
    reason: str
    reached: bool = False
    code: str | None = None
    again_after: timedelta | None = None
    throttled: bool = False


class ReconsiderStep(Wire):
    """Check flags and breaker again for a parked call."""

    request: CallRequest


class CycleEnd(Wire):
    """A cycle that has ended without a response, for the statistics.

    Attributes:
        silent: its deadline passed; otherwise the provider reported a failure.
        after: since its sending; None where it was sent several times.
        sent_at: when it was sent last.
        again: the breaker has counted such an end of this call before.
        due: of a reported failure, when the deadline passes; None: none was running.
    """

    silent: bool
    after: timedelta | None = None
    sent_at: AwareDatetime | None = None
    again: bool = False
    due: AwareDatetime | None = None


class SendStep(Wire):
    """Send the request, once.

    Attributes:
        tried: attempts before this one, for the delay before the next one.
        first_tried_at: when the first of those began.
        reached: whether an earlier request under this key may have reached the provider.
        ended: cycles before this one, each told once.
        answered, failed: the breaker has counted an answered, or a failed, attempt of this call.
        queue_within: how long it may wait for its turn, in the queue and for a lease.
        missing: a worker lacked something: the engine repeats the activity while that is so, or
            the request is held back, and for nothing else.
    """

    request: CallRequest
    cycle: int
    tried: int = 0
    first_tried_at: AwareDatetime | None = None
    reached: bool = False
    ended: tuple[CycleEnd, ...] = ()
    answered: bool = False
    failed: bool = False
    queue_within: timedelta | None = None
    missing: bool = False


class Sent(Wire):
    """The provider has our request.

    Attributes:
        sent_at, receipt_at: of the attempt that got the receipt.
        reference: the provider's own id of its work, where the operation declares one.
        attempt: which attempt of this activity it was, from 1.
        messages: the response itself (`sync`), the failure that the receipt reports
            (`receipt.failure.when`), and messages that came before anyone waited.
        again: another attempt before this one may have reached the provider, too.
        receipt: what the operation takes from the receipt for its caller (`receipt.data`).
        uncorrelated: the ledger does not have the reference yet, or the inbox was not read:
            `correlate` has to run before the call relies on callbacks.
        deadline, deadline_reason: how long to wait for the response, and why, where that has
            changed since the call was planned.
        delayed_after: when the caller is told that it takes longer; None: at the deadline.
        kept: values for later requests (`receipt.keep`).
    """

    sent_at: AwareDatetime
    receipt_at: AwareDatetime
    reference: str | None = None
    attempt: int = 1
    messages: tuple[ProviderMessage, ...] = ()
    again: bool = False
    receipt: Any = None
    uncorrelated: bool = False
    deadline: timedelta | None = None
    deadline_reason: str | None = None
    delayed_after: timedelta | None = None
    kept: dict[str, Kept] = Field(default_factory=dict)


class CorrelateStep(Wire):
    """Commit the provider's reference, and read the messages that came before it was known.

    Attributes:
        seen: event keys of messages that the call has; they are not returned again.
    """

    request: CallRequest
    reference: str | None = None
    seen: tuple[str, ...] = ()


class LookStep(Wire):
    """Read the messages in the inbox that are about a call.

    Attributes:
        references: of all its cycles.
        seen: event keys of messages that the call has; they are not returned again.
        silence: a cycle whose deadline has passed, counted if there is no message.
    """

    request: CallRequest
    references: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    silence: CycleEnd | None = None


class InboxMessages(Wire):
    """The result of `correlate` and `look_inbox`.

    Attributes:
        messages: oldest first, at most `MAX_RESULT_BYTES` of JSON.
        more: whether the inbox has more of them: ask again, with these as `seen`.
    """

    messages: tuple[ProviderMessage, ...] = ()
    more: bool = False


class AskStep(Wire):
    """Send one status request.

    Attributes:
        silence: the cycle's deadline has passed, counted if the provider has no answer.
        kept: as in `Sent`, what is known of the cycle.
    """

    request: CallRequest
    cycle: int
    reference: str | None = None
    silence: CycleEnd | None = None
    kept: dict[str, Kept] = Field(default_factory=dict)


POLL_RETRY_FROM: Final = timedelta(seconds=1)
"""A pause between two polls that is this long is the retry of an activity: it takes no slot of a
worker and adds nothing to the history. Shorter ones are waited out in the activity."""


class PollStep(Wire):
    """Send status requests until there is an answer; the engine bounds their time.

    Attributes:
        every: the pause between two of them.
        answered: event keys of answers that were handled already (extensions).
        kept: as in `AskStep`.
    """

    request: CallRequest
    cycle: int
    reference: str | None = None
    every: timedelta
    answered: tuple[str, ...] = ()
    kept: dict[str, Kept] = Field(default_factory=dict)


class Asked(Wire):
    """The answer to a status request, if it decides anything.

    Attributes:
        kept: values for later requests, as in `Sent`.
        retry_after: the delay before the next request that the provider asks for.
    """

    message: ProviderMessage | None = None
    kept: dict[str, Kept] = Field(default_factory=dict)
    retry_after: timedelta | None = None


class ResultStep(Wire):
    """Send the request for the result of work that is done.

    Attributes:
        message: the success; its data are the body of the provider's message.
        kept: as in `AskStep`.
    """

    request: CallRequest
    cycle: int
    reference: str | None = None
    message: ProviderMessage
    kept: dict[str, Kept] = Field(default_factory=dict)


class RecordStep(Wire):
    """Write the response, its duplicate-index row and the outcome in one transaction.

    Attributes:
        outcome: without its response, which is the message's data: the engine takes 2 MiB.
        was_parked: the ledger lists it as parked, and has to remove it.
        took: since the sending; None where it was sent several times.
        overdue: the response came after the deadline of its plan.
        due: when the deadline passes; None: none was running.
        taken_back: the timeouts of this cycle that the statistics have counted by mistake.
        ended: cycles that ended without a response, each reported once.
        acknowledges: whether this activity may also acknowledge the success.
        reference, kept: the provider's own id of the cycle's work and the values kept of it, for
            that acknowledgement.
    """

    request: CallRequest
    cycle: int
    message: ProviderMessage
    outcome: CallOutcome
    was_parked: bool = False
    took: timedelta | None = None
    overdue: bool = False
    due: AwareDatetime | None = None
    taken_back: tuple[timedelta, ...] = ()
    ended: tuple[CycleEnd, ...] = ()
    acknowledges: bool = False
    reference: str | None = None
    kept: dict[str, Kept] = Field(default_factory=dict)


class AcknowledgementKind(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"


class AcknowledgeStep(Wire):
    """Acknowledge a cycle to the provider as a success or as failed.

    Attributes:
        response: for templates of a success; None where the outcome has it.
        reason: for templates of a failure.
        outcome: stored once the provider has accepted a success.
        ended: cycles that ended without a response, each told once.
        kept: as in `AskStep`.
        pause: that the provider has asked for, before the first attempt.
    """

    request: CallRequest
    cycle: int
    kind: AcknowledgementKind
    reference: str | None = None
    response: Any = None
    reason: str | None = None
    outcome: CallOutcome | None = None
    ended: tuple[CycleEnd, ...] = ()
    kept: dict[str, Kept] = Field(default_factory=dict)
    pause: Duration | None = None


class Acknowledged(Wire):
    acknowledged_at: AwareDatetime


class Recorded(Wire):
    """Whether this response is the call's own.

    Attributes:
        accepted: false if the event key belongs to another call, or the call has a response.
        reason: why not.
        repeated: it was recorded before, by this very step.
        acknowledged: the result of the acknowledgement, if this activity has sent it.
        needs_queue: why it has not: too many requests ride in workflow tasks of this worker.
    """

    accepted: bool
    reason: str | None = None
    repeated: bool = False
    acknowledged: Acknowledged | FailedAttempt | None = None
    needs_queue: bool = False


DUPLICATE: Final = "duplicate: this call has seen the event key"
"""The reason of a suppressed duplicate."""


class SuppressedMessage(Wire):
    """A message that changed nothing, and why."""

    event_key: str
    reason: str


class WrittenOff(Wire):
    """An acknowledgement that an operator has written off: it is not tried again."""

    cycle: int
    kind: AcknowledgementKind
    by: str
    reason: str


class Parking(Wire):
    """One time that a call is parked.

    Attributes:
        reason: the code by which operators and batches find it.
        times: which time it is, from 1; each is stored once.
        put_back: it was taken up, and nothing was sent; it keeps its place among parked calls.
        released: an operator has reprocessed it alone, which ends its quarantine.
    """

    reason: str
    times: int
    put_back: bool = False
    released: bool = False


class ConcludeStep(Wire):
    """Store the stage of a call in the ledger, its outcome, and messages that changed nothing.

    Attributes:
        held: late messages that are kept for people, whole (`late: hold`).
        parking: of a call that is parked.
        effect, provider_code: of a call without an outcome, as far as known.
        amount: what is at stake while the effect is unknown, a decimal number.
        ended: cycles that ended without a response, each told once.
        written_off: acknowledgements that operators have written off, each told once.
        notice: what a user is shown while the call is parked.
    """

    request: CallRequest
    stage: Stage
    reason: str | None = None
    outcome: CallOutcome | None = None
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    parking: Parking | None = None
    effect: Effect | None = None
    provider_code: str | None = None
    amount: str | None = None
    ended: tuple[CycleEnd, ...] = ()
    written_off: tuple[WrittenOff, ...] = ()
    notice: Notice | None = None


class Concluded(Wire):
    """The result of `conclude`.

    Attributes:
        next_batch: when the next batch reprocesses a parked call at the latest, if that is known.
        quarantined: why recoveries leave out a parked call; None: they do not.
    """

    next_batch: AwareDatetime | None = None
    quarantined: str | None = None


class StepFailure(StrEnum):
    """Types of the activities' failures, classified once, in the activity.

    `Refused`: final, unless an earlier request under the key may have reached the provider.
    `NotAddressed`: an acknowledgement needs the provider's reference, and none is known (yet).
    `NotYet`: a poll has no answer so far; the engine asks again.
    `Expired`: the request's `expires_at` has passed; nothing was sent.
    `Unreadable`: the provider answered 2xx, and the answer cannot be used.
    `AcknowledgementRefused`: the provider refuses our acknowledgement for good.
    `Missing`: this worker lacks the provider's file or a secret; another one may have it.
    `NotNow`: the operation's breaker is open; nothing was sent.
    `HeldBack`: the provider asked for a pause, or as many requests are in flight as it may have;
        nothing was sent, and no attempt was made.
    `HostedElsewhere`: another workflow conducts this call; the failure's code is its id.
    """

    INVALID_REQUEST = "InvalidRequest"
    KEY_REUSED = "KeyReused"
    REFUSED = "Refused"
    NO_RECEIPT = "NoReceipt"
    NOT_ACCEPTED = "NotAccepted"
    NOT_ADDRESSED = "NotAddressed"
    NOT_YET = "NotYet"
    EXPIRED = "Expired"
    UNREADABLE = "Unreadable"
    ACKNOWLEDGEMENT_REFUSED = "AcknowledgementRefused"
    MISSING = "Missing"
    NOT_NOW = "NotNow"
    UNAVAILABLE = "Unavailable"
    HELD_BACK = "HeldBack"
    HOSTED_ELSEWHERE = "HostedElsewhere"


class FailureDetails(Wire):
    """The details of an activity's failure.

    Attributes:
        attempt: which attempt of the activity it was, from 1.
        reached: whether the provider may have got the request.
        code: the provider's own code of a refusal.
        throttled: as in `FailedAttempt`.
    """

    attempt: int = 1
    reached: bool = False
    code: str | None = None
    throttled: bool = False
