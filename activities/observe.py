"""The activity `observe`: monitor one provider until its control has something to decide.

It probes the provider's health, evaluates what all workers have counted for the breaker, and
learns response deadlines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

import httpx
from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from ackbridge.catalog.matching import is_retryable_status
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import render_health
from ackbridge.contracts import names
from ackbridge.contracts.breaker import MonitorState
from ackbridge.contracts.control import (
    MAX_QUARANTINED,
    WHOLE_PROVIDER,
    ControlDecision,
    LearnedDeadline,
    ObserveStep,
)
from ackbridge.contracts.steps import StepFailure
from ackbridge.control.breaker import (
    REPORT_LOOKBACK,
    BreakerEvaluation,
    BreakerRules,
    counts_by_report,
    evaluate,
)
from ackbridge.control.deadlines import DeadlineRules, can_extend, extend, is_learned, learn_all
from ackbridge.errors import AckbridgeError, ConfigurationError, LedgerUnavailableError
from ackbridge.http.client import exchange
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import COARSE, FINE, Count, resolution_for
from activities.support.dependencies import Dependencies
from activities.support.heartbeats import last_heartbeat, worker_shuts_down
from activities.support.quota_control import QuotaControl
from activities.support.retry import activity_failure

from .resume_parked import ParkedProbes

log = logging.getLogger(__name__)

CHECK_INTERVAL = timedelta(seconds=2)
"""About as often as workers report."""

LEARN_INTERVAL = timedelta(seconds=30)
"""Learning reads a window of an hour each time; calls in quarantine are read as often."""

HEARTBEAT_INTERVAL = timedelta(seconds=10)
"""A heartbeat costs a request to the engine; what is lost with it is read again."""

OBSERVE_FOR = timedelta(hours=1)
"""Then another worker, or another version, can take over."""

RETRY_DELAY = timedelta(seconds=10)

DESCRIBE_TIMEOUT = timedelta(seconds=2)

MAX_HEALTH_BYTES = 64 * 1024
"""Only the status of a health request counts."""


class Observe:
    """One long activity per provider: its history grows with decisions, not with calls."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.OBSERVE)
    async def observe(self, step: ObserveStep) -> ControlDecision:
        """Check every two seconds until something changes, an hour is over, or the worker stops.

        Raises:
            ApplicationError: Unavailable, retryable: the ledger does not answer, or this worker
                does not know the provider.
        """
        until = self._deps.clock() + OBSERVE_FOR
        state = last_heartbeat(MonitorState) or step.watch
        heartbeat_at: datetime | None = None
        learned_at: datetime | None = None
        quotas = QuotaControl(self._deps.ledger, step)
        parked = ParkedProbes(self._deps.ledger, step)
        with _retryable():
            while True:
                integration = self._deps.catalog.integration(step.provider)
                now, state, decision = await self._check(step, integration, state)
                if decision is not None:
                    return decision
                await parked.send(state, now)
                if step.applied is not None:
                    changed = await quotas.check(step.applied, now)
                    if changed is not None:
                        return ControlDecision(quotas=changed, watch=state)
                if learned_at is None or now - learned_at >= LEARN_INTERVAL:
                    learned_at = now
                    deadlines = await learn_deadlines(
                        self._deps.ledger, integration, step.deadlines, now
                    )
                    if deadlines:
                        return ControlDecision(deadlines=deadlines, watch=state)
                    quarantined = await self._quarantined(step)
                    if quarantined is not None:
                        return ControlDecision(quarantined=quarantined, watch=state)
                if heartbeat_at is None or now - heartbeat_at >= HEARTBEAT_INTERVAL:
                    heartbeat_at = now
                    activity.heartbeat(state)
                if now >= until or await worker_shuts_down(CHECK_INTERVAL):
                    return ControlDecision(watch=state)

    async def _check(
        self, step: ObserveStep, integration: Integration, state: MonitorState
    ) -> tuple[datetime, MonitorState, ControlDecision | None]:
        rules = _rules(integration, step)
        now = self._deps.clock()
        health: Count | None = None
        if rules.is_probe_due(step.breaker, state.probed_at, now):
            # It may take nearly as long as a heartbeat may be missing.
            activity.heartbeat(state)
            health = await probe(self._deps, integration)
            if health is not None:
                self._deps.counters.count(step.provider, WHOLE_PROVIDER, health)
        buckets = await self._deps.ledger.stats.recent_counts(step.provider, now - REPORT_LOOKBACK)
        backlog = await _backlog(step.provider) if step.breaker.step is not None else 0
        learning = _learning(integration)
        evaluation = evaluate(
            rules,
            step.breaker,
            step.breakers,
            state,
            counts_by_report(buckets),
            health,
            now,
            backlog=backlog,
            extendable={
                name
                for name, of_operation in learning.items()
                if can_extend(of_operation, step.deadlines.get(name))
            },
        )
        return now, evaluation.monitor, _decision(step, evaluation, learning, now)

    async def _quarantined(self, step: ObserveStep) -> tuple[str, ...] | None:
        """The calls in quarantine, where others are shown."""
        if step.quarantined is None:
            return None
        found = await self._deps.ledger.batches.quarantined(step.provider, MAX_QUARANTINED)
        calls = tuple(call.call_id for call in found)
        return calls if set(calls) != set(step.quarantined) else None


