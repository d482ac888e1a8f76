"""Callers: services that make calls, wait for them, steer them, and try again like services do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from ackbridge.client import AckbridgeClient, Call
from ackbridge.contracts import CallOutcome, CallStatus, Stage, names
from ackbridge.errors import (
    CallCancelledError,
    CallError,
    CallFailedError,
    EngineUnavailable,
    InvalidRequestError,
    KeyReusedError,
)

from .records import Answer, Told
from .script import Act, CallScript, Manner, Order

BY = "chaos"
PATIENCE = timedelta(seconds=3)
"""How long one request waits for an outcome before it asks where the call is."""

PAUSE = 0.3
"""Seconds before an engine that is away is tried again."""

T = TypeVar("T")


@dataclass
class Caller:
    """Everybody who has to do with one call; `told` at the end.

    Attributes:
        parked: how often it was found parked.
    """

    script: CallScript
    is_started: bool = False
    refusal: str | None = None
    gave_up: bool = False
    answers: list[Answer] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    parked: int = 0

    @property
    def told(self) -> Told:
        """For the reconciliation."""
        return Told(
            is_started=self.is_started,
            is_refusable=self.script.is_refusable,
            refusal=self.refusal,
            gave_up=self.gave_up,
            answers=tuple(self.answers),
            orders=tuple(self.orders),
            troubles=tuple(self.troubles),
        )

    def answered(self, how: str, stage: Stage | str, outcome: CallOutcome | None) -> None:
        """Keep what was told."""
        plain = outcome.model_dump(mode="json") if outcome else None
        self.answers.append(Answer(how, str(stage), plain))


class Callers:
    """Makes calls as their scripts say. Every caller gives up at last, and says so."""

    def __init__(self, client: Client, give_up_after: timedelta) -> None:
        """Take the engine's client, and how long anybody waits for anything."""
        self._client = client
        self._calls = AckbridgeClient(client)
        self._give_up_after = give_up_after.total_seconds()

    async def make(self, script: CallScript, begun: Callable[[], Awaitable[None]]) -> Caller:
        """Conduct one call.

        Args:
            begun: told once the engine has acknowledged the start.
        """
        caller = Caller(script)
        try:
            async with asyncio.timeout(self._give_up_after):
                await self._conduct(caller, begun)
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
        work = [self._later(caller, call, order) for order in caller.script.orders]
        if caller.script.manner is not Manner.LEAVE:
            work.append(self._follow(caller, call, status))
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(_keeping_troubles(caller, one))
        if caller.answers and caller.answers[-1].outcome is not None:
            for act in caller.script.at_its_end:
                await _keeping_troubles(caller, self._do(caller, call, act))

    async def _start(self, caller: Caller) -> tuple[Call, CallStatus | None]:
        request = caller.script.request
        if caller.script.manner is Manner.WAIT:
            status = await _insist(lambda: self._calls.start_and_wait(request, PATIENCE))
            return self._calls.call(request.call_id), status
        return await _insist(lambda: self._calls.start(request)), None

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
            return await _insist(lambda: self._calls.start_and_wait(request, PATIENCE))
        try:
            outcome = await _insist(lambda: call.outcome(PATIENCE))
        except (CallFailedError, CallCancelledError) as ended:
            outcome = ended.outcome
        except TimeoutError:
            return await _insist(call.status)
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
        await self._do(caller, call, act)
        # Until the order has taken effect it may be found parked again.
        await asyncio.sleep(PAUSE)
        return True

    async def _later(self, caller: Caller, call: Call, order: Order) -> None:
        await asyncio.sleep(order.after)
        await self._do(caller, call, order.act)

    async def _do(self, caller: Caller, call: Call, act: Act) -> None:
        """Do something to a call, and keep whether it was in time."""
        try:
            said = await _insist(lambda: self._act(caller, call, act))
        except CallError as refused:
            said = f"refused: {refused}"
        caller.orders.append(f"{act}: {said}")

    async def _act(self, caller: Caller, call: Call, act: Act) -> str:
        match act:
            case Act.CANCEL:
                await call.cancel(by=BY, reason="drawn by the seed")
            case Act.CANCEL_NATIVELY:
                return await self._cancel_natively(call)
            case Act.FORCE:
                await call.force_ack(by=BY, reason="drawn by the seed", response={"forced": True})
            case Act.FORCE_EMPTY:
                await call.force_ack(by=BY, reason="drawn by the seed")
            case Act.REPROCESS:
                await call.reprocess(by=BY)
            case Act.SAME_AGAIN:
                return await self._same_again(caller)
            case Act.OTHER_PAYLOAD:
                return await self._other_payload(caller)
            case Act.FOREIGN_REPEAT:
                return await self._foreign_repeat(caller)
            case Act.LEAVE:
                pass
        return "accepted"

    async def _cancel_natively(self, call: Call) -> str:
        try:
            await self._client.get_workflow_handle(call.id).cancel(
                rpc_timeout=timedelta(seconds=10)
            )
        except RPCError as error:
            if "already completed" in error.message:
                return "too late"
            raise EngineUnavailable(error.message) from None
        return "accepted"

    async def _same_again(self, caller: Caller) -> str:
        status = await self._calls.start_and_wait(caller.script.request, PATIENCE)
        caller.answered("the same key again", status.stage, status.outcome)
        return f"found {status.stage}"

    async def _other_payload(self, caller: Caller) -> str:
        request = caller.script.request
        other = request.model_copy(update={"payload": {**request.payload, "behaviour": {}}})
        if other.digest == request.digest:
            raise AssertionError("the other payload is the same one")
        try:
            await self._calls.start(other)
        except KeyReusedError:
            return "refused, as it should be"
        caller.troubles.append("another payload was accepted under its key")
        return "accepted"

    async def _foreign_repeat(self, caller: Caller) -> str:
        """Start the call a second time, as somebody who does not know our reuse policy would."""
        request = caller.script.request
        try:
            handle = await self._client.start_workflow(
                names.INTEGRATION_CALL,
                request,
                id=request.call_id,
                task_queue=names.TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                rpc_timeout=timedelta(seconds=10),
            )
        except WorkflowAlreadyStartedError:
            return "it is still open"
        except RPCError as error:
            raise EngineUnavailable(error.message) from None
        try:
            outcome = await _insist(Call(handle).outcome)
        except (CallFailedError, CallCancelledError) as ended:
            outcome = ended.outcome
        caller.answered("a foreign client", outcome.status, outcome)
        return "answered"


async def _keeping_troubles(caller: Caller, work: Coroutine[Any, Any, None]) -> None:
    """Let what should not have happened to a caller be told, and the others go on."""
    try:
        await work
    except (CallError, TemporalError) as error:
        caller.troubles.append(f"{type(error).__name__}: {error}"[:500])


async def _insist(request: Callable[[], Awaitable[T]]) -> T:
    """Try again for as long as the engine is away, like a service with a queue would."""
    while True:
        try:
            return await request()
        except EngineUnavailable:
            await asyncio.sleep(PAUSE * (0.5 + random.random()))  # noqa: S311 -- only spreads retries
