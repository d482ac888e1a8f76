"""Operators' requests, repeated starts, and invalid requests of callers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts import names
from ackbridge.errors import (
    CallCancelledError,
    CallError,
    CallFailedError,
    EngineUnavailableError,
    KeyReusedError,
)

from .caller import Caller, retry_while_unavailable
from .workload import Action, ScheduledAction

BY = "chaos"
WHY = "drawn by the seed"
PATIENCE = timedelta(seconds=3)
"""How long one request waits for an outcome before it asks where the call is."""

RPC_TIMEOUT = timedelta(seconds=10)


class OperatorActions:
    """Performs planned actions."""

    def __init__(self, client: Client) -> None:
        """Take the engine's client."""
        self._client = client
        self._calls = AckbridgeClient(client)

    async def later(self, caller: Caller, call: Call, order: ScheduledAction) -> None:
        """Do something to a call after a while."""
        await asyncio.sleep(order.after)
        await self.do(caller, call, order.act)

    async def do(self, caller: Caller, call: Call, act: Action) -> None:
        """Do something to a call, and keep whether it was in time."""
        try:
            said = await retry_while_unavailable(lambda: self._act(caller, call, act))
        except CallError as refused:
            said = f"refused: {refused}"
        caller.orders.append(f"{act}: {said}")

    async def _act(self, caller: Caller, call: Call, act: Action) -> str:
        match act:
            case Action.CANCEL:
                await call.cancel(by=BY, reason=WHY)
            case Action.CANCEL_NATIVELY:
                return await self._cancel_natively(call)
            case Action.FORCE:
                await call.force_ack(by=BY, reason=WHY, response={"forced": True})
            case Action.FORCE_EMPTY:
                await call.force_ack(by=BY, reason=WHY)
            case Action.REPROCESS:
                await call.reprocess(by=BY)
            case Action.SAME_AGAIN:
                return await self._same_again(caller)
            case Action.OTHER_PAYLOAD:
                return await self._other_payload(caller)
            case Action.FOREIGN_REPEAT:
                return await self._foreign_repeat(caller)
            case Action.LEAVE:
                pass
        return "accepted"

    async def _cancel_natively(self, call: Call) -> str:
        try:
            await self._client.get_workflow_handle(call.id).cancel(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if "already completed" in error.message:
                return "too late"
            if error.status is RPCStatusCode.NOT_FOUND:
                return "it is in a host, which has other calls"
            raise EngineUnavailableError(error.message) from None
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
            # What is started in a host, or beside one, is refused by the ledger.
            await (await self._calls.start(other)).outcome(PATIENCE)
        except KeyReusedError:
            return "refused, as it should be"
        except (CallFailedError, CallCancelledError):
            pass
        except TimeoutError:
            raise EngineUnavailableError("nobody has refused it yet") from None
        caller.errors.append("another payload was accepted under its key")
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
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return "it is still open"
        except RPCError as error:
            raise EngineUnavailableError(error.message) from None
        try:
            outcome = await retry_while_unavailable(Call(handle).outcome)
        except (CallFailedError, CallCancelledError) as ended:
            outcome = ended.outcome
        caller.answered("a foreign client", outcome.status, outcome)
        return "answered"
