"""Classifying what went wrong, once, where it happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import Invalid, StepFailure, Trouble
from ackbridge.errors import ConfigurationError, LedgerUnavailable

RETRYABLE_STATUSES = frozenset({408, 425, 429})
"""Besides every 5xx."""


def failure(
    kind: StepFailure,
    reason: str,
    *,
    final: bool,
    reached: bool = False,
    retry_after: timedelta | None = None,
) -> ApplicationError:
    """An activity's failure, with everything the workflow decides by."""
    return ApplicationError(
        reason,
        Trouble(attempt=activity.info().attempt, reached=reached),
        type=kind,
        non_retryable=final,
        next_retry_delay=None if final else retry_after,
    )


@contextmanager
def classified() -> Iterator[None]:
    """Turn what our own rooms raise into failures of an activity."""
    try:
        yield
    except LedgerUnavailable as error:
        raise failure(StepFailure.UNAVAILABLE, str(error), final=False) from None
    except Invalid as error:
        raise failure(StepFailure.INVALID_REQUEST, str(error), final=True) from None
    except ConfigurationError as error:
        # Somebody has to mend it, and then the same step succeeds.
        raise failure(StepFailure.UNAVAILABLE, str(error), final=False) from None


def transport_failure(kind: StepFailure, error: httpx.HTTPError | TimeoutError) -> ApplicationError:
    """No answer: only a connection that was never made proves that nothing arrived."""
    never_left = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    what = "could not connect" if never_left else "no answer"
    return failure(kind, f"{what}: {type(error).__name__}", final=False, reached=not never_left)


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed a moment later."""
    return status in RETRYABLE_STATUSES or status >= 500


def retry_after(value: str | None, now: datetime, at_most: timedelta) -> timedelta | None:
    """Read a Retry-After header: seconds or a date; None when it is absent or makes no sense."""
    if value is None:
        return None
    try:
        delay = timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        try:
            delay = parsedate_to_datetime(value) - now
        except (ValueError, TypeError):
            return None
    return min(max(delay, timedelta(0)), at_most)
