"""Callers: services that make calls, wait for them, and try again like services do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallStatus, Stage
from ackbridge.errors import CallCancelledError, CallFailedError, InvalidRequestError

from .caller import PAUSE, Caller, insist
from .script import Act, CallScript, Manner
from .steering import PATIENCE, Steering


class Callers:
    """Makes calls as their scripts say. Every caller gives up at last, and says so."""

    def __init__(self, client: Client, give_up_after: timedelta, *, queries: bool) -> None:
        """Take what they work with.

        Args:
            client: of the engine.
            give_up_after: how long anybody waits for anything.
            queries: who follows a call asks where it is by query, which the engine's SDK does not
                bear beside local activities (`docs/decisions/0007-cycles-and-interruptions.md`).
        """
        self._steering = Steering(client)
        self._calls = AckbridgeClient(client)
        self._give_up_after = give_up_after.total_seconds()
        self._queries = queries

    async def make(self, script: CallScript, begun: Callable[[], Awaitable[None]]) -> Caller:
        """Conduct one call.

        Args:
            begun: told once the engine has acknowledged the start.
        """
        caller = Caller(script)
        try:
            async with asyncio.timeout(self._give_up_after):
                await caller.keeping_troubles(self._conduct(caller, begun))
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
        if caller.script.manner is not Manner.LEAVE:
            work.append(self._follow(caller, call, status))
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(caller.keeping_troubles(one))
        if caller.answers and caller.answers[-1].outcome is not None:
            for act in caller.script.at_its_end:
                await self._steering.do(caller, call, act)

    async def _start(self, caller: Caller) -> tuple[Call, CallStatus | None]:
        request = caller.script.request
        if caller.script.manner is Manner.WAIT:
            status = await insist(lambda: self._calls.start_and_wait(request, PATIENCE))
            return self._calls.call(request.call_id), status
        return await insist(lambda: self._calls.start(request)), None

    async def _follow(self, caller: Caller, call: Call, status: CallStatus | None) -> None:
        """Wait until the call is over, or is parked and left so."""
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
        """Where the call is after a while; None when nobody can say."""
        request = caller.script.request
        if caller.script.manner is Manner.WAIT:
            return await insist(lambda: self._calls.start_and_wait(request, PATIENCE))
        try:
            outcome = await insist(lambda: call.outcome(PATIENCE))
        except (CallFailedError, CallCancelledError) as ended:
            outcome = ended.outcome
        except TimeoutError:
            if self._queries:
                return await insist(call.status)
            return await insist(lambda: self._calls.start_and_wait(request, PATIENCE))
        return CallStatus(
            call_id=call.id,
            stage=Stage(outcome.status),
            since=outcome.timings.started_at,
            outcome=outcome,
        )

    async def _take_up(self, caller: Caller, call: Call) -> bool:
        """Do with a parked call what its script says. False: it is left parked."""
        turn, caller.parked = caller.parked, caller.parked + 1
        acts = caller.script.when_parked
        act = acts[turn] if turn < len(acts) else Act.LEAVE
        if act is Act.LEAVE:
            caller.answered(caller.script.manner, Stage.PARKED, None)
            return False
        await self._steering.do(caller, call, act)
        # Until the order has taken effect it may be found parked again.
        await asyncio.sleep(PAUSE)
        return True
