"""Arguments and results of the activities: one model each, plain JSON."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from .calls import CallOutcome, CallRequest, Stage
from .messages import ProviderMessage
from .wire import Wire


class PrepareStep(Wire):
    """Check the request and claim the call.

    Attributes:
        request: the validated request.
        run_chain: the id of the first run of this execution chain.
    """

    request: CallRequest
    run_chain: str


class ReconsiderStep(Wire):
    """Ask again whether a parked call may be sent."""

    request: CallRequest


class SendStep(Wire):
    """Send the request.

    Attributes:
        tried: attempts before the first one of this activity.
        first_tried_at: when the first of those began.
        reached: whether one of them may have reached the provider.
    """

    request: CallRequest
    cycle: int
    tried: int = 0
    first_tried_at: AwareDatetime | None = None
    reached: bool = False


class Sent(Wire):
    """The provider has our request.

    Attributes:
        sent_at, receipt_at: of the attempt that was received.
        reference: the provider's own id of its work, where the operation declares one.
        attempt: which attempt of this activity it was, from 1.
        messages: the response itself (`sync`), and messages that came before anyone waited.
    """

    sent_at: AwareDatetime
    receipt_at: AwareDatetime
    reference: str | None = None
    attempt: int = 1
    messages: tuple[ProviderMessage, ...] = ()


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
    """

    request: CallRequest
    cycle: int
    message: ProviderMessage
    outcome: CallOutcome
    was_parked: bool = False


class Recorded(Wire):
    """Whether this response is the call's own.

    Attributes:
        accepted: false when the event key belongs to another call or another response stands.
        reason: why not.
    """

    accepted: bool
    reason: str | None = None


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


class SuppressedMessage(Wire):
    """A message that changed nothing, and why."""

    event_key: str
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
        parking: of a call that is parked; None from workers that did not count yet.
    """

    request: CallRequest
    stage: Stage
    reason: str | None = None
    outcome: CallOutcome | None = None
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    parking: Parking | None = None


class Concluded(Wire):
    """What `conclude` answers.

    Attributes:
        next_batch: of a parked call, when the next batch takes it up at the latest; None where
            nobody knows.
    """

    next_batch: AwareDatetime | None = None


class StepFailure(StrEnum):
    """Types of the activities' failures, classified once, in the activity.

    `NotAddressed`: an acknowledgement needs the provider's reference, and none is known (yet).
    `NotYet`: a poll has no answer so far; the engine asks again.
    """

    INVALID_REQUEST = "InvalidRequest"
    KEY_REUSED = "KeyReused"
    REFUSED = "Refused"
    NO_RECEIPT = "NoReceipt"
    NOT_ACCEPTED = "NotAccepted"
    NOT_ADDRESSED = "NotAddressed"
    NOT_YET = "NotYet"
    UNAVAILABLE = "Unavailable"


class Trouble(Wire):
    """The details of an activity's failure.

    Attributes:
        attempt: which attempt of the activity it was, from 1.
        reached: whether the provider may have got the request.
    """

    attempt: int = 1
    reached: bool = False
