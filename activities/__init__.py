"""Side effects, one file per verb, and the lists of them that workers register."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from activities.support.dependencies import Dependencies

from .acknowledge import Acknowledge
from .ask_status import AskStatus
from .conclude import Conclude
from .dead_letter import DeadLetter
from .deliver import Deliver
from .observe import Observe
from .poll import Poll
from .prepare import Prepare
from .purge import PurgePages
from .reconsider import Reconsider
from .record import Record
from .reprocess import ReprocessPages
from .resume_parked import ResumeParked
from .send import Send
from .throttle import Throttle

Activity = Callable[..., Awaitable[Any]]


def main_activities(provisions: Dependencies) -> Sequence[Activity]:
    """Everything: what the main queue's worker may do in a workflow task."""
    pages = ReprocessPages(provisions)
    return [
        Prepare(provisions, Send(provisions)).prepare,
        Reconsider(provisions).reconsider,
        Record(provisions, Acknowledge(provisions)).record,
        Conclude(provisions).conclude,
        DeadLetter(provisions).bury,
        pages.survey_parked,
        pages.reprocess_page,
        PurgePages(provisions).purge_page,
        *send_activities(provisions),
        *settle_activities(provisions),
    ]


def send_activities(provisions: Dependencies) -> Sequence[Activity]:
    """What goes through a provider's send queue."""
    return [Send(provisions).send]


def settle_activities(provisions: Dependencies) -> Sequence[Activity]:
    """What goes through a provider's settle queue."""
    return [
        AskStatus(provisions).ask_status,
        Poll(provisions).poll,
        Acknowledge(provisions).acknowledge,
        Observe(provisions).observe,
        Throttle().throttle,
        ResumeParked(provisions).drain,
    ]


def notices_activities(provisions: Dependencies) -> Sequence[Activity]:
    """What goes through the queue of a subscriber's notices."""
    return [Deliver(provisions).deliver]


__all__ = [
    "Activity",
    "Dependencies",
    "main_activities",
    "notices_activities",
    "send_activities",
    "settle_activities",
]
