"""Classifying what went wrong, once, and saying when to try again."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.rendering import MissingReferenceError
from ackbridge.contracts.steps import FailedAttempt, FailureDetails, StepFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import ConfigurationError, LedgerUnavailableError

RETRYABLE_STATUSES = frozenset({408, 425, 429})
"""Besides every 5xx."""

FIRST_RETRY = timedelta(milliseconds=500)
LONGEST_RETRY = timedelta(minutes=5)
"""Retries back off from the one to the other, by doubling."""

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A provider may ask for patience, but not for more than this."""


class NoAnswerError(Exception):
    """A provider gave no usable answer; the same request may get one later.

    Attributes:
        reached: whether the provider may have got the request.
        retry_after: how long it asked us to wait, if it did.
        is_later: it is there, and said: not now.
    """

    def __init__(
        self,
        reason: str,
        *,
        reached: bool = False,
        retry_after: timedelta | None = None,
        is_later: bool = False,
    ) -> None:
        self.reached = reached
        self.is_later = is_later
        self.retry_after = retry_after
        super().__init__(reason)


class RefusedError(Exception):
    """A provider has answered, and will not do it.

    Attributes:
        reached: whether it may be doing something all the same.
    """

    def __init__(self, reason: str, *, reached: bool = False) -> None:
        self.reached = reached
        super().__init__(reason)


@dataclass(frozen=True)
class Cause:
    """What went wrong, classified.

    Attributes:
        final: whether the same step would fail again.
        reached, retry_after, is_later: as of `NoAnswerError`.
    """

    kind: StepFailure
    reason: str
    final: bool = False
    reached: bool = False
    retry_after: timedelta | None = None
    is_later: bool = False


def setback(error: ApplicationError) -> FailedAttempt:
    """The failure of an attempt that rode along, as a value; what it rode with has succeeded."""
    trouble = next(
        (one for one in error.details if isinstance(one, FailureDetails)), FailureDetails()
    )
    return FailedAttempt(
        kind=error.type or "Unknown",
        reason=error.message,
        reached=trouble.reached,
        again_after=None if error.non_retryable else error.next_retry_delay or timedelta(0),
    )


def cause_of(error: Exception, unanswered: StepFailure) -> Cause | None:
    """Classify what our own rooms raise; None for what nobody has foreseen.

    Args:
        unanswered: which failure it is when a provider gave no answer.
    """
    reason = str(error)
    match error:
        case NoAnswerError():
            return Cause(
                unanswered,
                reason,
                reached=error.reached,
                retry_after=error.retry_after,
                is_later=error.is_later,
            )
        case RefusedError():
            return Cause(StepFailure.REFUSED, reason, final=True, reached=error.reached)
        case MissingReferenceError():
            return Cause(StepFailure.NOT_ADDRESSED, reason, final=True)
        case InvalidInputError():
            return Cause(StepFailure.INVALID_REQUEST, reason, final=True)
        case LedgerUnavailableError() | ConfigurationError():
            # Somebody has to mend it, and then the same step succeeds.
            return Cause(StepFailure.UNAVAILABLE, reason)
        case _:
            return None


@contextmanager
def classified(unanswered: StepFailure = StepFailure.UNAVAILABLE) -> Iterator[None]:
    """Turn what our own rooms raise into failures of an activity."""
    try:
        yield
    except Exception as error:
        cause = cause_of(error, unanswered)
        if cause is None:
            raise
        delay = patience(activity.info().attempt, cause.retry_after)
        raise failure(
            cause.kind, cause.reason, final=cause.final, reached=cause.reached, delay=delay
        ) from None


def failure(
    kind: StepFailure,
    reason: str,
    *,
    final: bool,
    reached: bool = False,
    delay: timedelta | None = None,
) -> ApplicationError:
    """An activity's failure, with everything the workflow decides by.

    Args:
        final: whether it shall not be tried again.
        delay: before it is tried again; None for `patience`.
    """
    attempt = activity.info().attempt
    return ApplicationError(
        reason,
        FailureDetails(attempt=attempt, reached=reached),
        type=kind,
        non_retryable=final,
        next_retry_delay=None if final else delay or patience(attempt),
    )


def patience(
    attempt: int,
    retry_after: timedelta | None = None,
    first: timedelta = FIRST_RETRY,
    longest: timedelta = LONGEST_RETRY,
    growth: int = 2,
) -> timedelta:
    """How long to wait after an attempt; never the same for two, so that callers spread.

    Args:
        attempt: which one it was, from 1.
        retry_after: as the other side asks, to which up to a tenth is added; else `first`,
            `growth` times as long each time up to `longest`, of which up to a half is taken away.
    """
    times: int = growth ** min(attempt - 1, 16)
    share = random.random()  # noqa: S311 -- it spreads callers, and keeps no secret
    if retry_after is None:
        return min(first * times, longest) * (1 - share / 2)
    # Somebody who says "at once" for ever shall not have us run in circles.
    return max(retry_after * (1 + share / 10), first * (1 - share / 2))


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header: seconds or a date; None when it is absent or makes no sense."""
    if value is None:
        return None
    seconds = _seconds(value, now)
    if seconds is None or not math.isfinite(seconds):
        return None
    return timedelta(seconds=min(max(seconds, 0), LONGEST_RETRY_AFTER.total_seconds()))


def _seconds(value: str, now: datetime) -> float | None:
    try:
        return float(value)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    # Without a zone it is UTC, as every date in HTTP.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now).total_seconds()


def no_connection(error: httpx.HTTPError | TimeoutError) -> NoAnswerError:
    """No answer: only a connection that was never made proves that nothing arrived."""
    never_left = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    what = "could not connect" if never_left else "no answer"
    return NoAnswerError(f"{what}: {type(error).__name__}", reached=not never_left)


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed a moment later."""
    return status in RETRYABLE_STATUSES or status >= 500
