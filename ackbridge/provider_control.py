"""The control of one provider from outside: started by workers, told by operators, seen by all.

Reading the snapshot asks the engine alone; being told, and telling all of it, takes a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from .contracts import (
    CONTROL_MEMO,
    Change,
    ControlSnapshot,
    ControlStart,
    ControlStatus,
    ForceBreaker,
    IntegrationFlags,
    SetFlag,
    names,
)
from .errors import EngineUnavailable, InvalidRequestError, UnknownName

RPC_TIMEOUT = timedelta(seconds=10)

ANSWER_WITHIN = timedelta(seconds=5)
"""After which an order is left with the engine, for the first worker that comes."""

LOOK_WITHIN = timedelta(seconds=2)
"""Of a look at the snapshot; nobody waits for it."""


class ProviderControl:
    """One provider's control."""

    def __init__(self, client: Client, provider: str) -> None:
        self._client = client
        self._provider = provider
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(
            names.control_id(provider)
        )

    async def ensure(self, configured: IntegrationFlags) -> None:
        """Start it, or find it and say what the integration file says by now.

        One that was ended from outside is started again, and goes on with what it last knew.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        try:
            described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise _explain(error, self._provider) from None
            described = None
        known = await _published(described) if described else None
        try:
            if described is None or described.status is not WorkflowExecutionStatus.RUNNING:
                await self._start(configured, known)
            elif known is None or known.configured != configured:
                await self._handle.signal(names.CONFIGURE, configured, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self._provider) from None

    async def snapshot(self) -> ControlSnapshot | None:
        """What it has published; needs no worker. None: it has just been started.

        Raises:
            UnknownName: there is none, or it was ended from outside.
            EngineUnavailable: the engine does not answer.
        """
        try:
            described = await self._handle.describe(rpc_timeout=LOOK_WITHIN)
        except RPCError as error:
            raise _explain(error, self._provider) from None
        if described.status is not WorkflowExecutionStatus.RUNNING:
            raise _absent(self._provider)
        return await _published(described)

    async def status(self) -> ControlStatus:
        """How everything stands, and the latest changes; needs a worker.

        Raises:
            UnknownName: there is none.
            EngineUnavailable: the engine or every worker is away.
        """
        try:
            answer: ControlStatus = await self._handle.query(
                names.STATUS, result_type=ControlStatus, rpc_timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            raise _explain(error, self._provider) from None
        return answer

    async def set_flag(self, order: SetFlag) -> Change | None:
        """Set a flag, for every call that is prepared from about a second later on.

        Returns:
            From what to what. None: no worker answered; the order is left with the engine, and is
            carried out as soon as one runs.

        Raises:
            InvalidRequestError: naming the field.
            UnknownName: there is no such control.
            EngineUnavailable: the engine does not answer.
        """
        return await self._order(names.SET_FLAG, order)

    async def force_breaker(self, order: ForceBreaker) -> Change | None:
        """Hold the breaker somewhere, or let it go; as `set_flag`."""
        return await self._order(names.FORCE_BREAKER, order)

    async def _start(self, configured: IntegrationFlags, known: ControlSnapshot | None) -> None:
        start = ControlStart(provider=self._provider, configured=configured, taken_over=known)
        await self._client.start_workflow(
            names.PROVIDER_CONTROL,
            start,
            id=names.control_id(self._provider),
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={CONTROL_MEMO: known} if known else None,
            static_summary=f"control of {self._provider}: flags, breaker, deadlines",
            rpc_timeout=RPC_TIMEOUT,
        )

    async def _order(self, name: str, order: SetFlag | ForceBreaker) -> Change | None:
        try:
            change: Change = await self._handle.execute_update(
                name, order, result_type=Change, rpc_timeout=ANSWER_WITHIN
            )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            message = cause.message if isinstance(cause, ApplicationError) else str(cause)
            raise InvalidRequestError(message) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            await self._leave(name, order)
            return None
        except RPCError as error:
            if error.status is not RPCStatusCode.RESOURCE_EXHAUSTED:
                raise _explain(error, self._provider) from None
            # Too many orders at once.
            await self._leave(name, order)
            return None
        return change

    async def _leave(self, name: str, order: SetFlag | ForceBreaker) -> None:
        """Leave an order with the engine; the same again changes nothing."""
        try:
            await self._handle.signal(name, order, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self._provider) from None


async def _published(described: WorkflowExecutionDescription) -> ControlSnapshot | None:
    # Not by `memo_value`, which looks for it in another field of the description.
    value = (await described.memo()).get(CONTROL_MEMO)
    return ControlSnapshot.model_validate(value) if isinstance(value, Mapping) else None


def _absent(provider: str) -> UnknownName:
    return UnknownName(
        f"{provider}: it has no control; a worker that has its integration file starts one"
    )


def _explain(error: RPCError, provider: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        return _absent(provider)
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(error.message)
    return EngineUnavailable(f"the engine did not answer ({error.status.name}): {error.message}")
