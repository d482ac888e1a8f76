"""Noting what is observed of a provider: its trouble told apart from ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.steps import CycleEnd, RecordStep, Sent, StepFailure
from ackbridge.stats.counters import Count, Timing

from .dependencies import Dependencies
from .retry import Cause

_THEIRS = frozenset({StepFailure.NO_RECEIPT, StepFailure.NOT_ACCEPTED, StepFailure.NOT_YET})
_OURS = frozenset({StepFailure.UNAVAILABLE, StepFailure.INVALID_REQUEST})


@contextmanager
def noted(
    provisions: Dependencies, request: CallRequest, in_vain: Count | None = None
) -> Iterator[None]:
    """Count how an activity fails.

    Args:
        in_vain: what it is when the provider gave no usable answer; None where it is not asked
            for any, and a request that is no good is its caller's trouble, not ours.
    """
    try:
        yield
    except ApplicationError as error:
        if error.type in _THEIRS and in_vain is not None:
            note(provisions, request, in_vain)
        elif error.type == StepFailure.UNAVAILABLE or (in_vain and error.type in _OURS):
            note(provisions, request, Count.OWN_ERRORS)
        raise


def note(provisions: Dependencies, request: CallRequest, what: Count, times: int = 1) -> None:
    """Count something of a call's operation."""
    provisions.counters.count(request.provider, request.operation, what, times)


def note_receipt(provisions: Dependencies, request: CallRequest, sent: Sent) -> None:
    """The provider has the request."""
    note(provisions, request, Count.RECEIPTS)
    took = sent.receipt_at - sent.sent_at
    provisions.counters.time(request.provider, request.operation, Timing.RECEIPT, took)


def note_not_received(provisions: Dependencies, request: CallRequest, cause: Cause) -> None:
    """An attempt of a send has failed."""
    if cause.kind is StepFailure.REFUSED:
        note(provisions, request, Count.REFUSED)
    elif cause.kind is StepFailure.NO_RECEIPT:
        note(provisions, request, Count.THROTTLED if cause.is_later else Count.UNANSWERED)
    else:
        note(provisions, request, Count.OWN_ERRORS)


def note_response(provisions: Dependencies, step: RecordStep) -> None:
    """A response was recorded, for the first time."""
    request, counters = step.request, provisions.counters
    note_ends(provisions, request, step.ended)
    if step.outcome.forced is not None:
        return
    note(provisions, request, Count.ANSWERS)
    if step.outcome.late:
        note(provisions, request, Count.LATE)
    if step.took is None:
        return
    names = (Timing.ANSWER, Timing.OVERDUE) if step.overdue else (Timing.ANSWER,)
    for name in names:
        counters.time(request.provider, request.operation, name, step.took)
    for waited in step.taken_back:
        counters.time(request.provider, request.operation, Timing.SILENCE, waited, -1)


def note_ends(provisions: Dependencies, request: CallRequest, ends: Iterable[CycleEnd]) -> None:
    """Cycles have ended without a response."""
    for one in ends:
        note(provisions, request, Count.SILENCES if one.silent else Count.FAILURES)
        if one.after is not None:
            name = Timing.SILENCE if one.silent else Timing.ANSWER
            provisions.counters.time(request.provider, request.operation, name, one.after)


def is_first_attempt() -> bool:
    """Whether what a step tells has not been noted by an attempt before this one."""
    return activity.info().attempt == 1
