"""What people and services may tell a running call."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from .wire import Duration, StrictModel

_WHO = Field(min_length=1, max_length=200)
_WHY = Field(min_length=1, max_length=2000)


class Cancel(StrictModel):
    """The signal `cancel`."""

    by: str = _WHO
    reason: str = _WHY


class ForceAck(StrictModel):
    """The signal `force_ack`: end the waiting, with a response or without."""

    by: str = _WHO
    reason: str = _WHY
    response: Any = None


class Reprocess(StrictModel):
    """The signal `reprocess`: take a parked call up again."""

    by: str = _WHO
    batch: str | None = Field(default=None, max_length=200)


class AwaitOutcome(StrictModel):
    """The update `await_outcome`.

    Attributes:
        timeout: how long to wait for the outcome before answering with the status so far.
        request_digest: `CallRequest.digest` of the caller's request; a mismatch is refused.
    """

    timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(hours=1))
    request_digest: str | None = None
