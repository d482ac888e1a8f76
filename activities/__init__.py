"""Side effects, one file per verb, and the lists of them that workers register."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from activities.support.dependencies import Dependencies

from .acknowledge import Acknowledge
from .ask_status import AskStatus
from .audit import Audit
from .conclude import Conclude
from .deliver import Deliver
from .forward import Forward
from .list_events import ListEvents
from .observe import Observe
from .perform_steps import PerformSteps
from .prepare import Prepare
from .purge import PurgePages
from .record import Record
from .reprocess import ReprocessPages
from .resume_parked import ResumeParked
from .send import InboxReader, Send
from .settle import Settle
from .store_snapshot import StoreSnapshot
from .throttle import Throttle

Activity = Callable[..., Awaitable[Any]]


def main_activities(deps: Dependencies) -> Sequence[Activity]:
    """The main queue's activities, and those that may run as local activities."""
    prepare = Prepare(deps, Send(deps))
    reprocess = ReprocessPages(deps)
    return [
        prepare.prepare,
        prepare.reconsider,
        Record(deps, Acknowledge(deps)).record,
        Conclude(deps).conclude,
        PerformSteps(deps).perform_steps,
        Deliver(deps).bury,
        Forward(deps).hold_event,
        Forward(deps).hold_message,
        reprocess.survey_parked,
        reprocess.reprocess_page,
        PurgePages(deps).purge_page,
        Settle(deps).settle,
        Audit(deps).audit,
        *send_activities(deps),
        *settle_activities(deps),
        *control_activities(deps),
    ]


def send_activities(deps: Dependencies) -> Sequence[Activity]:
    """The activities of a provider's send queue."""
    return [Send(deps).send]


def settle_activities(deps: Dependencies) -> Sequence[Activity]:
    """The activities of a provider's settle queue."""
    status = AskStatus(deps)
    inbox = InboxReader(deps)
    return [
        inbox.correlate,
        inbox.look_inbox,
        status.ask_status,
        status.poll,
        status.fetch_result,
        Acknowledge(deps).acknowledge,
        Forward(deps).visit,
        ListEvents(deps).list_events,
    ]


def control_activities(deps: Dependencies) -> Sequence[Activity]:
    """The activities of a provider's control queue."""
    return [
        Observe(deps).observe,
        Throttle(deps).throttle,
        ResumeParked(deps).drain,
        StoreSnapshot(deps).store_snapshot,
    ]


def notices_activities(deps: Dependencies) -> Sequence[Activity]:
    """The activities of a subscriber's notices queue."""
    return [Deliver(deps).deliver]


__all__ = [
    "Activity",
    "Dependencies",
    "control_activities",
    "main_activities",
    "notices_activities",
    "send_activities",
    "settle_activities",
]
