"""The loop of a provider's control: monitor the provider and carry out what is decided."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from workflows.hosting.activity_errors import classify

from .control import Control

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.breaker import SendRate
    from ackbridge.contracts.control import (
        ControlDecision,
        ControlSnapshot,
        DrainResult,
        DrainStep,
        ThrottleStep,
    )
    from ackbridge.contracts.limits import MAX_SUMMARY_LENGTH
    from ackbridge.contracts.wire import Wire

Result = TypeVar("Result", bound="Wire")

OBSERVE_TIMEOUT = timedelta(hours=2)
"""Longer than `observe` takes by itself."""

OBSERVE_HEARTBEAT_TIMEOUT = timedelta(seconds=30)
"""Three of its heartbeat intervals."""

OBSERVE_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)
)

STEP_TIMEOUT = timedelta(seconds=20)
STEP_RETRIES = RetryPolicy(maximum_attempts=5)

RESTART_DELAY = timedelta(minutes=1)
"""After a final failure, which an operator may have repaired by then."""


STORE_TIMEOUT = timedelta(seconds=2)
STORE_WITHIN = timedelta(seconds=3)
"""Of the copy in the ledger, which the author of a change waits for."""


class SnapshotCopy:
    """Keeps the copy of the snapshot in the ledger up to date."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._stored_version = 0
        self._failures = 0
        self._copying: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start copying, beside the control's handlers."""
        self._copying = asyncio.create_task(self._run())

    async def wait(self) -> None:
        """Wait until the ledger has what the control has decided by now, or cannot be written."""
        version, failures = self._control.snapshot.version, self._failures
        await workflow.wait_condition(
            lambda: self._stored_version >= version or self._failures > failures
        )

    async def _run(self) -> None:
        while True:
            await workflow.wait_condition(self._is_outdated)
            snapshot = self._control.snapshot
            try:
                await self._store(snapshot)
            except ActivityError as error:
                self._failures += 1
                self._control.reject(f"the copy in the ledger: {classify(error).reason}")
                await self._wait_for_another(snapshot.version)
            else:
                self._stored_version = snapshot.version

    def _is_outdated(self) -> bool:
        return self._control.snapshot.version > self._stored_version

    async def _store(self, snapshot: ControlSnapshot) -> None:
        await workflow.execute_activity(
            names.STORE_SNAPSHOT,
            snapshot,
            task_queue=names.control_queue(snapshot.provider),
            start_to_close_timeout=STORE_TIMEOUT,
            schedule_to_close_timeout=STORE_WITHIN,
            summary=f"copy version {snapshot.version} to the ledger",
        )

    async def _wait_for_another(self, version: int) -> None:
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._control.snapshot.version > version,
                timeout=RESTART_DELAY,
                timeout_summary="copy the snapshot again",
            )


class ControlLoop:
    """Runs beside the control's handlers. A failure in it never ends the control."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._is_stopped = False
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop monitoring, and wait for steps in progress."""
        self._is_stopped = True
        await self._loop

    async def _run(self) -> None:
        while not self._is_stopped:
            try:
                await self._carry_out(await self._observe())
            except ActivityError as error:
                self._control.reject(f"monitoring: {classify(error).reason}")
                await self._wait_before_restart()

    async def _observe(self) -> ControlDecision | None:
        """Monitor until there is a decision; None when a command or `stop` interrupts."""
        control = self._control
        interrupts = control.interrupts
        observing: workflow.ActivityHandle[ControlDecision] = workflow.start_activity(
            names.OBSERVE,
            control.observe_step(),
            result_type=ControlDecision,
            task_queue=names.control_queue(control.snapshot.provider),
            start_to_close_timeout=OBSERVE_TIMEOUT,
            heartbeat_timeout=OBSERVE_HEARTBEAT_TIMEOUT,
            retry_policy=OBSERVE_RETRIES,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary=f"monitor {control.snapshot.provider}",
        )
        await workflow.wait_condition(
            lambda: observing.done() or self._is_stopped or control.interrupts != interrupts
        )
        if observing.done():
            return await observing
        if self._is_stopped:
            # The run ends now, and the activity with it. Cancelling an activity that no worker has
            # started would add an event, which keeps the run from continuing as new.
            return None
        observing.cancel()
        with contextlib.suppress(ActivityError):
            await observing
        return None

    async def _carry_out(self, decision: ControlDecision | None) -> None:
        control = self._control
        if decision is not None:
            control.apply(decision)
            if decision.rate is not None:
                await self._throttle(decision.rate)
        while (step := control.next_drain()) is not None:
            await self._drain(step)

    async def _throttle(self, rate: SendRate) -> None:
        """Set the rate of the send queue. An engine that cannot do so is not asked again."""
        control = self._control
        provider, breaker = control.snapshot.provider, control.snapshot.breaker
        try:
            step = ThrottleStep(provider=provider, rate=rate, reason=breaker.reason)
            await self._execute(names.THROTTLE, step, f"send {rate} to {provider}", SendRate)
        except ActivityError as error:
            if not (isinstance(error.cause, ApplicationError) and error.cause.non_retryable):
                raise
            control.reject(f"sends are not throttled: {error.cause.message}")
        control.rate_applied(rate)

    async def _drain(self, step: DrainStep) -> None:
        summary = f"reprocess calls parked during the outage of {step.provider}"
        result = await self._execute(names.DRAIN, step, summary, DrainResult)
        self._control.drained(step, result)

    async def _execute(
        self, name: str, step: ThrottleStep | DrainStep, summary: str, result_type: type[Result]
    ) -> Result:
        result: Result = await workflow.execute_activity(
            name,
            step,
            task_queue=names.control_queue(step.provider),
            start_to_close_timeout=STEP_TIMEOUT,
            retry_policy=STEP_RETRIES,
            summary=summary,
            result_type=result_type,
        )
        return result

    async def _wait_before_restart(self) -> None:
        summary = f"restart monitoring: {self._control.last_error}"
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._is_stopped,
                timeout=RESTART_DELAY,
                timeout_summary=summary[:MAX_SUMMARY_LENGTH],
            )
