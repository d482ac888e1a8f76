"""The typed client: what a Python service imports to make calls and to steer them.

    from ackbridge.client.calls import AckbridgeClient

    async with AckbridgeClient.from_environment() as calls: ...

Everything here is done with the wire names and plain JSON, as any other Temporal client could.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, CancelledError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names, search_attributes
from ackbridge.contracts.batches import BatchRequest
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, OutcomeStatus, Stage
from ackbridge.contracts.signals import AwaitOutcome, Cancel, ForceAck, Reprocess
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import (
    CallCancelledError,
    CallError,
    CallFailedError,
    CallNotFoundError,
    EngineUnavailableError,
    InvalidRequestError,
    KeyReusedError,
)
from ackbridge.temporal.connect import connect

from .batches import BatchHandle, find_batch, list_batches, start_batch
from .control import ControlHandle

RPC_TIMEOUT = timedelta(seconds=10)

_PATIENCE = timedelta(seconds=2)
"""After which a call that has not ended is asked whether its outcome stands already."""

_ASKED_FOR = timedelta(hours=1)
"""How long a call may think about that answer."""


@dataclass(frozen=True)
class ListedCall:
    """One row of `AckbridgeClient.list`.

    Attributes:
        call_id: the call.
        state: of its workflow: RUNNING, COMPLETED, FAILED, CANCELED, ...
        stage: the indexed stage: `in_flight`, or `parked`; None where nothing is indexed.
        started_at: ISO 8601, UTC.
    """

    call_id: str
    state: str
    stage: str | None
    started_at: str


class Call:
    """A call that has been started."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """The call id, which is the workflow's id."""
        return self._handle.id

    async def status(self) -> CallStatus:
        """Ask where the call is; needs a worker.

        Raises:
            CallNotFoundError: there is no such call.
            EngineUnavailableError: the engine or every worker is away.
        """
        try:
            answer: CallStatus = await self._handle.query(
                names.STATUS, result_type=CallStatus, rpc_timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            raise _explain(error, self.id) from None
        return answer

    async def outcome(
        self,
        timeout: timedelta | None = None,  # noqa: ASYNC109 -- a bound on waiting is part of what this promises
        *,
        settled: bool = False,
    ) -> CallOutcome:
        """Wait for the outcome.

        Args:
            timeout: how long; None for as long as it takes.
            settled: wait for the acknowledgements that we owe as well, which may take days; the
                outcome stands before that, with `acknowledgement_owed`.

        Returns:
            The outcome of a completed call.

        Raises:
            CallFailedError, CallCancelledError: with the outcome.
            InvalidRequestError, KeyReusedError: nothing was sent.
            TimeoutError: not yet.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds() if timeout else None):
                if settled:
                    return CallOutcome.model_validate(await self._handle.result())
                return await self._outcome_as_soon_as_it_stands()
        except WorkflowFailureError as error:
            raise await self._why(error) from None
        except RPCError as error:
            raise _explain(error, self.id) from None

    async def _outcome_as_soon_as_it_stands(self) -> CallOutcome:
        """The workflow's result, or the outcome of a call that still owes an acknowledgement.

        Asked by update and not by query: a query may split a workflow task (decision 7).
        """
        ending = asyncio.create_task(self._handle.result())
        asking = asyncio.create_task(self._outcome_told())
        try:
            await asyncio.wait([ending, asking], return_when=asyncio.FIRST_COMPLETED)
            told = asking.result() if asking.done() else None
            return _completed(told) if told else CallOutcome.model_validate(await ending)
        finally:
            ending.cancel()
            asking.cancel()

    async def _outcome_told(self) -> CallOutcome | None:
        """The outcome as the call tells it; None when only its end can tell."""
        await asyncio.sleep(_PATIENCE.total_seconds())
        wish = AwaitOutcome(timeout=_ASKED_FOR)
        outcome: CallOutcome | None = None
        try:
            while outcome is None:
                status: CallStatus = await self._handle.execute_update(
                    names.AWAIT_OUTCOME, wish, result_type=CallStatus
                )
                outcome = status.outcome
                if outcome is None:
                    await self._until_not_parked()
        except (WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            # Too many wait already, nobody works, or the call is over.
            return None
        return outcome

    async def _until_not_parked(self) -> None:
        """A parked call answers at once, again and again, so it is looked at from outside."""
        stage: str | None = Stage.PARKED
        while stage in (Stage.PARKED, None):
            await asyncio.sleep(_PATIENCE.total_seconds())
            described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
            stage = described.typed_search_attributes.get(search_attributes.STAGE)

    async def cancel(self, *, by: str, reason: str) -> None:
        """Cancel: the provider is told, and the call ends as cancelled unless it is too late."""
        await self._signal(names.CANCEL, Cancel(by=by, reason=reason))

    async def force_ack(self, *, by: str, reason: str, response: Any = None) -> None:
        """End the waiting by an operator's word, with a response or without."""
        await self._signal(names.FORCE_ACK, ForceAck(by=by, reason=reason, response=response))

    async def reprocess(self, *, by: str) -> None:
        """Take a parked call up again."""
        await self._signal(names.REPROCESS, Reprocess(by=by))

    async def request(self) -> CallRequest:
        """What the call was started with, from its first history event.

        Raises:
            InvalidRequestError: it was started with something that is no request.
        """
        async for event in self._handle.fetch_history_events(page_size=1):
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            arguments = await self._handle._client.data_converter.decode(  # noqa: SLF001 -- a handle knows its client, and offers no other way to it
                list[Payload](payloads)
            )
            try:
                return parse_argument(CallRequest, tuple(arguments))
            except InvalidInputError as error:
                raise InvalidRequestError(str(error)) from None
        raise CallNotFoundError(f"{self.id}: its history is empty")

    async def _signal(self, name: str, order: Cancel | ForceAck | Reprocess) -> None:
        try:
            await self._handle.signal(name, order, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self.id) from None

    async def _why(self, error: WorkflowFailureError) -> CallError:
        cause = error.cause
        if isinstance(cause, ApplicationError):
            return _typed(cause)
        if isinstance(cause, CancelledError):
            status = await self.status()
            if status.outcome is not None:
                return CallCancelledError(status.outcome)
        return CallError(f"{self.id}: {cause}")


class AckbridgeClient:
    """Starts calls, waits for them, finds them again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._indexed = True

    @classmethod
    async def connect(cls, environ: Mapping[str, str]) -> Self:
        """Connect as `TEMPORAL_*` says.

        Raises:
            EngineUnavailableError: nobody answers there.
        """
        return cls(await connect(environ))

    def call(self, call_id: str) -> Call:
        """A call that was started before, by its id."""
        return Call(self._client.get_workflow_handle(call_id))

    def control(self, provider: str) -> ControlHandle:
        """The control of a provider: its flags, and who has changed them."""
        return ControlHandle(self._client, provider)

    async def start(self, request: CallRequest) -> Call:
        """Start a call, or find the one that has the same key and payload.

        Raises:
            KeyReusedError: the key stands for another payload.
            EngineUnavailableError: the engine does not answer; trying again with the same key is
                safe.
        """
        try:
            handle = await self._start(request)
        except WorkflowAlreadyStartedError:
            call = self.call(request.call_id)
            await _same_request(call, request)
            return call
        except RPCError as error:
            raise _explain(error, request.call_id) from None
        return Call(handle)

    async def start_and_wait(self, request: CallRequest, timeout: timedelta) -> CallStatus:  # noqa: ASYNC109 -- the bound travels to the workflow
        """Start a call and take its outcome if it comes in time, else where it stands.

        One round trip (update-with-start). A call that is still under way is no error: the status
        says so, and the same request asks again.

        Raises:
            InvalidRequestError, KeyReusedError: nothing was sent.
            EngineUnavailableError: the engine does not answer; trying again with the same key is
                safe.
        """
        wish = AwaitOutcome(timeout=timeout, request_digest=request.digest)
        try:
            return await self._update_with_start(request, wish)
        except WorkflowAlreadyStartedError:
            return await self._ended(request)
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError):
                raise _typed(error.cause) from None
            raise
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
            return await self._without_update(request, timeout, error)

    async def list(
        self,
        *,
        provider: str | None = None,
        stage: str | None = None,
        owed: bool = False,
        limit: int = 50,
    ) -> AsyncIterator[ListedCall]:
        """The newest calls, as far as the engine's visibility has them.

        Args:
            provider, stage: only these.
            owed: only those that owe the provider an acknowledgement, running or over.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        conditions = [f"WorkflowType = '{names.INTEGRATION_CALL}'"]
        for key, wanted in (
            (search_attributes.PROVIDER, provider),
            (search_attributes.STAGE, stage),
        ):
            if wanted is not None:
                quoted = wanted.replace("'", "")
                conditions.append(f"{key.name} = '{quoted}'")
        if owed:
            conditions.append(f"{search_attributes.OWED.name} = true")
        found = self._client.list_workflows(" AND ".join(conditions), limit=limit)
        async for execution in found:
            yield ListedCall(
                call_id=execution.id,
                state=execution.status.name if execution.status else "UNKNOWN",
                stage=execution.typed_search_attributes.get(search_attributes.STAGE),
                started_at=execution.start_time.isoformat(timespec="seconds"),
            )

    async def reprocess_parked(self, request: BatchRequest, name: str | None = None) -> BatchHandle:
        """Start a batch that takes parked calls up again; its progress tells how far it is.

        Args:
            name: one of this name that is under way is found, not started; None for a new one.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        return await start_batch(self._client, request, name)

    def batch(self, batch_id: str) -> BatchHandle:
        """A batch that was started before, by its id."""
        return find_batch(self._client, batch_id)

    def batches(self, provider: str | None = None, limit: int = 20) -> AsyncIterator[BatchHandle]:
        """The newest batches, as far as the engine's visibility has them.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        return list_batches(self._client, provider, limit)

    async def _start(self, request: CallRequest) -> WorkflowHandle[Any, Any]:
        options = self._options(request)
        try:
            # FAIL rather than USE_EXISTING, which does not tell a new call from a found one: only
            # a found one has to be compared.
            return await self._client.start_workflow(
                names.INTEGRATION_CALL,
                request,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                rpc_timeout=RPC_TIMEOUT,
                **options,
            )
        except RPCError as error:
            if not self._does_without_index(error):
                raise
        return await self._start(request)

    async def _update_with_start(self, request: CallRequest, wish: AwaitOutcome) -> CallStatus:
        operation = WithStartWorkflowOperation[Any, Any](
            names.INTEGRATION_CALL,
            request,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            **self._options(request),
        )
        try:
            status: CallStatus = await self._client.execute_update_with_start_workflow(
                names.AWAIT_OUTCOME,
                wish,
                start_workflow_operation=operation,
                result_type=CallStatus,
                rpc_timeout=wish.timeout + RPC_TIMEOUT,
            )
            return status  # noqa: TRY300 -- an else would have to be shared with the second try
        except RPCError as error:
            if not self._does_without_index(error):
                raise
        finally:
            # A start that failed is reported a second time, through this future.
            with contextlib.suppress(WorkflowAlreadyStartedError, RPCError):
                await operation.workflow_handle()
        return await self._update_with_start(request, wish)

    async def _without_update(
        self, request: CallRequest, patience: timedelta, error: Exception
    ) -> CallStatus:
        """The update was not answered: too many wait already, or no worker is there."""
        if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
            # The call ended between the start and the update.
            return await self._ended(request)
        call = await self.start(request)
        if isinstance(error, RPCError) and error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
            try:
                return _ended_status(await call.outcome(patience))
            except (CallFailedError, CallCancelledError) as ended:
                return _ended_status(ended.outcome)
            except TimeoutError:
                return await call.status()
        described = await self._client.get_workflow_handle(call.id).describe()
        return CallStatus(
            call_id=call.id,
            stage=Stage.PREPARING,
            since=described.start_time,
            last_error="started; no worker has answered yet",
        )

    async def _ended(self, request: CallRequest) -> CallStatus:
        call = self.call(request.call_id)
        await _same_request(call, request)
        try:
            return _ended_status(await call.outcome(RPC_TIMEOUT))
        except (CallFailedError, CallCancelledError) as error:
            return _ended_status(error.outcome)

    def _options(self, request: CallRequest) -> dict[str, Any]:
        return {
            "id": request.call_id,
            "task_queue": names.TASK_QUEUE,
            "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
            "static_summary": f"{request.operation} at {request.provider}",
            "search_attributes": search_attributes.at_start(request.provider, request.operation)
            if self._indexed
            else None,
        }

    def _does_without_index(self, error: RPCError) -> bool:
        """Whether the start failed only because our search attributes are not registered."""
        unregistered = error.status is RPCStatusCode.INVALID_ARGUMENT and any(
            key.name in error.message for key in search_attributes.KEYS
        )
        self._indexed = self._indexed and not unregistered
        return unregistered


async def _same_request(call: Call, request: CallRequest) -> None:
    try:
        first = await call.request()
    except RPCError as error:
        raise _explain(error, call.id) from None
    if first.digest != request.digest:
        raise KeyReusedError(f"key: {call.id} already stands for a call with another payload")


def _completed(outcome: CallOutcome) -> CallOutcome:
    """The outcome of a completed call; any other is raised."""
    if outcome.status is OutcomeStatus.CANCELLED:
        raise CallCancelledError(outcome)
    if outcome.status is OutcomeStatus.FAILED:
        raise CallFailedError(outcome)
    return outcome


def _ended_status(outcome: CallOutcome) -> CallStatus:
    return CallStatus(
        call_id=outcome.call_id,
        stage=Stage(outcome.status),
        since=outcome.timings.ended_at or outcome.timings.started_at,
        cycle=outcome.cycles,
        attempts=outcome.attempts,
        reference=outcome.reference,
        notice=outcome.notice,
        outcome=outcome,
    )


def _typed(error: ApplicationError) -> CallError:
    if error.type == names.KEY_REUSED:
        return KeyReusedError(error.message)
    if error.type in (names.CALL_FAILED, names.CALL_CANCELLED) and error.details:
        outcome = CallOutcome.model_validate(error.details[0])
        if outcome.status is OutcomeStatus.CANCELLED:
            return CallCancelledError(outcome)
        return CallFailedError(outcome)
    if error.type == names.INVALID_REQUEST:
        return InvalidRequestError(error.message)
    return CallError(f"{error.type}: {error.message}")


def _explain(error: RPCError, call_id: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        if "already completed" in error.message:
            return CallError(f"{call_id}: too late, the call is over")
        return CallNotFoundError(f"{call_id}: there is no such call")
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(error.message)
    return EngineUnavailableError(
        f"the engine did not answer ({error.status.name}): {error.message}"
    )
