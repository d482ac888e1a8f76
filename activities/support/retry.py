"""Classify errors, once, and decide when to retry."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.rendering import MissingReferenceError
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.steps import FailedAttempt, FailureDetails, StepFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import (
    ConfigurationError,
    LedgerUnavailableError,
    SecretError,
    UnknownNameError,
)
from ackbridge.http.client import EgressRefusedError, network_problem

INITIAL_INTERVAL = timedelta(milliseconds=500)
MAXIMUM_INTERVAL = timedelta(minutes=5)

MAX_MISSING_INTERVAL = timedelta(seconds=10)
"""Another worker may have what this one is missing."""


@dataclass(eq=False)
class RetryableError(Exception):
    """The other side gave no usable answer; the same request may succeed later.

    Attributes:
        reached: whether the other side may have received the request.
        retry_after: the delay it asked for.
        throttled: it answered 408, 425 or 429.
    """

    reason: str
    reached: bool = False
    retry_after: timedelta | None = None
    throttled: bool = False


@dataclass(eq=False)
class RefusedError(Exception):
    """The other side refused the request for good.

    Attributes:
        code: the provider's own code of the refusal.
        retry_after: the delay it asked for, where the refusal is not final.
    """

    reason: str
    code: str | None = None
    retry_after: timedelta | None = None


@dataclass(eq=False)
class UnreadableError(Exception):
    """The provider has the request, and its answer cannot be used."""

    reason: str


@dataclass(eq=False)
class HeldBackError(Exception):
    """Nothing may be sent for some time; nothing was. Without a delay it has waited long enough."""

    reason: str
    delay: timedelta | None


class ExpiredError(Exception):
    """The request's `expires_at` has passed; nothing was sent."""


def require_time(request: CallRequest, now: datetime) -> None:
    """Refuse to send an expired request.

    Raises:
        ExpiredError: its `expires_at` has passed, by our clock or by the engine's.
    """
    expires_at = request.expires_at
    if expires_at is not None and expires_at <= max(now, activity.info().started_time):
        raise ExpiredError(f"the request has expired at {expires_at.isoformat()}")


@dataclass(frozen=True)
class Classification:
    """A classified error.

    Attributes:
        final: whether the same step would fail again.
        reached, retry_after, throttled: as in `RetryableError`.
        code: the provider's own code of a refusal.
    """

    kind: StepFailure
    reason: str
    final: bool = False
    reached: bool = False
    retry_after: timedelta | None = None
    throttled: bool = False
    code: str | None = None

    def failure(self, attempt: int, made: int | None = None) -> ApplicationError:
        """The failure of the running activity.

        Args:
            attempt: the number of the failed attempt, from 1, for the delay before the next one.
            made: the attempts that the activity has made; None: as many as the engine has started.
        """
        is_missing = self.kind is StepFailure.MISSING
        maximum = MAX_MISSING_INTERVAL if is_missing else MAXIMUM_INTERVAL
        return activity_failure(
            self.kind,
            self.reason,
            final=self.final,
            reached=self.reached,
            delay=retry_delay(attempt, self.retry_after, maximum=maximum),
            code=self.code,
            made=made,
            throttled=self.throttled,
        )


def classify_error(error: Exception, unanswered: StepFailure) -> Classification | None:
    """Classify an error of ours; None for an unexpected one.

    Args:
        unanswered: the kind of failure when the other side gave no usable answer.
    """
    match error:
        case RetryableError(reason, reached, retry_after, throttled):
            return Classification(unanswered, reason, False, reached, retry_after, throttled)
        case RefusedError(reason, code, retry_after):
            kind = StepFailure.REFUSED
            return Classification(kind, reason, final=True, code=code, retry_after=retry_after)
        case UnreadableError(reason):
            return Classification(StepFailure.UNREADABLE, reason, final=True, reached=True)
        case HeldBackError(reason, delay):
            is_final = delay is None
            return Classification(StepFailure.HELD_BACK, reason, is_final, retry_after=delay)
        case ExpiredError():
            return Classification(StepFailure.EXPIRED, str(error), final=True)
        case MissingReferenceError():
            return Classification(StepFailure.NOT_ADDRESSED, str(error), final=True)
        case InvalidInputError():
            return Classification(StepFailure.INVALID_REQUEST, str(error), final=True)
        case UnknownNameError() | SecretError():
            return Classification(StepFailure.MISSING, str(error))
        case LedgerUnavailableError() | ConfigurationError():
            # An operator can repair it, and then the same step succeeds.
            return Classification(StepFailure.UNAVAILABLE, str(error))
        case _:
            return None


@contextmanager
def classified_errors(unanswered: StepFailure = StepFailure.UNAVAILABLE) -> Iterator[None]:
    """Turn errors of ours into failures of the activity; unexpected ones pass through."""
    try:
        yield
    except Exception as error:
        found = classify_error(error, unanswered)
        if found is None:
            raise
        raise found.failure(activity.info().attempt) from None


def activity_failure(
    kind: StepFailure,
    reason: str,
    *,
    final: bool,
    reached: bool = False,
    delay: timedelta | None = None,
    code: str | None = None,
    made: int | None = None,
    throttled: bool = False,
) -> ApplicationError:
    """The failure of the running activity, with everything the workflow decides by.

    Args:
        final: whether it must not be retried.
        delay: before the next attempt; None for `retry_delay`.
        code: the provider's own code of a refusal.
        made: the attempts that it has made; None: as many as the engine has started.
        throttled: as in `RetryableError`.
    """
    attempt = activity.info().attempt if made is None else made
    return ApplicationError(
        reason,
        FailureDetails(attempt=attempt, reached=reached, code=code, throttled=throttled),
        type=kind,
        non_retryable=final,
        next_retry_delay=None if final else delay or retry_delay(attempt),
    )


def failed_attempt(error: ApplicationError) -> FailedAttempt:
    """An activity failure as a value, for the result of an activity that also ran this one."""
    details = next(
        (one for one in error.details if isinstance(one, FailureDetails)), FailureDetails()
    )
    return FailedAttempt(
        kind=error.type or "Unknown",
        reason=error.message,
        reached=details.reached,
        code=details.code,
        throttled=details.throttled,
        again_after=None if error.non_retryable else error.next_retry_delay or timedelta(0),
    )


def retry_delay(
    attempt: int,
    retry_after: timedelta | None = None,
    initial: timedelta = INITIAL_INTERVAL,
    maximum: timedelta = MAXIMUM_INTERVAL,
    coefficient: int = 2,
) -> timedelta:
    """The delay before the next attempt, with jitter.

    Args:
        attempt: the number of the failed attempt, from 1.
        retry_after: the delay that the other side asked for; jitter adds up to a tenth. Without
            it, exponential backoff, of which jitter takes away up to a half.
    """
    jitter = random.random()  # noqa: S311 -- it spreads retries, and keeps no secret
    if retry_after is None:
        factor: int = coefficient ** min(attempt - 1, 16)
        return min(initial * factor, maximum) * (1 - jitter / 2)
    # A Retry-After of 0 must not become a busy loop.
    return max(retry_after * (1 + jitter / 10), initial * (1 - jitter / 2))


def network_failure(error: httpx.HTTPError | TimeoutError) -> RetryableError:
    """Only a connection that was never made proves that nothing arrived."""
    if isinstance(error, EgressRefusedError):
        return RetryableError(str(error))
    not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return RetryableError(network_problem(error), reached=not not_sent)
