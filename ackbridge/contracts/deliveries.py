"""Notices to subscribers, and their delivery."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field

from .calls import Effect, Notice, NoticeStatus, OutcomeCode
from .limits import MAX_KEY_LENGTH, Identifier, Name
from .wire import Duration, StrictModel, Wire, digest


class NoticeEvent(StrEnum):
    """Events that subscribers are notified of.

    Attributes:
        DELAYED: the call is parked. Sent again when it is parked again and the notice differs, for
            instance in the expected time.
        COMPLETED: it has its response, and no delay was notified.
        COMPLETED_LATE: it has its response, late.
        FAILED: it ended without a response.
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
"""All but `completed`, which the caller sees anyway."""

DEFAULT_WITHIN = timedelta(days=3)
"""How long a notice is retried."""

DEFAULT_TIMEOUT = timedelta(seconds=10)
"""The timeout of one attempt."""

MAX_TIMEOUT = timedelta(seconds=60)
"""A subscriber that needs longer should accept the notice first and process it afterwards."""


class ReplyPlan(Wire):
    """Whom a call notifies, of which events.

    Attributes:
        timeout: of one attempt.
        within: how long each notice is retried.
    """

    subscriber: str
    events: tuple[NoticeEvent, ...] = DEFAULT_EVENTS
    timeout: timedelta = DEFAULT_TIMEOUT
    within: timedelta = DEFAULT_WITHIN


class NoticeData(Wire):
    """The state of a call in a notice.

    Attributes:
        metadata: as given by the caller.
        sequence: numbers the notices of a call from 1; the highest is the newest, in whatever order
            they arrive.
        late: it was completed after a cycle was given up or a delay was notified.
        reference: the provider's own id of its work, if known.
        notice: what to show the user; its `expected_at` is when a delayed call is reprocessed.
        response: the provider's response, if the subscriber is configured to get it.
        effect, code: as in `CallOutcome`, once the call has one.
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
    effect: Effect | None = None
    code: OutcomeCode | None = None


class EventData(Wire):
    """An event of a provider that no call waits for.

    Attributes:
        event: its name in the provider's integration file.
        event_key: the provider's own; the same event has the same key.
        object: what it is about; the events of one object are delivered in their order.
        call_id: the call that it names, which may have ended.
        data: the event, or the part of it that the file selects. Added when it is sent.
    """

    provider: str
    event: str
    event_key: str
    object: str | None = None
    call_id: str | None = None
    data: Any = None


class NoticeBody(Wire):
    """The JSON body of a notice, as in Standard Webhooks.

    Attributes:
        id: the same in every attempt and in the header `webhook-id`; identifies duplicates.
        type: `call.<event>`, such as `call.delayed`; or `event.<name>` for events of providers.
        timestamp: of the event; the header `webhook-timestamp` is that of the attempt.
    """

    id: str
    type: str
    timestamp: AwareDatetime
    data: NoticeData | EventData

    @property
    def call(self) -> NoticeData:
        """The data of a notice about a call; only of the types `call.…`."""
        if isinstance(self.data, EventData):
            raise TypeError(f"{self.type} is no notice about a call")
        return self.data


class Delivery(StrictModel):
    """The one argument of the workflow `DeliverNotice` and of its activity.

    Attributes:
        timeout: of one attempt; the subscriber's file may set a shorter one.
        within: how long it is retried, from the start of the workflow.
        again: deliver it even if it was delivered before.
    """

    subscriber: Name
    body: NoticeBody
    timeout: Duration = Field(default=MAX_TIMEOUT, gt=timedelta(0), le=MAX_TIMEOUT)
    within: Duration = Field(default=DEFAULT_WITHIN, gt=timedelta(0))
    again: bool = False


class Delivered(Wire):
    """The result of a delivery: the subscriber has accepted the notice, now or before."""

    delivered_at: AwareDatetime


class DeadLetterStep(Wire):
    """Store a notice that could not be delivered as a dead letter."""

    delivery: Delivery
    reason: str


class VisitStep(Wire):
    """Send a GET request to the URL in an event of a provider, which is in the ledger."""

    provider: str
    event: str
    event_key: str


class HoldEventStep(Wire):
    """Hold an event for operators, and say why nothing came of it."""

    provider: str
    event_key: str
    reason: str


class ForwardedEvent(StrictModel):
    """What happens with one event of a provider: a notice, or a visit.

    Attributes:
        event_key: of the event; one that the workflow has is ignored.
    """

    event_key: Identifier
    notice: Delivery | None = None
    visit: VisitStep | None = None


class ForwardedEvents(StrictModel):
    """The signal `forward`: events in the order in which they were stored.

    Attributes:
        events: `ForwardedEvent`s, each validated by itself.
    """

    events: tuple[Any, ...] = Field(min_length=1)


class EventStream(StrictModel):
    """The one argument of the workflow `ForwardEvents`.

    Attributes:
        subject: the object whose events it forwards in order; else the key of its only event.
    """

    provider: Name
    subject: str


class EventStreamState(Wire):
    """What a run of `ForwardEvents` passes to the next one."""

    waiting: tuple[ForwardedEvent, ...] = ()
    seen: tuple[str, ...] = ()


def provider_event_id(provider: str, event_key: str) -> str:
    """The id of the notice of a provider's event, valid in an HTTP header."""
    is_plain = event_key.isascii() and event_key.isprintable() and " " not in event_key
    return f"{provider}:{event_key if is_plain else digest(event_key)}"


def event_id(call_id: str, sequence: int, event: NoticeEvent) -> str:
    """The id of a notice, derived from its content and valid in an HTTP header.

    Call ids that are long or not printable ASCII are replaced by their digest.
    """
    is_plain = call_id.isascii() and call_id.isprintable() and " " not in call_id
    is_short = len(call_id) <= MAX_KEY_LENGTH
    about = call_id if is_plain and is_short else digest(call_id)
    return f"{about}:{sequence}.{event}"
