"""What a call that waits passes to its next run, or to the workflow that it moves into."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from .calls import CallStatus, Effect, Intervention, Notice, OutcomeCode, Timings
from .messages import ProviderMessage
from .plan import Plan
from .steps import AcknowledgeStep, CycleEnd, Kept, SuppressedMessage, WrittenOff
from .wire import Wire


class WorkEnd(StrEnum):
    """How the work of a cycle ended, as far as the provider has said so.

    Attributes:
        DONE: its response is recorded, or it says that the work is done.
        FAILED: it reported the failure of this work.
        REFUSED: it refused the only attempt that can have arrived.
        CALLED_OFF: it accepted our failed acknowledgement, which undoes the work.
        CONTRADICTED: it reported a success after `CALLED_OFF`, and does not confirm it when asked.
    """

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CALLED_OFF = "called_off"
    CONTRADICTED = "contradicted"


class CycleState(Wire):
    """One cycle; the fields are those of `workflows.call.cycles.Cycle`."""

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    work: WorkEnd | None = None
    has_given_up: bool = False
    first_sent_at: AwareDatetime | None = None
    sent_at: AwareDatetime | None = None
    timeouts: tuple[timedelta, ...] = ()
    kept: dict[str, Kept] = Field(default_factory=dict)


class PendingAcknowledgementState(Wire):
    """An acknowledgement that the provider has not accepted.

    Attributes:
        since: its first attempt.
        is_refused: the provider refuses it for good; it is not tried again.
    """

    step: AcknowledgeStep
    since: AwareDatetime
    is_refused: bool = False


class MessagesState(Wire):
    """Messages: waiting, known by their event keys, and still to be written to the ledger.

    Attributes:
        doorbells: messages that the provider has not been asked about.
    """

    waiting: tuple[ProviderMessage, ...] = ()
    doorbells: tuple[ProviderMessage, ...] = ()
    seen: tuple[str, ...] = ()
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    duplicates: int = 0


class OperatorRequestsState(Wire):
    """Operators' requests, and the last batches that reprocessed the call.

    Attributes:
        resolved, resolved_as: who stated what happened at the provider, and what that was.
    """

    cancelled: Intervention | None = None
    forced: Intervention | None = None
    resolved: Intervention | None = None
    resolved_as: Effect | None = None
    reprocess: bool = False
    batches: tuple[str, ...] = ()


class NotificationsState(Wire):
    """The number of notices sent to the subscriber, and the last one of kind `delayed`."""

    sequence: int = 0
    delayed: Notice | None = None


class CountedOutcomes(Wire):
    """What the breaker has counted of a call: each kind once."""

    answered: bool = False
    failed: bool = False
    responded: bool = False
    silent: bool = False


class CallSnapshot(Wire):
    """Everything a call knows, at its start or when it continues as new.

    Attributes:
        status: stage, counts, deadline, notice and an outcome that may be replaced are restored
            from it.
        rounds: how often a response was awaited so far.
        ended: cycles without a response that the statistics do not have yet.
        counted: which of its outcomes the breaker has counted.
        written_off: acknowledgements written off that the ledger does not know of yet.
        awaited: how long the response is awaited, from its sending.
        delayed_at: when the caller is told that it takes longer; None: at the deadline.
        ask_from: when the provider wants to be asked again, at the earliest.
    """

    status: CallStatus
    timings: Timings
    cycles: tuple[CycleState, ...] = (CycleState(number=1),)
    rounds: int = 0
    ended: tuple[CycleEnd, ...] = ()
    counted: CountedOutcomes = CountedOutcomes()
    messages: MessagesState = MessagesState()
    operator_requests: OperatorRequestsState = OperatorRequestsState()
    pending_acknowledgements: tuple[PendingAcknowledgementState, ...] = ()
    written_off: tuple[WrittenOff, ...] = ()
    notifications: NotificationsState = NotificationsState()
    awaited: timedelta | None = None
    delayed_at: AwareDatetime | None = None
    ask_from: AwareDatetime | None = None


class ParkedCause(Wire):
    """Why a call has no response; the fields are those of `workflows.call.cycles.Failure`."""

    reason: str
    code: OutcomeCode
    provider_code: str | None = None


class CallContinuation(Wire):
    """A call that waits: the second argument of a run that continues another one.

    Nothing else than the call's own continue-as-new, or its host that it leaves, may pass it.

    Attributes:
        parked: why it has no response; None: it awaits that, and its deadline has not passed.
    """

    plan: Plan
    parked: ParkedCause | None = None
    call: CallSnapshot
