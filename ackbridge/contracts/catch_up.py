"""Catching up: events that a provider lists, and that no callback has delivered."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field

from .limits import Actor, Name
from .wire import StrictModel, Wire


class CatchUpRequest(StrictModel):
    """The one argument of the workflow `CatchUp`.

    Attributes:
        since: events before this time are not asked for.
        until: neither are those after it; None: the start of the workflow.
        by: who requests it.
    """

    provider: Name
    since: AwareDatetime
    until: AwareDatetime | None = None
    by: Actor


class CatchUpProgress(Wire):
    """What has been read so far; the result of `CatchUp`, and the state of its next run.

    Attributes:
        page: what leads to the next page; None at the first one.
        pages: read so far.
        events: by what became of them: `signalled`, `kept`, `duplicate` and so on as in replies to
            callbacks, and `unreadable`.
        last_problem: why the last unreadable event could not be read.
    """

    page: Any = None
    pages: int = 0
    events: dict[str, int] = Field(default_factory=dict)
    last_problem: str | None = None


class ListEventsStep(Wire):
    """Read one page of a provider's events, and deliver them."""

    provider: str
    since: AwareDatetime
    until: AwareDatetime
    page: Any = None


class ListedEvents(Wire):
    """What became of the events of one page.

    Attributes:
        next_page: what leads to the next page; None on the last one.
        max_pages: of one catch-up, as the provider's file says.
    """

    events: dict[str, int] = Field(default_factory=dict)
    next_page: Any = None
    max_pages: int
    last_problem: str | None = None
