"""The control of one provider: started by workers, changed by operators, read by all.

Reading the snapshot needs only the engine; changes and the full status need a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
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

from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.breaker import ForceBreaker, SetLimit
from ackbridge.contracts.control import (
    CONTROL_MEMO,
    CONTROL_REVISION,
    ControlChange,
    ControlSnapshot,
    ControlStart,
    ControlStatus,
    IntegrationFlags,
    SetFlag,
)
from ackbridge.contracts.wire import describe_validation_error
from ackbridge.errors import ConfigurationError, InvalidRequestError, UnknownNameError
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors

ControlCommand = SetFlag | ForceBreaker | SetLimit

UPDATE_TIMEOUT = timedelta(seconds=5)
"""After which a command is sent as a signal, which waits for the next worker."""

UPDATE_ATTEMPTS = 3
"""Of a command whose workflow task was lost."""

SNAPSHOT_TIMEOUT = timedelta(seconds=2)
"""Of reading the snapshot, which callers cache."""


class ControlHandle:
    def __init__(self, client: Client, provider: str) -> None:
        self._client = client
        self._provider = provider
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(
            names.control_id(provider)
        )

    async def ensure(
        self, configured: IntegrationFlags, stored: ControlSnapshot | None = None
    ) -> None:
        """Start it, or send it the flags of the integration file if they have changed.

        One that was terminated is started again with its last snapshot.

        Args:
            stored: the copy in the ledger, for an engine that has lost the control.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        try:
            with self._rpc_errors():
                described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
        except UnknownNameError:
            described = None
        known = await read_snapshot(described) if described else None
        with self._rpc_errors():
            if described is None or described.status is not WorkflowExecutionStatus.RUNNING:
                # What an engine without the control dispatches at is not known either.
                restored = stored and stored.model_copy(update={"rate": None})
                await self._start(configured, known or restored)
            elif known is None or known.configured != configured or known.rate is None:
                await self._handle.signal(names.CONFIGURE, configured, rpc_timeout=RPC_TIMEOUT)

    async def snapshot(self) -> ControlSnapshot | None:
        """What it has published; needs no worker. None: it has just been started.

        Raises:
            UnknownNameError: there is none, or it was ended from outside.
            EngineUnavailableError: the engine does not answer.
        """
        with self._rpc_errors():
            described = await self._handle.describe(rpc_timeout=SNAPSHOT_TIMEOUT)
        if described.status is not WorkflowExecutionStatus.RUNNING:
            raise self._not_running()
        return await read_snapshot(described)

    async def status(self) -> ControlStatus:
        """Query the full state and the latest changes; needs a worker.

        Raises:
            UnknownNameError: no control is running.
            EngineUnavailableError: the engine does not answer, or no worker does.
        """
        with self._rpc_errors():
            status: ControlStatus = await self._handle.query(
                names.STATUS, result_type=ControlStatus, rpc_timeout=RPC_TIMEOUT
            )
        return status

    async def set_flag(self, command: SetFlag) -> ControlChange | None:
        """Set a flag for every call that is prepared about a second later, or after that.

        Returns:
            The change. None: no worker answered; the command was sent as a signal and takes
            effect as soon as a worker runs.

        Raises:
            InvalidRequestError: naming the field.
            UnknownNameError: no control is running.
            EngineUnavailableError: the engine does not answer.
        """
        return await self._send(names.SET_FLAG, command)

    async def force_breaker(self, command: ForceBreaker) -> ControlChange | None:
        """Force a state of the breaker, or release it; as `set_flag`."""
        return await self._send(names.FORCE_BREAKER, command)

    async def set_limit(self, command: SetLimit) -> ControlChange | None:
        """Limit the sends per second of all workers together; as `set_flag`."""
        return await self._send(names.SET_LIMIT, command)

    async def _start(self, configured: IntegrationFlags, known: ControlSnapshot | None) -> None:
        start = ControlStart(
            provider=self._provider,
            configured=configured,
            taken_over=known,
            revision=CONTROL_REVISION,
        )
        # Until its first task has run, workers read what it will publish then.
        published = known or ControlSnapshot.initial(self._provider, configured, utc_now())
        await self._client.start_workflow(
            names.PROVIDER_CONTROL,
            start,
            id=names.control_id(self._provider),
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={CONTROL_MEMO: published},
            static_summary=f"control of {self._provider}: flags, breaker, deadlines",
            rpc_timeout=RPC_TIMEOUT,
        )

    async def _send(self, name: str, command: ControlCommand) -> ControlChange | None:
        try:
            return await self._update(name, command)
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            message = cause.message if isinstance(cause, ApplicationError) else str(cause)
            raise InvalidRequestError(message) from None
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
            # Without a worker, and while too many updates are in flight, the command waits as a
            # signal. Applied twice it changes nothing.
            is_temporary = (
                not isinstance(error, RPCError) or error.status is RPCStatusCode.RESOURCE_EXHAUSTED
            )
            with self._rpc_errors():
                if not is_temporary:
                    raise
                await self._handle.signal(name, command, rpc_timeout=RPC_TIMEOUT)
            return None

    async def _update(self, name: str, command: ControlCommand) -> ControlChange:
        for remaining in reversed(range(UPDATE_ATTEMPTS)):
            try:
                change: ControlChange = await self._handle.execute_update(
                    name, command, result_type=ControlChange, rpc_timeout=UPDATE_TIMEOUT
                )
                break
            except RPCError as error:
                # The workflow task was lost, and the engine does not repeat the update by itself.
                if error.status is not RPCStatusCode.FAILED_PRECONDITION or not remaining:
                    raise
        return change

    def _rpc_errors(self) -> AbstractContextManager[None]:
        return rpc_errors(not_found=self._not_running())

    def _not_running(self) -> UnknownNameError:
        return UnknownNameError(
            f"{self._provider}: no control is running; a worker with its integration file starts it"
        )


async def read_snapshot(described: WorkflowExecutionDescription) -> ControlSnapshot | None:
    """The snapshot that a control has published; None: none yet.

    Raises:
        ConfigurationError: a newer version has written it.
    """
    # `WorkflowExecutionDescription.memo_value` looks for it in another field (temporalio 1.35).
    value = (await described.memo()).get(CONTROL_MEMO)
    if not isinstance(value, Mapping):
        return None
    try:
        return ControlSnapshot.model_validate(value)
    except ValidationError as error:
        raise ConfigurationError(
            f"{described.id}: this version cannot read its snapshot:"
            f" {describe_validation_error(error)}"
        ) from None
