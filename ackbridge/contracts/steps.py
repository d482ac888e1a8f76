"""Arguments and results of the activities: one model each, plain JSON."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic import AwareDatetime

from .calls import CallOutcome, CallRequest, Effect, Stage
from .messages import ProviderMessage
from .wire import Wire


class PrepareStep(Wire):
    """Check the request and claim the call.

    Attributes:
        request: the validated request.
        run_chain: the id of the first run of this execution chain.
        sends: whether the request may be sent at once, if the plan lets it ride in the workflow
            task: one activity instead of two.
    """

    request: CallRequest
    run_chain: str
    sends: bool = False


class FailedAttempt(Wire):
    """A first attempt that rode along with another step, and failed.

    Attributes:
        kind: a `StepFailure`.
        reason: one safe line for people.
        reached: whether the provider may have got it.
        again_after: how long to wait before another try; None when there shall be none.
        code: the provider's own code of a refusal.
    """

    kind: str
    reason: str
    reached: bool = False
    code: str | None = None
    again_after: timedelta | None = None


class ReconsiderStep(Wire):
    """Ask again whether a parked call may be sent."""

    request: CallRequest


class CycleEnd(Wire):
    """A cycle that has ended without a response, for the statistics.

    Attributes:
        silent: its deadline passed; otherwise the provider reported a failure.
        after: since its sending; None where several sendings can be meant.
    """

    silent: bool
    after: timedelta | None = None


class SendStep(Wire):
    """Send the request, once.

    Attributes:
        tried: attempts before this one, for the delay before the next one.
        first_tried_at: when the first of those began.
        reached: whether an earlier request under this key may have reached the provider.
        ended: cycles before this one, each told once.
    """

    request: CallRequest
    cycle: int
    tried: int = 0
    first_tried_at: AwareDatetime | None = None
    reached: bool = False
    ended: tuple[CycleEnd, ...] = ()


class Sent(Wire):
    """The provider has our request.

    Attributes:
        sent_at, receipt_at: of the attempt that was received.
        reference: the provider's own id of its work, where the operation declares one.
        attempt: which attempt of this activity it was, from 1.
        messages: the response itself (`sync`), the failure that the receipt reports
            (`receipt.failure.when`), and messages that came before anyone waited.
        again: another attempt before this one may have reached the provider, too.
        receipt: what the operation takes from the receipt for its caller (`receipt.data`).
        uncorrelated: the ledger does not have the reference yet, or the inbox was not read:
            `correlate` has to run before the call relies on callbacks.
    """

    sent_at: AwareDatetime
    receipt_at: AwareDatetime
    reference: str | None = None
    attempt: int = 1
    messages: tuple[ProviderMessage, ...] = ()
    again: bool = False
    receipt: Any = None
    uncorrelated: bool = False


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
    """

    request: CallRequest
    references: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


class InboxMessages(Wire):
    """The result of `correlate` and `look_inbox`.

    Attributes:
        messages: oldest first, at most `MAX_RESULT_BYTES` of JSON.
        more: whether the inbox has more of them: ask again, with these as `seen`.
    """

    messages: tuple[ProviderMessage, ...] = ()
    more: bool = False


class AskStep(Wire):
    """Ask the provider how its work stands."""

    request: CallRequest
    cycle: int
    reference: str | None = None


class PollStep(Wire):
    """Ask the provider again and again until it has an answer; the deadline is the engine's.

    Attributes:
        every: the pause between two questions.
        answered: event keys of answers that have been taken already (extensions); they are no
            news any more.
    """

    request: CallRequest
    cycle: int
    reference: str | None = None
    every: timedelta
    answered: tuple[str, ...] = ()


class Asked(Wire):
    """What the provider answered, or nothing when it does not know either."""

    message: ProviderMessage | None = None


class RecordStep(Wire):
    """Write the response, its duplicate-index row and the outcome in one transaction.

    Attributes:
        outcome: without its response, which is the message's data: the engine takes 2 MiB.
        was_parked: the ledger has it among the parked calls, which it leaves now.
        took: since the sending; None where several sendings can be meant.
        overdue: the response came after the deadline of its plan.
        taken_back: how long silences of this cycle had lasted when they were told: they are none.
        ended: cycles that ended without a response, each told once.
        acknowledges: whether its success may be acknowledged at once: one activity instead of two.
        reference: the provider's own id of the cycle's work, for that acknowledgement.
    """

    request: CallRequest
    cycle: int
    message: ProviderMessage
    outcome: CallOutcome
    was_parked: bool = False
    took: timedelta | None = None
    overdue: bool = False
    taken_back: tuple[timedelta, ...] = ()
    ended: tuple[CycleEnd, ...] = ()
    acknowledges: bool = False
    reference: str | None = None


class AcknowledgementKind(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"


class AcknowledgeStep(Wire):
    """Tell the provider's acknowledgement API what we have, or that we have nothing.

    Attributes:
        cycle: the round it is about.
        response: the captured answer, for templates of a success; None where the outcome has it.
        reason: why it failed, for templates of a failure.
        outcome: the outcome to keep once the provider has accepted, for a success.
    """

    request: CallRequest
    cycle: int
    kind: AcknowledgementKind
    reference: str | None = None
    response: Any = None
    reason: str | None = None
    outcome: CallOutcome | None = None


class Acknowledged(Wire):
    acknowledged_at: AwareDatetime


class Recorded(Wire):
    """Whether this response is the call's own.

    Attributes:
        accepted: false when the event key belongs to another call or another response stands.
        reason: why not.
        repeated: it had been recorded already, by this very step.
        acknowledged: what became of the acknowledgement that rode along; None: none did.
    """

    accepted: bool
    reason: str | None = None
    repeated: bool = False
    acknowledged: Acknowledged | FailedAttempt | None = None


DUPLICATE: Final = "duplicate: this call has seen the event key"
"""The reason of a message that was heard before."""


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
        reason: under which name operators and batches find it.
        times: which time it is, from 1; the same one is written once.
    """

    reason: str
    times: int


class ConcludeStep(Wire):
    """Keep where a call stands in the ledger: parked, or ended, with what was suppressed.

    Attributes:
        held: late messages that are kept for people, whole (`late: hold`).
        parking: of a call that is parked.
        effect, provider_code: of a call without an outcome, as far as known.
        amount: what is at stake while the effect is unknown, a decimal number.
        ended: cycles that ended without a response, each told once.
        written_off: acknowledgements that operators have written off, each told once.
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


class Concluded(Wire):
    """What `conclude` answers.

    Attributes:
        next_batch: of a parked call, when the next batch takes it up at the latest; None where
            nobody knows.
    """

    next_batch: AwareDatetime | None = None


class StepFailure(StrEnum):
    """Types of the activities' failures, classified once, in the activity.

    `Refused`: final, unless an earlier request under the key may have reached the provider.
    `NotAddressed`: an acknowledgement needs the provider's reference, and none is known (yet).
    `NotYet`: a poll has no answer so far; the engine asks again.
    `Expired`: the request's `expires_at` has passed; nothing was sent.
    `Unreadable`: the provider answered 2xx, and the answer cannot be used.
    `AcknowledgementRefused`: the provider refuses our acknowledgement for good.
    `Missing`: this worker lacks the provider's file or a secret; another one may have it.
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
    UNAVAILABLE = "Unavailable"


class FailureDetails(Wire):
    """The details of an activity's failure.

    Attributes:
        attempt: which attempt of the activity it was, from 1.
        reached: whether the provider may have got the request.
        code: the provider's own code of a refusal.
    """

    attempt: int = 1
    reached: bool = False
    code: str | None = None
