"""Callers: services that start calls, wait for them and retry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallStatus, Stage
from ackbridge.errors import CallCancelledError, CallFailedError, InvalidRequestError

from .caller import PAUSE, Caller, retry_while_unavailable
from .operator_actions import PATIENCE, OperatorActions
from .workload import Action, CallStyle, PlannedCall


class Callers:
    """Make planned calls. Every caller gives up after a while, and records that."""

    def __init__(self, client: Client, give_up_after: timedelta, *, queries: bool) -> None:
        """Prepare; nothing is sent.

        Args:
            client: of the engine.
            give_up_after: how long a caller waits for a request or an outcome.
            queries: callers that follow a call query its status, which the engine's SDK does not
                support beside local activities (`docs/decisions/0007-cycles-and-interruptions.md`).
        """
        self._steering = OperatorActions(client)
        self._calls = AckbridgeClient(client)
        self._give_up_after = give_up_after.total_seconds()
        self._queries = queries

    async def make(self, script: PlannedCall, begun: Callable[[], Awaitable[None]]) -> Caller:
        """Start one call and follow it to its end.

        Args:
            begun: called once the engine has acknowledged the start.
        """
        caller = Caller(script)
        try:
            async with asyncio.timeout(self._give_up_after):
                await caller.recording_errors(self._conduct(caller, begun))
        except TimeoutError:
            caller.gave_up = True
        return caller

    async def _conduct(self, caller: Caller, begun: Callable[[], Awaitable[None]]) -> None:
        try:
            call, status = await self._start(caller)
        except InvalidRequestError as refused:
            caller.refusal, caller.is_started = str(refused), True
            await begun()
            return
        caller.is_started = True
        await begun()
        work = [self._steering.later(caller, call, order) for order in caller.script.orders]
        if caller.script.manner is not CallStyle.LEAVE:
            work.append(self._follow(caller, call, status))
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(caller.recording_errors(one))
        if caller.answers and caller.answers[-1].outcome is not None:
            for act in caller.script.at_its_end:
                await self._steering.do(caller, call, act)

    async def _start(self, caller: Caller) -> tuple[Call, CallStatus | None]:
        request = caller.script.request
        if caller.script.manner is CallStyle.WAIT:
            status = await retry_while_unavailable(
                lambda: self._calls.start_and_wait(request, PATIENCE)
            )
            return self._calls.call(request.call_id), status
        return await retry_while_unavailable(lambda: self._calls.start(request)), None

    async def _follow(self, caller: Caller, call: Call, status: CallStatus | None) -> None:
        """Wait until the call has ended, or is parked and stays parked."""
        while True:
            try:
                if status is None or not (status.outcome or status.stage is Stage.PARKED):
                    status = await self._ask(caller, call)
            except InvalidRequestError as refused:
                caller.refusal = str(refused)
                return
            if status is None:
                continue
            if status.outcome is not None:
                caller.answered(caller.script.manner, status.stage, status.outcome)
                return
            if status.stage is Stage.PARKED and not await self._take_up(caller, call):
                return
            status = None

    async def _ask(self, caller: Caller, call: Call) -> CallStatus | None:
        """The status of the call after a while; None if it is unknown."""
        request = caller.script.request
        if caller.script.manner is CallStyle.WAIT:
            return await retry_while_unavailable(
                lambda: self._calls.start_and_wait(request, PATIENCE)
            )
        try:
            outcome = await retry_while_unavailable(lambda: call.outcome(PATIENCE))
        except (CallFailedError, CallCancelledError) as ended:
            outcome = ended.outcome
        except TimeoutError:
            if self._queries:
                return await retry_while_unavailable(call.status)
            return await retry_while_unavailable(
                lambda: self._calls.start_and_wait(request, PATIENCE)
            )
        return CallStatus(
            call_id=call.id,
            stage=Stage(outcome.status),
            since=outcome.timings.started_at,
            outcome=outcome,
        )

    async def _take_up(self, caller: Caller, call: Call) -> bool:
        """Apply the planned action to a parked call. False: it stays parked."""
        turn, caller.parked = caller.parked, caller.parked + 1
        acts = caller.script.when_parked
        act = acts[turn] if turn < len(acts) else Action.LEAVE
        if act is Action.LEAVE:
            caller.answered(caller.script.manner, Stage.PARKED, None)
            return False
        await self._steering.do(caller, call, act)
        # It may be found parked again until the request has taken effect.
        await asyncio.sleep(PAUSE)
        return True
