"""Callers: services that start calls, wait for them and retry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallStatus, Stage
from ackbridge.errors import CallCancelledError, CallFailedError, InvalidRequestError

from .caller import PAUSE, Caller, retry_while_unavailable
from .ledger_reader import StageWatch
from .many_client import ManyAnswer, ManyClient
from .operator_actions import PATIENCE, OperatorActions
from .workload import Action, CallStyle, PlannedCall, ScheduledAction


@dataclass(frozen=True)
class BulkLane:
    """What callers need in a run with the bulk lane.

    Attributes:
        operations: those with `lane: bulk`, by provider.
    """

    client: ManyClient
    stages: StageWatch
    operations: frozenset[tuple[str, str]]

    def has(self, script: PlannedCall) -> bool:
        """Whether the call is started in a host."""
        request = script.request
        is_bulk = (request.provider, request.operation) in self.operations
        return is_bulk or script.manner is CallStyle.MANY


class Callers:
    """Make planned calls. Every caller gives up after a while, and records that."""

    def __init__(
        self,
        client: Client,
        give_up_after: timedelta,
        *,
        queries: bool,
        bulk: BulkLane | None = None,
    ) -> None:
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
        self._bulk = bulk

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
        if self._bulk is not None and caller.script.manner is CallStyle.MANY:
            answered = self._bulk.client.ask(caller.script.request)
            call = self._calls.call(caller.script.request.call_id)
            caller.is_started = True
            await begun()
            await self._steer(caller, call, self._await_answer(caller, call, answered))
            return
        try:
            call, status = await self._start(caller)
        except InvalidRequestError as refused:
            caller.refusal, caller.is_started = str(refused), True
            await begun()
            return
        caller.is_started = True
        await begun()
        is_left = caller.script.manner is CallStyle.LEAVE
        await self._steer(caller, call, None if is_left else self._follow(caller, call, status))

    async def _steer(
        self, caller: Caller, call: Call, following: Coroutine[Any, Any, None] | None
    ) -> None:
        """Follow the call, do what is planned meanwhile, and then what is planned for its end."""
        async with asyncio.TaskGroup() as tasks:
            if following is not None:
                tasks.create_task(caller.recording_errors(following))
            for order in caller.script.orders:
                tasks.create_task(caller.recording_errors(self._do_later(caller, call, order)))
        if caller.answers and caller.answers[-1].outcome is not None:
            for act in caller.script.at_its_end:
                await self._steering.do(caller, call, act)

    async def _do_later(self, caller: Caller, call: Call, order: ScheduledAction) -> None:
        if self._bulk is not None and self._bulk.has(caller.script):
            # Another request with its key must not come first.
            await self._bulk.stages.until_claimed(call.id)
        await self._steering.later(caller, call, order)

    async def _await_answer(
        self, caller: Caller, call: Call, answered: asyncio.Future[ManyAnswer]
    ) -> None:
        """Wait as `_follow` does, for a call that another process makes."""
        while not answered.done():
            is_parked = self._bulk is not None and self._bulk.stages.is_parked(call.id)
            if is_parked and not await self._take_up(caller, call):
                return
            await asyncio.wait({answered}, timeout=PAUSE)
        answer = answered.result()
        caller.refusal = answer.refusal
        if answer.error is not None:
            caller.errors.append(answer.error)
        if answer.outcome is not None:
            caller.answered(caller.script.manner, answer.outcome.status, answer.outcome)

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
