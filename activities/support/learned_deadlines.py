"""Learning a provider's deadlines from what all workers have reported."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from ackbridge.catalog.model import Integration
from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import LearnedDeadline
from ackbridge.control.deadlines import DeadlineRules, learn_all
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import COARSE, FINE, resolution_for

LEARN_EVERY: Final = timedelta(seconds=30)
"""A sensible pause between two looks: a window is an hour, and each look reads all of it."""


async def learn_deadlines(
    ledger: Ledger,
    integration: Integration,
    breaker: BreakerStatus,
    before: Mapping[str, LearnedDeadline],
    now: datetime,
) -> dict[str, LearnedDeadline]:
    """By operation, the deadlines that change; none while the breaker is not closed.

    Args:
        before: what the control publishes now.

    Raises:
        LedgerUnavailable: it does not answer.
    """
    if breaker.state is not BreakerState.CLOSED:
        return {}
    changed: dict[str, LearnedDeadline] = {}
    for window, rules in _by_window(integration).items():
        observed = await ledger.stats.totals(
            integration.provider, _since(now - window, breaker, now)
        )
        changed |= learn_all(rules, observed, before, breaker)
    return changed


def _by_window(integration: Integration) -> dict[timedelta, dict[str, DeadlineRules]]:
    found: dict[timedelta, dict[str, DeadlineRules]] = {}
    for name, operation in integration.operations.items():
        rules = operation.response.deadline.rules
        if rules is not None:
            found.setdefault(rules.window, {})[name] = rules
    return found


def _since(start: datetime, breaker: BreakerStatus, now: datetime) -> datetime:
    """What was observed before the breaker closed is of a provider in trouble."""
    if breaker.since <= start:
        return start
    if resolution_for(breaker.since, now) is FINE:
        return breaker.since
    # The coarse bucket in which it closed has minutes of both.
    return max(start, COARSE.begin(breaker.since) + COARSE.width)
