"""From what workers have reported to what the breaker decides by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    BreakerWindow,
    MonitorState,
    SendRate,
)
from ackbridge.stats.counters import FINE
from ackbridge.stats.totals import Count

from .breaker import advance, allowed, weigh

LOOKED_BACK = 4 * FINE.width
"""Older reports do not change any more; a worker that could not report for longer is no news."""


@dataclass(frozen=True)
class Rules:
    """What an integration, and an operator, say about a provider's breaker and rate.

    Attributes:
        limit: sends per second it tolerates; None: any.
        health_every: how often its health is asked while it is closed, or open.
        patience: how long responses are awaited at the most.
    """

    policy: BreakerPolicy | None
    limit: float | None = None
    per_tenant: float | None = None
    health_every: timedelta | None = None
    patience: timedelta = timedelta(0)

    def is_probe_due(
        self, breaker: BreakerStatus, probed_at: datetime | None, now: datetime
    ) -> bool:
        """Whether the provider's health is to be asked now."""
        if self.health_every is None:
            return False
        if probed_at is None:
            return True
        every = self.health_every
        if breaker.state is BreakerState.HALF_OPEN and self.policy is not None:
            every = min(every, self.policy.probe_every)
        return now - probed_at >= every


@dataclass(frozen=True)
class Look:
    """What a look at a provider comes to."""

    breaker: BreakerStatus
    rate: SendRate
    watch: MonitorState


def tally_of(counts: Mapping[Count, int]) -> BreakerCounts:
    """What counts for the breaker. A refusal is an answer; being asked for patience is neither.

    Health requests are left out: whoever asks knows the answer before it is reported.
    """
    return BreakerCounts(
        answered=counts.get(Count.RECEIPTS, 0) + counts.get(Count.REFUSED, 0),
        failed=counts.get(Count.UNANSWERED, 0),
        responded=counts.get(Count.ANSWERS, 0) + counts.get(Count.FAILURES, 0),
        silent=counts.get(Count.SILENCES, 0),
    )


def tally_of_probe(answer: Count | None) -> BreakerCounts:
    """The answer to a health request, as something to decide by."""
    return BreakerCounts(
        healthy=int(answer is Count.HEALTHY),
        unhealthy=int(answer is Count.UNHEALTHY),
        unclear=int(answer is Count.UNCLEAR),
    )


def reports(buckets: Iterable[tuple[datetime, Mapping[Count, int]]]) -> dict[str, BreakerCounts]:
    """All workers' and operations' reports, by when they began."""
    found: dict[str, BreakerCounts] = {}
    for begin, counts in buckets:
        name = begin.isoformat()
        found[name] = found.get(name, NO_COUNTS) + tally_of(counts)
    return found


def news(found: Mapping[str, BreakerCounts], marks: Mapping[str, BreakerCounts]) -> BreakerCounts:
    """What has been reported since the marks were made."""
    return sum((tally - marks.get(name, NO_COUNTS) for name, tally in found.items()), NO_COUNTS)


def look(
    rules: Rules,
    breaker: BreakerStatus,
    watch: MonitorState,
    found: Mapping[str, BreakerCounts],
    probe: Count | None,
    now: datetime,
    backlog: int = 0,
) -> Look:
    """Weigh what is new, and see where the breaker and the rate go from here.

    Args:
        probe: what the health request was answered with, if it was made.
        backlog: sends that wait in the provider's queue.
    """
    window = (rules.policy or BreakerPolicy()).window
    fresh = weigh(breaker, news(found, watch.marks) + tally_of_probe(probe), now)
    evidence = watch.evidence.with_counts(fresh, now, window)
    after = advance(
        rules.policy,
        breaker,
        evidence,
        now,
        limit=rules.limit,
        patience=rules.patience,
        has_health=rules.health_every is not None,
        backlog=backlog,
    )
    has_moved = after.state is not breaker.state
    return Look(
        breaker=after,
        rate=SendRate(
            per_second=allowed(rules.policy, after, rules.limit), per_tenant=rules.per_tenant
        ),
        watch=MonitorState(
            evidence=BreakerWindow() if has_moved else evidence,
            marks=dict(found),
            probed_at=watch.probed_at if probe is None else now,
        ),
    )
