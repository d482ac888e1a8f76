"""Count what happens in calls: errors of the provider apart from our own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from temporalio.exceptions import ApplicationError

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.steps import CycleEnd, RecordStep, SendStep, Sent, StepFailure
from ackbridge.stats.counters import Count, Timing

from .dependencies import Dependencies
from .retry import Classification

_PROVIDER_FAILURES = frozenset(
    {
        StepFailure.NO_RECEIPT,
        StepFailure.NOT_ACCEPTED,
        StepFailure.NOT_YET,
        StepFailure.UNREADABLE,
        StepFailure.ACKNOWLEDGEMENT_REFUSED,
    }
)
HEARD_WITHIN: Final = timedelta(hours=1)
"""Longer deadlines are not remembered: their responses count as heard at once."""

_INVALID = StepFailure.INVALID_REQUEST
_OUR_FAILURES = frozenset({StepFailure.UNAVAILABLE, StepFailure.MISSING})


@contextmanager
def counting_failures(
    deps: Dependencies, request: CallRequest, unanswered: Count | None = None
) -> Iterator[None]:
    """Count an activity's failure.

    Args:
        unanswered: the counter for a provider that gave no usable answer; None for activities that
            do not call the provider, where an invalid request is the caller's error, not ours.
    """
    try:
        yield
    except ApplicationError as error:
        if error.type in _PROVIDER_FAILURES and unanswered is not None:
            count(deps, request, unanswered)
        elif not _is_known(deps, request):
            # Statistics of names that no file has would be read by nobody.
            pass
        elif error.type in _OUR_FAILURES or (unanswered and error.type == _INVALID):
            count(deps, request, Count.OWN_ERRORS)
        raise


def _is_known(deps: Dependencies, request: CallRequest) -> bool:
    integration = deps.catalog.integrations.get(request.provider)
    return integration is not None and request.operation in integration.operations


def count(deps: Dependencies, request: CallRequest, what: Count, times: int = 1) -> None:
    deps.counters.count(request.provider, request.operation, what, times)


def count_receipt(deps: Dependencies, step: SendStep, sent: Sent) -> None:
    request = step.request
    count(deps, request, Count.RECEIPTS)
    deps.counters.order.answered(*_named(request), Count.CALLS_ANSWERED, sent.sent_at)
    if not step.answered:
        count(deps, request, Count.CALLS_ANSWERED)
    duration = sent.receipt_at - sent.sent_at
    deps.counters.time(request.provider, request.operation, Timing.RECEIPT, duration)


def count_failed_send(
    deps: Dependencies, step: SendStep, error: Classification, started_at: datetime
) -> None:
    """Count a failed attempt, and what the breaker has not counted of its call."""
    request = step.request
    if error.kind in (StepFailure.EXPIRED, StepFailure.HELD_BACK):
        return
    if error.kind in (StepFailure.REFUSED, StepFailure.UNREADABLE):
        count(deps, request, Count.REFUSED)
        deps.counters.order.answered(*_named(request), Count.CALLS_ANSWERED, started_at)
        if not step.answered:
            count(deps, request, Count.CALLS_ANSWERED)
    elif error.kind is not StepFailure.NO_RECEIPT:
        count(deps, request, Count.OWN_ERRORS)
    elif error.throttled:
        count(deps, request, Count.THROTTLED)
    else:
        count(deps, request, Count.UNANSWERED)
        if not step.failed and _is_judged(deps, request, started_at):
            count(deps, request, Count.CALLS_FAILED)
            if deps.counters.order.is_overtaken(*_named(request), Count.CALLS_ANSWERED, started_at):
                count(deps, request, Count.CALLS_FAILED_OVERTAKEN)


def _is_judged(deps: Dependencies, request: CallRequest, sent_at: datetime | None) -> bool:
    """Whether the breaker counts the failure of a request: not if it was sent before a change."""
    snapshot = deps.snapshots.latest(request.provider)
    return snapshot is None or sent_at is None or snapshot.judges(request.operation, sent_at)


def count_response(deps: Dependencies, step: RecordStep) -> None:
    """Count a response that was recorded for the first time, and how long it took."""
    request, counters = step.request, deps.counters
    count_cycle_ends(deps, request, step.ended)
    if step.outcome.forced is not None:
        return
    count(deps, request, Count.ANSWERS)
    _count_responded(deps, request, step.outcome.timings.sent_at, step.due)
    if step.outcome.late:
        count(deps, request, Count.LATE)
    if step.took is None:
        return
    names = (Timing.ANSWER, Timing.OVERDUE) if step.overdue else (Timing.ANSWER,)
    for name in names:
        counters.time(request.provider, request.operation, name, step.took)
    for waited in step.taken_back:
        counters.time(request.provider, request.operation, Timing.SILENCE, waited, -1)


async def count_silence(deps: Dependencies, request: CallRequest, silence: CycleEnd) -> None:
    """Count a silence when it happens, by the breaker as it is now."""
    await deps.snapshots.snapshot(request.provider)
    count_cycle_ends(deps, request, [silence])


def count_cycle_ends(deps: Dependencies, request: CallRequest, ends: Iterable[CycleEnd]) -> None:
    """Count cycles that ended without a response."""
    for end in ends:
        count(deps, request, Count.SILENCES if end.silent else Count.FAILURES)
        if end.after is not None:
            name = Timing.SILENCE if end.silent else Timing.ANSWER
            deps.counters.time(request.provider, request.operation, name, end.after)
        if end.again:
            continue
        if not end.silent:
            _count_responded(deps, request, end.sent_at, end.due)
        elif _is_judged(deps, request, end.sent_at):
            count(deps, request, Count.CALLS_SILENT)
            if end.sent_at is not None and deps.counters.order.is_overtaken(
                *_named(request), Count.CALLS_RESPONDED, end.sent_at
            ):
                count(deps, request, Count.CALLS_SILENT_OVERTAKEN)


def _count_responded(
    deps: Dependencies, request: CallRequest, sent_at: datetime | None, due: datetime | None
) -> None:
    """Count a response for the breaker, now and beside the silences of its time."""
    count(deps, request, Count.CALLS_RESPONDED)
    if sent_at is not None:
        deps.counters.order.answered(*_named(request), Count.CALLS_RESPONDED, sent_at)
    now = deps.clock()
    is_remembered = due is not None and due <= now + HEARD_WITHIN
    at = due if due is not None and is_remembered else now
    deps.counters.count_at(*_named(request), Count.CALLS_HEARD, at)


def _named(request: CallRequest) -> tuple[str, str]:
    return request.provider, request.operation
