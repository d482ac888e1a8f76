"""One scenario as it runs: a call, its provider, and a clock that can be moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from ackbridge.client.calls import Call
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, Stage
from ackbridge.errors import (
    AckbridgeError,
    CallCancelledError,
    CallFailedError,
    EngineUnavailableError,
)
from ackbridge.sandbox.behaviour import Behaviour

from .cases import Case
from .checks import Finding
from .harness import Harness
from .records import Records, read_records

SCENARIO_TIMEOUT = timedelta(seconds=180)
"""Real time after which a call counts as hanging."""

REPLY_TIMEOUT = timedelta(seconds=45)
"""Real time within which the reply of a provider that answers at once has been processed."""

_POLL_INTERVAL = 0.25
"""Seconds; each poll costs the worker a query."""
_MARGIN = timedelta(seconds=1)
Answer = TypeVar("Answer")
_WITH_DEADLINE = (Stage.AWAITING_RESPONSE, Stage.PARKED, Stage.RECONCILING)


class ScenarioFailedError(Exception):
    """A scenario cannot continue; its findings say why."""


@dataclass
class ScenarioRun:
    """A call, and the expectations that it did not meet, in order."""

    harness: Harness
    case: Case
    request: CallRequest
    findings: list[Finding] = field(default_factory=list)
    _call: Call | None = None

    # Actions

    async def start(self, *behaviours: Behaviour, is_final: bool = False) -> Call:
        """Start the call; the provider behaves like this, cycle by cycle.

        Args:
            is_final: whether receipts are the response already.
        """
        self.harness.dialect.expect(
            self.request,
            *behaviours,
            identifies_call=self.case.identifies_call,
            identifies_cycle=self.case.identifies_cycle,
            is_final=is_final,
        )
        self._call = await _repeated(lambda: self.harness.calls.start(self.request))
        return self._call

    async def status(self) -> CallStatus:
        return await _repeated(self.call.status)

    @property
    def call(self) -> Call:
        if self._call is None:
            raise RuntimeError("the call has not been started")
        return self._call

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        return self.harness.client.get_workflow_handle(self.request.call_id)

    async def skip(self, span: timedelta) -> None:
        """Skip time for this call; it reaches its next wait at once."""
        # It fails when another skip overtakes it or the call ends, which is as good.
        with suppress(RuntimeError, RPCError):
            await self.harness.skipper.fast_forward(self.handle, span + _MARGIN)

    async def skip_provider_delay(self) -> None:
        params = {"call_id": self.request.call_id}
        (await self.harness.provider.post("/_hurry", params=params)).raise_for_status()

    async def wait_for_stage(self, *stages: Stage) -> CallStatus:
        """Wait in real time until the call is in one of these stages, or has ended."""
        return await self.wait_for_status(lambda status: status.stage in stages)

    async def wait_for_status(self, condition: Callable[[CallStatus], object]) -> CallStatus:
        """Wait in real time until a condition holds or the call has ended; bounded."""
        status = await self.status()

        async def is_reached() -> bool:
            nonlocal status
            status = await self.status()
            return bool(condition(status)) or status.stage.is_final

        await self.wait_for(is_reached)
        return status

    async def wait_for(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Wait in real time for a condition; false when it does not hold in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + REPLY_TIMEOUT.total_seconds()
        while not await condition():
            if loop.time() > until:
                return False
            await asyncio.sleep(_POLL_INTERVAL)
        return True

    async def skip_to_end(self, *, stop_parked: bool = False) -> CallStatus:
        """Skip every wait until the call has ended, or with `stop_parked` until it is parked."""
        while True:
            status = await self.status()
            is_parked = status.stage is Stage.PARKED
            if (is_parked and stop_parked) or await self.is_closed():
                return status
            await self._skip_wait(status)

    async def is_closed(self) -> bool:
        description = await self.handle.describe()
        return description.status is not WorkflowExecutionStatus.RUNNING

    async def outcome_without_skipping(self) -> CallOutcome:
        """The outcome, once the provider has sent everything; raises `ScenarioFailedError`."""
        try:
            await self.call.outcome(REPLY_TIMEOUT)
        except (CallFailedError, CallCancelledError):
            pass
        except TimeoutError:
            await self._explain_missing_outcome(await self.status())
            raise ScenarioFailedError from None
        return await self.outcome()

    async def outcome(self) -> CallOutcome:
        """The outcome, after all waits are skipped, those for acknowledgements included."""
        await self.skip_to_end()
        try:
            return await self.call.outcome(REPLY_TIMEOUT, settled=True)
        except (CallFailedError, CallCancelledError) as ended:
            return ended.outcome

    async def records(self) -> Records:
        return await read_records(
            self.request.call_id,
            provider=self.harness.provider,
            ledger=self.harness.ledger,
            ledger_path=self.harness.ledger_path,
            handle=self.handle,
        )

    async def clean_up(self) -> None:
        """End the call if it is open, so that it cannot disturb other scenarios."""
        with suppress(AckbridgeError):
            if self._call is not None and not await self.is_closed():
                await self._call.cancel(by="conformance", reason="the scenario is over")
                await self.skip_to_end()

    # Expectations

    def expect(self, expected: object, seen: object, what: str, field: str) -> None:
        if expected != seen:
            self.fail(f"{what}: {_text(expected)}", _text(seen), field)

    def fail(self, expected: str, seen: str, field: str) -> None:
        self.findings.append(Finding(expected, seen, self.at(field)))

    def at(self, field: str) -> str:
        """The full path of a field of this operation."""
        is_of_file = field.startswith(("callbacks", "auth"))
        return field if is_of_file else f"operations.{self.case.name}.{field}"

    async def _skip_wait(self, status: CallStatus) -> None:
        operation = self.case.operation
        if status.stage is Stage.SENDING:
            await self.skip(operation.receipt.within)
        elif status.stage in _WITH_DEADLINE and status.deadline:
            now = await self.harness.skipper.get_current_time(self.handle)
            await self.skip(max(status.deadline - now, timedelta(0)))
        elif status.acknowledgements_owed and operation.acknowledge is not None:
            await self.skip(operation.acknowledge.within)
        else:
            await asyncio.sleep(_POLL_INTERVAL)

    async def _explain_missing_outcome(self, status: CallStatus) -> None:
        seen = f"{status.stage.value} in cycle {status.cycle}"
        if status.last_error:
            seen += f", {status.last_error}"
        records = await self.records()
        replies = [event.get("status") for event in records.events("callback_reply")]
        if replies:
            seen += f"; its callbacks were answered {', '.join(map(str, dict.fromkeys(replies)))}"
        self.fail("an outcome", seen, self._probable_cause(replies[-1] if replies else None))

    def _probable_cause(self, reply: int | None) -> str:
        """The field that decides how the last callback was answered."""
        callbacks = self.case.integration.callbacks
        if reply is None or callbacks is None:
            return "response"
        replies = callbacks.replies
        fields = {
            replies.accepted: "response.success",
            replies.unmatched: "response.match",
            replies.unreadable: "callbacks.event_key",
            replies.forged: "callbacks.verify",
        }
        return fields.get(reply, "response.match")


def _text(value: object) -> str:
    return str(getattr(value, "value", value))


async def _repeated(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until the engine answers, however busy it is; the scenario's time is the limit."""
    while True:
        with suppress(EngineUnavailableError):
            return await ask()
