"""What a parked call takes along when it continues as new: everything its history would tell."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime

from .calls import CallStatus, Intervention, Notice, Timings
from .messages import ProviderMessage
from .plan import Plan
from .steps import AcknowledgeStep, SuppressedMessage
from .wire import Wire


class CycleState(Wire):
    """One cycle; see `workflows.call.cycles.Cycle`."""

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    is_spent: bool = False
    has_given_up: bool = False
    sent_at: AwareDatetime | None = None
    silences: tuple[timedelta, ...] = ()


class PendingAcknowledgementState(Wire):
    """An acknowledgement that the provider has not accepted, and since when we owe it."""

    step: AcknowledgeStep
    since: AwareDatetime


class ParkedCause(Wire):
    """Why a call is parked; see `workflows.call.conduct.Unanswered`."""

    reason: str
    parked_reason: str
    notice: str = "failed"


class MessagesState(Wire):
    """What was heard: waiting, known by its event key, or yet to be logged."""

    waiting: tuple[ProviderMessage, ...] = ()
    seen: tuple[str, ...] = ()
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    duplicates: int = 0


class NotificationsState(Wire):
    """What a subscriber was told: how many notices, and the last one of a delay."""

    sequence: int = 0
    delayed: Notice | None = None


class CallContinuation(Wire):
    """A parked call, whole.

    It is the second argument of a run that continues another one; nobody else may give one.

    Attributes:
        status: as it was shown last; stage, counts, deadline and notice are taken from it.
        rounds: how often a response was awaited so far.
        parked: why the call is parked.
        cancelled, forced, reprocess: orders that have not been carried out yet.
        told: what the call's subscriber knows.
        batches: the last ones that have taken it up.
    """

    plan: Plan
    status: CallStatus
    timings: Timings
    cycles: tuple[CycleState, ...]
    rounds: int
    parked: ParkedCause
    hearing: MessagesState
    debts: tuple[PendingAcknowledgementState, ...] = ()
    cancelled: Intervention | None = None
    forced: Intervention | None = None
    reprocess: bool = False
    told: NotificationsState = NotificationsState()
    batches: tuple[str, ...] = ()
