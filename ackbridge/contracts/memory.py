"""What a parked call takes along when it continues as new: everything its history would tell."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime

from .calls import CallStatus, Notice, Steering, Timings
from .messages import ProviderMessage
from .plan import Plan
from .steps import AcknowledgeStep, SuppressedMessage
from .wire import Wire


class CycleMemory(Wire):
    """One cycle; see `workflows.cycles.Cycle`."""

    number: int
    reference: str | None = None
    was_sent: bool = False
    is_open: bool = False
    is_spent: bool = False
    has_given_up: bool = False
    sent_at: AwareDatetime | None = None
    silences: tuple[timedelta, ...] = ()


class DebtMemory(Wire):
    """An acknowledgement that the provider has not accepted, and since when we owe it."""

    step: AcknowledgeStep
    since: AwareDatetime


class ParkedMemory(Wire):
    """Why a call is parked; see `workflows.conversation.Unanswered`."""

    reason: str
    parked_reason: str
    notice: str = "failed"


class HearingMemory(Wire):
    """What was heard: waiting, known by its event key, or yet to be logged."""

    waiting: tuple[ProviderMessage, ...] = ()
    seen: tuple[str, ...] = ()
    suppressed: tuple[SuppressedMessage, ...] = ()
    held: tuple[ProviderMessage, ...] = ()
    duplicates: int = 0


class ToldMemory(Wire):
    """What a subscriber was told: how many notices, and the last one of a delay."""

    sequence: int = 0
    delayed: Notice | None = None


class CallMemory(Wire):
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
    cycles: tuple[CycleMemory, ...]
    rounds: int
    parked: ParkedMemory
    hearing: HearingMemory
    debts: tuple[DebtMemory, ...] = ()
    cancelled: Steering | None = None
    forced: Steering | None = None
    reprocess: bool = False
    told: ToldMemory = ToldMemory()
    batches: tuple[str, ...] = ()