async def probe(deps: Dependencies, integration: Integration) -> Count | None:
    """Send the provider's health request: HEALTHY, UNHEALTHY or UNCLEAR; None if it has none.

    UNCLEAR is a refusal, which may be about the request, or an error of our own.
    """
    outbound = render_health(integration)
    if outbound is None:
        return None
    try:
        reply = await exchange(
            deps.http,
            method=outbound.method,
            url=outbound.url,
            headers=outbound.headers,
            content=outbound.content,
            auth=deps.auths.get(integration.provider),
            timeout=outbound.timeout or timedelta(seconds=5),
            max_bytes=MAX_HEALTH_BYTES,
            pool=integration.provider,
        )
    except (httpx.PoolTimeout, AckbridgeError, ValueError):
        return Count.UNCLEAR
    except (httpx.HTTPError, TimeoutError):
        return Count.UNHEALTHY
    if reply.status < 400:
        return Count.HEALTHY
    return Count.UNHEALTHY if is_retryable_status(reply.status) else Count.UNCLEAR


async def learn_deadlines(
    ledger: Ledger,
    integration: Integration,
    current: Mapping[str, LearnedDeadline],
    now: datetime,
) -> dict[str, LearnedDeadline]:
    """The deadlines that change, by operation, whatever the state of the breakers.

    Args:
        current: the deadlines in effect.

    Raises:
        LedgerUnavailableError: the ledger does not answer.
    """
    groups: dict[datetime, dict[str, DeadlineRules]] = {}
    for name, rules in _learning(integration).items():
        known = current.get(name)
        if not is_learned(rules, known):
            continue
        since = _learn_since(now - rules.window, known.since if known else None, now)
        groups.setdefault(since, {})[name] = rules
    changed: dict[str, LearnedDeadline] = {}
    for since, of_group in groups.items():
        stats = await ledger.stats.totals(integration.provider, since)
        changed |= learn_all(of_group, stats, current, now)
    return changed


def _learning(integration: Integration) -> dict[str, DeadlineRules]:
    """By operation, how its deadline is learned."""
    return {name: one.response.deadline.rules for name, one in integration.operations.items()}


def _learn_since(start: datetime, changed_at: datetime | None, now: datetime) -> datetime:
    """Skip the statistics from before the provider has changed."""
    if changed_at is None or changed_at <= start:
        return start
    if resolution_for(changed_at, now) is FINE:
        return changed_at
    # The coarse bucket in which it changed also has minutes from before.
    return max(start, COARSE.begin(changed_at) + COARSE.width)


@contextmanager
def _retryable() -> Iterator[None]:
    """Retry soon, without backoff: nobody else monitors the provider meanwhile."""
    try:
        yield
    except (LedgerUnavailableError, ConfigurationError) as error:
        raise activity_failure(
            StepFailure.UNAVAILABLE, str(error), final=False, delay=RETRY_DELAY
        ) from None


def _decision(
    step: ObserveStep, new: BreakerEvaluation, learning: Mapping[str, DeadlineRules], now: datetime
) -> ControlDecision | None:
    breaker = new.breaker if new.breaker is not step.breaker else None
    rate = new.rate if new.rate != step.applied else None
    deadlines = {
        name: extend(learning[name], step.deadlines.get(name), now, to_ceiling=to_ceiling)
        for name, to_ceiling in new.to_extend.items()
        if name in learning
    }
    if breaker is None and rate is None and not new.breakers:
        return None
    return ControlDecision(
        breaker=breaker,
        breakers=dict(new.breakers),
        deadlines=deadlines,
        rate=rate,
        watch=new.monitor,
    )


def _rules(integration: Integration, step: ObserveStep) -> BreakerRules:
    limits = integration.limits
    configured = limits.requests_per_second if limits else None
    return BreakerRules(
        policy=integration.breaker,
        limit=step.limit.per_second if step.limit else configured,
        per_tenant=limits.per_tenant if limits else None,
        health_every=integration.health.every if integration.health else None,
    )


async def _backlog(provider: str) -> int:
    """The approximate number of queued sends; 0 if the engine does not say."""
    client = activity.client()
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=names.send_queue(provider)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_stats=True,
    )
    try:
        described = await client.workflow_service.describe_task_queue(
            request, timeout=DESCRIBE_TIMEOUT
        )
    except RPCError as error:
        log.warning("backlog of %s unknown: %s", provider, error.status.name)
        return 0
    return int(described.stats.approximate_backlog_count)
