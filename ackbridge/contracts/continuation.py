"""What a parked call passes to its next run when it continues as new."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime

from .calls import CallStatus, Intervention, Notice, Timings
from .messages import ProviderMessage
from .plan import Plan
from .steps import AcknowledgeStep, CycleEnd, SuppressedMessage
from .wire import Wire


class CycleState(Wire):
    """One cycle; the fields are those of `workflows.call.cycles.Cycle`."""

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    is_spent: bool = False
    has_given_up: bool = False
    sent_at: AwareDatetime | None = None
    timeouts: tuple[timedelta, ...] = ()


class PendingAcknowledgementState(Wire):
    """An acknowledgement that the provider has not accepted; `since` is its first attempt."""

    step: AcknowledgeStep
    since: AwareDatetime


class MessagesState(Wire):
    """Messages: waiting, known by their event keys, and still to be written to the ledger."""

    waiting: tuple[ProviderMessage, ...] = ()
    seen: tuple[str, ...] = ()
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    duplicates: int = 0


class OperatorRequestsState(Wire):
    """Operators' requests that are pending, and the last batches that reprocessed the call."""

    cancelled: Intervention | None = None
    forced: Intervention | None = None
    reprocess: bool = False
    batches: tuple[str, ...] = ()


class NotificationsState(Wire):
    """The number of notices sent to the subscriber, and the last one of kind `delayed`."""

    sequence: int = 0
    delayed: Notice | None = None


class CallSnapshot(Wire):
    """Everything a call knows, at its start or when it continues as new.

    Attributes:
        status: stage, counts, deadline and notice are restored from it.
        rounds: how often a response was awaited so far.
        ended: cycles without a response that the statistics do not have yet.
    """

    status: CallStatus
    timings: Timings
    cycles: tuple[CycleState, ...] = (CycleState(number=1),)
    rounds: int = 0
    ended: tuple[CycleEnd, ...] = ()
    messages: MessagesState = MessagesState()
    operator_requests: OperatorRequestsState = OperatorRequestsState()
    pending_acknowledgements: tuple[PendingAcknowledgementState, ...] = ()
    notifications: NotificationsState = NotificationsState()


class ParkedCause(Wire):
    """Why a call is parked; the fields are those of `workflows.call.cycles.Failure`."""

    reason: str
    code: str
    notice: str = "failed"


class CallContinuation(Wire):
    """A parked call: the second argument of a run that continues another one.

    Nothing else than the call's own continue-as-new may pass it.
    """

    plan: Plan
    parked: ParkedCause
    call: CallSnapshot
