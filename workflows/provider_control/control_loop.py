"""The loop of a provider's control: watch it, take what is decided, see to what follows from it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from workflows.hosting.activity_errors import classify

from .control import Control

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.breaker import SendRate
    from ackbridge.contracts.control import ControlDecision, DrainStep, ThrottleStep

WATCHED_FOR = timedelta(hours=2)
"""Longer than any watch takes by itself."""

SILENT_FOR = timedelta(seconds=30)
"""A watch reports on itself three times as often; then its worker counts as dead."""

STEP_TIMEOUT = timedelta(seconds=20)
STEP_ATTEMPTS = 5
AGAIN_AFTER = timedelta(minutes=1)
"""What goes wrong for good is tried again then: somebody may have mended it."""

FOR_EVER = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)
)
A_FEW_TIMES = RetryPolicy(maximum_attempts=STEP_ATTEMPTS)


class Watching:
    """Runs beside the control. Nothing that goes wrong in it ends the control."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._is_stopped = False
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let what is under way come to its end, and watch no more."""
        self._is_stopped = True
        await self._loop

    async def _run(self) -> None:
        while not self._is_stopped:
            try:
                await self._follow(await self._watch())
            except ActivityError as error:
                self._control.reject(f"the watch: {classify(error, tried=0)[0].reason}")
                await self._pause()

    async def _watch(self) -> ControlDecision | None:
        """Watch until there is a decision; None when somebody has given an order meanwhile."""
        control = self._control
        known = control.orders
        watch: workflow.ActivityHandle[ControlDecision] = workflow.start_activity(
            names.OBSERVE,
            control.observation(),
            result_type=ControlDecision,
            task_queue=names.settle_queue(control.snapshot.provider),
            start_to_close_timeout=WATCHED_FOR,
            heartbeat_timeout=SILENT_FOR,
            retry_policy=FOR_EVER,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary=f"watch {control.snapshot.provider}",
        )
        await workflow.wait_condition(
            lambda: watch.done() or self._is_stopped or control.orders != known
        )
        if watch.done():
            return await watch
        if self._is_stopped:
            # The run ends now, and its watch with it. To cancel one that no worker has begun would
            # be an event that keeps a run from ending.
            return None
        watch.cancel()
        with contextlib.suppress(ActivityError):
            await watch
        return None

    async def _follow(self, decision: ControlDecision | None) -> None:
        control = self._control
        if decision is not None:
            control.decide(decision)
            if decision.rate is not None:
                await self._throttle(decision.rate)
        if control.is_drain_due:
            await self._drain()

    async def _throttle(self, rate: SendRate) -> None:
        """Set the rate of the send queue. An engine that cannot is not asked again and again."""
        control = self._control
        provider, breaker = control.snapshot.provider, control.snapshot.breaker
        try:
            await workflow.execute_activity(
                names.THROTTLE,
                ThrottleStep(provider=provider, rate=rate, reason=breaker.reason),
                result_type=SendRate,
                task_queue=names.settle_queue(provider),
                start_to_close_timeout=STEP_TIMEOUT,
                retry_policy=A_FEW_TIMES,
                summary=f"send {rate} to {provider}",
            )
        except ActivityError as error:
            if not (isinstance(error.cause, ApplicationError) and error.cause.non_retryable):
                raise
            control.reject(f"sends are not throttled: {error.cause.message}")
        control.throttled(rate)

    async def _drain(self) -> None:
        control = self._control
        snapshot = control.snapshot
        control.drained()
        await workflow.execute_activity(
            names.DRAIN,
            DrainStep(
                provider=snapshot.provider,
                version=snapshot.version,
                reason=snapshot.breaker.reason,
            ),
            task_queue=names.settle_queue(snapshot.provider),
            start_to_close_timeout=STEP_TIMEOUT,
            retry_policy=A_FEW_TIMES,
            summary=f"take up what was parked while {snapshot.provider} was away",
        )

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._is_stopped,
                timeout=AGAIN_AFTER,
                timeout_summary=f"watch again: {self._control.last_error}"[:200],
            )
