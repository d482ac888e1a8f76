"""What a subscriber is told about a call, and how it gets there."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field

from .calls import Notice, NoticeStatus
from .limits import MAX_KEY_LENGTH, Name
from .wire import Duration, StrictModel, Wire, digest


class NoticeEvent(StrEnum):
    """The moments at which a subscriber can be told.

    Attributes:
        DELAYED: the call is parked. Again when it is parked again, if there is something new to
            say, such as another expected time.
        COMPLETED: it has its response, and nobody was told that it is delayed.
        COMPLETED_LATE: it has its response, late.
        FAILED: it ended without one; the notice has the alternative.
        CANCELLED: somebody cancelled it.
    """

    DELAYED = "delayed"
    COMPLETED = "completed"
    COMPLETED_LATE = "completed_late"
    FAILED = "failed"
    CANCELLED = "cancelled"


DEFAULT_EVENTS = (
    NoticeEvent.DELAYED,
    NoticeEvent.COMPLETED_LATE,
    NoticeEvent.FAILED,
    NoticeEvent.CANCELLED,
)
"""All but what goes well in time: whoever starts a call sees that anyway."""

DEFAULT_WITHIN = timedelta(days=3)
"""How long a notice is tried."""

DEFAULT_TIMEOUT = timedelta(seconds=10)
"""Of one attempt."""

MAX_TIMEOUT = timedelta(seconds=60)
"""A subscriber that needs longer should accept first and work then."""


class ReplyPlan(Wire):
    """Who is told what becomes of a call.

    Attributes:
        subscriber: its name.
        events: when it wants to be told.
        timeout: of one attempt.
        within: how long each notice is tried.
    """

    subscriber: str
    events: tuple[NoticeEvent, ...] = DEFAULT_EVENTS
    timeout: timedelta = DEFAULT_TIMEOUT
    within: timedelta = DEFAULT_WITHIN


class NoticeData(Wire):
    """What has become of a call.

    Attributes:
        call_id, provider, operation, key, metadata: of the call, as its caller gave them.
        sequence: 1, 2, 3 … of the notices of this call: the greatest one is the newest,
            whatever arrives first.
        status: delayed, completed, failed or cancelled.
        late: it was completed after we had given up on it, or had told that it is delayed.
        reference: the provider's own id of its work, if it has told one.
        notice: what to show the user; its `expected_at` is when a delayed call is taken up again.
        response: the provider's answer, where the subscriber is configured to get it.
    """

    call_id: str
    provider: str
    operation: str
    key: str
    metadata: dict[str, str] = Field(default_factory=dict)
    sequence: int
    status: NoticeStatus
    late: bool = False
    reference: str | None = None
    notice: Notice | None = None
    response: Any = None


class NoticeBody(Wire):
    """The JSON body of a notice, in the form of Standard Webhooks.

    Attributes:
        id: the same at every attempt, and as the header `webhook-id`: two with one id are one.
        type: `call.delayed`, `call.completed`, `call.completed_late`, `call.failed` or
            `call.cancelled`.
        timestamp: when it happened; the header `webhook-timestamp` is when it is sent.
    """

    id: str
    type: str
    timestamp: AwareDatetime
    data: NoticeData


class Delivery(StrictModel):
    """The one argument of the workflow `DeliverNotice` and of its activity.

    Attributes:
        subscriber: who gets it.
        body: what.
        timeout: how long one attempt may take at the most; the subscriber's file may say less.
        within: how long it is tried, from the start on.
        again: send it even if it was delivered before.
    """

    subscriber: Name
    body: NoticeBody
    timeout: Duration = Field(default=MAX_TIMEOUT, gt=timedelta(0), le=MAX_TIMEOUT)
    within: Duration = Field(default=DEFAULT_WITHIN, gt=timedelta(0))
    again: bool = False


class Delivered(Wire):
    """The subscriber has accepted the notice, now or before."""

    delivered_at: AwareDatetime


class DeadLetterStep(Wire):
    """Keep a notice that could not be delivered, for people; `reason` says why not."""

    delivery: Delivery
    reason: str


def event_id(call_id: str, sequence: int, event: NoticeEvent) -> str:
    """The id of one notice: derived from what it is about, and fit for an HTTP header."""
    is_plain = call_id.isascii() and call_id.isprintable() and " " not in call_id
    is_short = len(call_id) <= MAX_KEY_LENGTH
    about = call_id if is_plain and is_short else digest(call_id)
    return f"{about}:{sequence}.{event}"
