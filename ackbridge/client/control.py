"""The control of one provider from outside: started by workers, told by operators, seen by all.

Reading the snapshot asks the engine alone; being told, and telling all of it, takes a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
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

from ackbridge.contracts import names
from ackbridge.contracts.breaker import ForceBreaker, SetLimit
from ackbridge.contracts.control import (
    CONTROL_MEMO,
    ControlChange,
    ControlSnapshot,
    ControlStart,
    ControlStatus,
    IntegrationFlags,
    SetFlag,
)
from ackbridge.contracts.wire import describe_validation_error
from ackbridge.errors import (
    ConfigurationError,
    EngineUnavailableError,
    InvalidRequestError,
    UnknownNameError,
)

Order = SetFlag | ForceBreaker | SetLimit

RPC_TIMEOUT = timedelta(seconds=10)

ANSWER_WITHIN = timedelta(seconds=5)
"""After which an order is left with the engine, for the first worker that comes."""

TRIES = 3
"""Of an order whose workflow task was lost."""

LOOK_WITHIN = timedelta(seconds=2)
"""Of a look at the snapshot; nobody waits for it."""


class ControlHandle:
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
            EngineUnavailableError: the engine does not answer.
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
            elif known is None or known.configured != configured or known.rate is None:
                await self._handle.signal(names.CONFIGURE, configured, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self._provider) from None

    async def snapshot(self) -> ControlSnapshot | None:
        """What it has published; needs no worker. None: it has just been started.

        Raises:
            UnknownNameError: there is none, or it was ended from outside.
            EngineUnavailableError: the engine does not answer.
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
            UnknownNameError: there is none.
            EngineUnavailableError: the engine or every worker is away.
        """
        try:
            answer: ControlStatus = await self._handle.query(
                names.STATUS, result_type=ControlStatus, rpc_timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            raise _explain(error, self._provider) from None
        return answer

    async def set_flag(self, order: SetFlag) -> ControlChange | None:
        """Set a flag, for every call that is prepared from about a second later on.

        Returns:
            From what to what. None: no worker answered; the order is left with the engine, and is
            carried out as soon as one runs.

        Raises:
            InvalidRequestError: naming the field.
            UnknownNameError: there is no such control.
            EngineUnavailableError: the engine does not answer.
        """
        return await self._order(names.SET_FLAG, order)

    async def force_breaker(self, order: ForceBreaker) -> ControlChange | None:
        """Hold the breaker somewhere, or let it go; as `set_flag`."""
        return await self._order(names.FORCE_BREAKER, order)

    async def set_limit(self, order: SetLimit) -> ControlChange | None:
        """Bound the sends per second, all workers together; as `set_flag`."""
        return await self._order(names.SET_LIMIT, order)

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

    async def _order(self, name: str, order: Order) -> ControlChange | None:
        try:
            change = await self._ordered(name, order)
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

    async def _ordered(self, name: str, order: Order) -> ControlChange:
        for left in reversed(range(TRIES)):
            try:
                change: ControlChange = await self._handle.execute_update(
                    name, order, result_type=ControlChange, rpc_timeout=ANSWER_WITHIN
                )
                break
            except RPCError as error:
                # Its workflow task was done again, and the engine does not ask twice by itself.
                if error.status is not RPCStatusCode.FAILED_PRECONDITION or not left:
                    raise
        return change

    async def _leave(self, name: str, order: Order) -> None:
        """Leave an order with the engine; the same again changes nothing."""
        try:
            await self._handle.signal(name, order, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self._provider) from None


async def _published(described: WorkflowExecutionDescription) -> ControlSnapshot | None:
    # Not by `memo_value`, which looks for it in another field of the description.
    value = (await described.memo()).get(CONTROL_MEMO)
    if not isinstance(value, Mapping):
        return None
    try:
        return ControlSnapshot.model_validate(value)
    except ValidationError as error:
        # A newer version of the workers has written it; its own read it.
        raise ConfigurationError(
            f"{described.id} has published what this version does not read: "
            f"{describe_validation_error(error)}"
        ) from None


def _absent(provider: str) -> UnknownNameError:
    return UnknownNameError(
        f"{provider}: it has no control; a worker that has its integration file starts one"
    )


def _explain(error: RPCError, provider: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        return _absent(provider)
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(error.message)
    return EngineUnavailableError(
        f"the engine did not answer ({error.status.name}): {error.message}"
    )
