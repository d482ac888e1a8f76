"""observe: watch a provider, and answer when there is something to decide."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from pydantic import ValidationError
from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from ackbridge.catalog.model import Integration
from ackbridge.contracts import names
from ackbridge.contracts.breaker import MonitorState
from ackbridge.contracts.control import (
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
from ackbridge.errors import ConfigurationError, LedgerUnavailableError
from ackbridge.stats.counters import Count
from activities.support.dependencies import Dependencies
from activities.support.learned_deadlines import LEARN_EVERY, learn_deadlines
from activities.support.retry import failure
from activities.support.shutdown import worker_stops

from .probe import probe

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=2)
"""About as often as workers report."""

BEAT_EVERY = timedelta(seconds=10)
"""A heartbeat costs a request to the engine; what is lost with it is read again."""

WATCH_FOR = timedelta(hours=1)
"""After which another worker, or another version, may take its turn."""

AGAIN_AFTER = timedelta(seconds=10)
"""The ledger is away, or this worker does not know the provider."""

BACKLOG_WITHIN = timedelta(seconds=2)


class Observe:
    """One long activity for each provider: its history grows with decisions, not with calls."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.OBSERVE)
    async def observe(self, step: ObserveStep) -> ControlDecision:
        """Look every two seconds until something changes, for an hour, or until the worker stops.

        Raises:
            ApplicationError: Unavailable, to be tried again: the ledger is away.
        """
        until = self._with.clock() + WATCH_FOR
        watch = _left() or step.watch
        beaten_at: datetime | None = None
        learned_at: datetime | None = None
        while True:
            with _tried_again():
                now, watch, decision = await self._look(step, watch)
            if decision is not None:
                return decision
            if learned_at is None or now - learned_at >= LEARN_EVERY:
                learned_at = now
                with _tried_again():
                    learned = await self._learn(step, now)
                if learned:
                    return ControlDecision(deadlines=learned, watch=watch)
            if now >= until:
                return ControlDecision(watch=watch)
            if beaten_at is None or now - beaten_at >= BEAT_EVERY:
                beaten_at = now
                activity.heartbeat(watch)
            if await worker_stops(LOOK_EVERY):
                return ControlDecision(watch=watch)

    async def _learn(self, step: ObserveStep, now: datetime) -> dict[str, LearnedDeadline]:
        integration = self._with.catalog.integration(step.provider)
        return await learn_deadlines(
            self._with.ledger, integration, step.breaker, step.deadlines, now
        )

    async def _look(
        self, step: ObserveStep, watch: MonitorState
    ) -> tuple[datetime, MonitorState, ControlDecision | None]:
        integration = self._with.catalog.integration(step.provider)
        rules = _rules(integration, step)
        now = self._with.clock()
        answer: Count | None = None
        if rules.is_probe_due(step.breaker, watch.probed_at, now):
            answer = await probe(self._with, integration)
            if answer is not None:
                self._with.counters.count(step.provider, WHOLE_PROVIDER, answer)
        buckets = await self._with.ledger.stats.recent_counts(step.provider, now - REPORT_LOOKBACK)
        backlog = await _backlog(step.provider) if step.breaker.step is not None else 0
        seen = evaluate(rules, step.breaker, watch, counts_by_report(buckets), answer, now, backlog)
        return now, seen.monitor, _decision(step, seen)


@contextmanager
def _tried_again() -> Iterator[None]:
    """Whatever is away may be back any moment, and nobody else watches meanwhile."""
    try:
        yield
    except (LedgerUnavailableError, ConfigurationError) as error:
        raise failure(StepFailure.UNAVAILABLE, str(error), final=False, delay=AGAIN_AFTER) from None


def _decision(step: ObserveStep, seen: BreakerEvaluation) -> ControlDecision | None:
    is_new = seen.breaker is not step.breaker
    if not is_new and seen.rate == step.applied:
        return None
    return ControlDecision(
        breaker=seen.breaker if is_new else None,
        rate=seen.rate if seen.rate != step.applied else None,
        watch=seen.monitor,
    )


def _rules(integration: Integration, step: ObserveStep) -> BreakerRules:
    limits = integration.limits
    configured = limits.requests_per_second if limits else None
    return BreakerRules(
        policy=integration.breaker,
        limit=step.limit.per_second if step.limit else configured,
        per_tenant=limits.per_tenant if limits else None,
        health_every=integration.health.every if integration.health else None,
        longest_deadline=_patience(integration, step),
    )


def _patience(integration: Integration, step: ObserveStep) -> timedelta:
    """The longest time that any response is awaited by now."""
    return max(
        learned.deadline
        if (learned := step.deadlines.get(name))
        else operation.response.deadline.initial
        for name, operation in integration.operations.items()
    )


def _left() -> MonitorState | None:
    """What an attempt before this one has got to."""
    for details in activity.info().heartbeat_details:
        try:
            return MonitorState.model_validate(details)
        except ValidationError:
            return None
    return None


async def _backlog(provider: str) -> int:
    """Sends that wait in the provider's queue, about; 0 where the engine does not say."""
    client = activity.client()
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=names.send_queue(provider)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_stats=True,
    )
    try:
        described = await client.workflow_service.describe_task_queue(
            request, timeout=BACKLOG_WITHIN
        )
    except RPCError as error:
        log.warning("the backlog of %s is not known: %s", provider, error.status.name)
        return 0
    return int(described.stats.approximate_backlog_count)
