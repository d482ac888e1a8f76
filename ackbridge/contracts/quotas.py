"""The send rates that providers turn out to accept, as learned from what they reject."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime

from .wire import Wire

WHOLE_QUOTA: Final = ""
"""The tenant of a quota that is the provider's as a whole."""


class QuotaStatus(Wire):
    """The rate of sends that a provider, or one of its tenants, turned out to accept.

    Attributes:
        per_second: sends, all workers together; None: nothing is rejected, and nothing limited.
        peak: the rate at which requests were rejected last.
        since: when the limit began.
        cut_at, raised_at: when the rate was last reduced, and last considered for a raise.
        throttled_at: when a request was last rejected.
        paused_until: nothing is sent before; the provider asked for it, or rejects nearly all.
        own_pause: the length of the last pause that the provider had not asked for, which doubles
            until a request is accepted; None: since then one was.
        stated: sends per second that the provider's rate-limit headers leave until they reset.
        reason: one line for operators.
    """

    per_second: float | None = None
    peak: float | None = None
    since: AwareDatetime
    cut_at: AwareDatetime | None = None
    raised_at: AwareDatetime | None = None
    throttled_at: AwareDatetime | None = None
    paused_until: AwareDatetime | None = None
    own_pause: timedelta | None = None
    stated: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        rates = [one for one in (self.per_second, self.stated) if one is not None]
        return f"{min(rates):.3g}/s" if rates else f"paused until {self.paused_until:%H:%M:%S} UTC"

    def is_paused(self, now: datetime) -> bool:
        return self.paused_until is not None and now < self.paused_until


class SecondCounts(Wire):
    """The answered requests that were sent in one second since 1970."""

    at: int
    accepted: int = 0
    throttled: int = 0


class QuotaStatement(Wire):
    """What a provider's rate-limit headers say.

    Attributes:
        at: when the answer arrived.
        remaining: requests that are accepted until `resets_at`.
        limit: requests of the whole window, if that is known.
    """

    at: AwareDatetime
    remaining: float
    resets_at: AwareDatetime
    limit: float | None = None


class QuotaReport(Wire):
    """What one worker knows of a provider's quota, or of one tenant's.

    Attributes:
        seconds: of the last minute, oldest first.
        paused_until: the latest pause that a 429 asked for.
        stated: the latest rate-limit headers.
    """

    provider: str
    tenant: str = WHOLE_QUOTA
    seconds: tuple[SecondCounts, ...] = ()
    paused_until: AwareDatetime | None = None
    stated: QuotaStatement | None = None
