"""One scenario as it is played: a call, its provider, and a clock that can be moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, Stage
from ackbridge.errors import AckbridgeError, CallCancelledError, CallFailedError
from ackbridge.ledger.ledger import Ledger
from ackbridge.sandbox.behaviour import Behaviour

from .cases import Case
from .checks import Finding
from .file_based_provider import FileBasedProvider
from .records import Records, read_records

PATIENCE = timedelta(seconds=90)
"""Real time after which a call is given up as hanging."""

SOON = timedelta(seconds=15)
"""Real time in which a provider that answers at once has been heard."""

_LOOK_EVERY = 0.25
"""Seconds between two looks; every look costs the worker something."""
_A_MOMENT = timedelta(seconds=1)


class ScenarioFailedError(Exception):
    """A scenario cannot go on; its findings say why."""


@dataclass
class Harness:
    """What all scenes share."""

    mimic: FileBasedProvider
    client: Client
    provider: httpx.AsyncClient
    ledger: Ledger
    ledger_path: Path

    def __post_init__(self) -> None:
        self.calls = AckbridgeClient(self.client)
        self.skipper = TimeSkipper(self.client)


@dataclass
class ScenarioRun:
    """A call under observation.

    Attributes:
        findings: what was not as expected, in the order of its finding.
    """

    theatre: Harness
    case: Case
    request: CallRequest
    findings: list[Finding] = field(default_factory=list)
    _call: Call | None = None

    # What is done

    async def start(self, *behaviours: Behaviour) -> Call:
        """Make the call, to a provider that behaves so, cycle by cycle."""
        mimic = self.theatre.mimic
        mimic.expect(self.request, *behaviours)
        if not self.case.names_its_call:
            mimic.attend(self.request)
        self._call = await self.theatre.calls.start(self.request)
        return self._call

    @property
    def call(self) -> Call:
        """The call; it has been started."""
        if self._call is None:
            raise RuntimeError("the scene has not been started")
        return self._call

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        """Its workflow."""
        return self.theatre.client.get_workflow_handle(self.request.call_id)

    async def skip(self, span: timedelta) -> None:
        """Let time pass for this call only; it comes to its next stop at once."""
        # Whoever skips at the same time gets us there as well, and so does the end.
        with suppress(RuntimeError, RPCError):
            await self.theatre.skipper.fast_forward(self.handle, span + _A_MOMENT)

    async def hurry(self) -> None:
        """Let the provider get on with what it waits for."""
        params = {"call_id": self.request.call_id}
        (await self.theatre.provider.post("/_hurry", params=params)).raise_for_status()

    async def until(self, *stages: Stage) -> CallStatus:
        """Wait, in real time, until the call is in one of these stages, or is over."""
        return await self.observe(lambda status: status.stage in stages)

    async def observe(self, condition: Callable[[CallStatus], object]) -> CallStatus:
        """Wait, in real time, until the status is as wanted, the call is over, or it is enough."""
        until = asyncio.get_running_loop().time() + SOON.total_seconds()
        while True:
            status = await self.call.status()
            if condition(status) or status.stage.is_final:
                return status
            if asyncio.get_running_loop().time() > until:
                return status
            await asyncio.sleep(_LOOK_EVERY)

    async def wait_for(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Wait, in real time, for anything; false when it does not come."""
        until = asyncio.get_running_loop().time() + SOON.total_seconds()
        while not await condition():
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(_LOOK_EVERY)
        return True

    async def to_the_end(self, *, stop_parked: bool = False) -> CallStatus:
        """Let pass whatever is waited for, until the call is over.

        Args:
            stop_parked: or until it is parked.
        """
        while True:
            status = await self.call.status()
            is_parked = status.stage is Stage.PARKED
            if (is_parked and stop_parked) or await self.is_over():
                return status
            await self._let_pass(status)

    async def is_over(self) -> bool:
        """Whether the workflow has closed."""
        described = await self.handle.describe()
        return described.status is not WorkflowExecutionStatus.RUNNING

    async def answered(self) -> CallOutcome:
        """The outcome of a call whose provider has said all there is to say.

        Raises:
            ScenarioFailedError: there is none.
        """
        try:
            await self.call.outcome(SOON)
        except (CallFailedError, CallCancelledError):
            pass
        except TimeoutError:
            await self._tell_why_not(await self.call.status())
            raise ScenarioFailedError from None
        return await self.outcome()

    async def outcome(self) -> CallOutcome:
        """How the call ended; what is still owed is let pass."""
        await self.to_the_end()
        try:
            return await self.call.outcome(SOON, settled=True)
        except (CallFailedError, CallCancelledError) as ended:
            return ended.outcome

    async def records(self) -> Records:
        """What everybody remembers of it."""
        theatre = self.theatre
        return await read_records(
            self.request.call_id,
            provider=theatre.provider,
            ledger=theatre.ledger,
            ledger_path=theatre.ledger_path,
            handle=self.handle,
        )

    async def clear(self) -> None:
        """End the call if it has not ended: nothing may go on behind the next scene."""
        with suppress(AckbridgeError):
            if self._call is not None and not await self.is_over():
                await self._call.cancel(by="conformance", reason="the scenario is over")
                await self.to_the_end()

    # What is expected

    def expect(self, expected: object, seen: object, what: str, field: str) -> None:
        """Note it if something is not as expected."""
        if expected != seen:
            self.blame(f"{what}: {_said(expected)}", _said(seen), field)

    def blame(self, expected: str, seen: str, field: str) -> None:
        """Note that something is not as it must be."""
        self.findings.append(Finding(expected, seen, self.at(field)))

    def at(self, field: str) -> str:
        """A field of this operation, as it is written in messages."""
        is_of_the_file = field.startswith(("callbacks", "auth"))
        return field if is_of_the_file else f"operations.{self.case.name}.{field}"

    async def _let_pass(self, status: CallStatus) -> None:
        operation = self.case.operation
        if status.stage is Stage.SENDING:
            await self.skip(operation.receipt.within)
        elif status.stage in (Stage.AWAITING_RESPONSE, Stage.PARKED) and status.deadline:
            now = await self.theatre.skipper.get_current_time(self.handle)
            await self.skip(max(status.deadline - now, timedelta(0)))
        elif status.acknowledgements_owed and operation.acknowledge is not None:
            await self.skip(operation.acknowledge.within)
        else:
            await asyncio.sleep(_LOOK_EVERY)

    async def _tell_why_not(self, status: CallStatus) -> None:
        """Say what happened to what the provider has said."""
        seen = f"{status.stage.value} in cycle {status.cycle}"
        if status.last_error:
            seen += f", {status.last_error}"
        records = await self.records()
        replies = [entry.get("status") for entry in records.seen("callback_reply")]
        if replies:
            seen += f"; its callbacks were answered {', '.join(map(str, dict.fromkeys(replies)))}"
        self.blame("an outcome", seen, self._suspect(replies[-1] if replies else None))

    def _suspect(self, reply: int | None) -> str:
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


def _said(value: object) -> str:
    return str(getattr(value, "value", value))
