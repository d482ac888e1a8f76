"""The typed client: start calls, wait for their outcome and control them.

It uses only the wire names and plain JSON, as any other Temporal client could.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

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
from ackbridge.contracts.bulk import CallEnd
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    CallStatus,
    Effect,
    OutcomeStatus,
    Stage,
    Waiting,
    WaitingFor,
)
from ackbridge.contracts.limits import MAX_RESULT_BYTES
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.signals import (
    AwaitOutcome,
    Cancel,
    ForceAck,
    Reprocess,
    Resolve,
    WriteOff,
)
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import (
    CallCancelledError,
    CallEndedError,
    CallError,
    CallFailedError,
    CallNotFoundError,
    EngineUnavailableError,
    InvalidRequestError,
    KeyReusedError,
)
from ackbridge.temporal.connect import (
    RPC_TIMEOUT,
    connect,
    first_connection,
    is_namespace_missing,
    is_unregistered,
    retrieve_start,
    rpc_errors,
)

from .batches import BatchHandle, find_batch, list_batches, start_batch
from .bulk import IN_FLIGHT, BulkLane, BulkOutcome, CallMany
from .control import ControlHandle
from .hosted import HostedCall, HostFinder, raise_if_cancelled, rejection_error
from .known_names import KnownNames
from .listing import CallLister, ListedCall, ListFilter
from .settlement import settle, settled_outcome
from .waiting import with_waiting

Result = TypeVar("Result")

OperatorRequest = Cancel | ForceAck | Reprocess | Resolve | WriteOff

LATE_BY = timedelta(seconds=2)
"""How long after a timeout the answer of a worker may be on its way."""

_FIRST_UPDATE_AFTER = timedelta(seconds=2)
"""Most calls end before that, and their result costs no update."""

_PARKED_POLL_INTERVAL = timedelta(seconds=2)

_UPDATE_TIMEOUT = timedelta(hours=1)


class Call:
    """A call that has been started."""

    def __init__(
        self,
        handle: WorkflowHandle[Any, Any],
        hosts: HostFinder | None = None,
        ended: asyncio.Future[CallEnd] | None = None,
    ) -> None:
        """Address a call.

        Args:
            hosts: finds a call that has no workflow of its own.
            ended: how a call leaves the host that this client has started.
        """
        self._handle = handle
        self._client: Client = handle._client  # noqa: SLF001 -- a handle has no public access to its client
        self._hosts = hosts or HostFinder(self._client)
        self._ended = ended

    @property
    def id(self) -> str:
        """The call id, which is the workflow's id."""
        return self._handle.id

    async def status(self) -> CallStatus:
        """Query the status; needs a worker.

        `waiting` is completed by what the engine knows: whether an activity waits for a worker, for
        the breaker or the rate limit of its provider, or for its next attempt.

        Raises:
            CallNotFoundError: there is no such call.
            EngineUnavailableError: the engine does not answer, or no worker does.
        """
        with self._rpc_errors():
            status = await self._where(self._own_status, HostedCall.status)
        if status.outcome is None or not _may_be_corrected(status.outcome):
            return status
        settled = await settled_outcome(self._client, self.id)
        if settled is None:
            return status
        known = {"attempts", "cycle", "duplicates", "last_error"}
        return status_of(settled).model_copy(update=status.model_dump(include=known))

    async def _own_status(self) -> CallStatus:
        status: CallStatus = await self._handle.query(
            names.STATUS, result_type=CallStatus, rpc_timeout=RPC_TIMEOUT
        )
        if status.stage.is_final:
            return status
        described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
        return await with_waiting(self._client, status, described)

    async def _where(
        self,
        own: Callable[[], Awaitable[Result]],
        hosted: Callable[[HostedCall], Awaitable[Result | None]],
    ) -> Result:
        """Ask the call's own workflow, or its host; `hosted` returns None if it has moved."""
        known = self._hosts.known.get(self.id)
        if known is not None:
            try:
                found = await hosted(HostedCall(self._client, self.id, known))
            except RPCError as error:
                # The engine keeps an ended host for some days.
                if not _is_missing(error):
                    raise
                found = None
            if found is not None:
                return found
            self._hosts.forget(self.id)
        try:
            return await own()
        except RPCError as error:
            if not _is_missing(error):
                raise
            host = await self._hosts.find(self.id)
            if host in (None, known):
                raise
        found = await hosted(HostedCall(self._client, self.id, host))
        return found if found is not None else await own()

    async def outcome(
        self,
        timeout: timedelta | None = None,  # noqa: ASYNC109 -- part of the public signature
        *,
        settled: bool = False,
    ) -> CallOutcome:
        """Wait for the outcome.

        Args:
            timeout: None waits as long as it takes.
            settled: also wait until no acknowledgement is owed and the effect is no longer
                reconciled, which may take days; without it the outcome may have
                `acknowledgement_owed`, or the effect `unknown` and be replaced later.

        Returns:
            The outcome of a completed call, or of one that an operator settled as done.

        Raises:
            CallFailedError, CallCancelledError: with the outcome.
            InvalidRequestError, KeyReusedError: nothing was sent.
            TimeoutError: the call is still in flight, or parked.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds() if timeout else None):
                with self._rpc_errors():
                    outcome = await self._outcome(timeout, settled=settled)
            if not _may_be_corrected(outcome):
                return _completed(outcome)
            return _completed(await settled_outcome(self._client, self.id) or outcome)
        except WorkflowFailureError as error:
            raised = await self._error(error)
        if isinstance(raised, CallFailedError | CallCancelledError):
            corrected = await settled_outcome(self._client, self.id)
            if corrected is not None:
                return _completed(corrected)
        raise raised

    async def _outcome(self, timeout: timedelta | None, *, settled: bool) -> CallOutcome:  # noqa: ASYNC109 -- sent to the host
        if self._ended is not None:
            # It comes with those of other calls, without a request of its own.
            with contextlib.suppress(EngineUnavailableError):
                end = await asyncio.shield(self._ended)
                if end.rejected is not None:
                    raise rejection_error(end.rejected)
                if end.outcome is not None and not (settled and _is_open(end.outcome)):
                    return end.outcome
        own = self._settled_outcome if settled else self._first_outcome
        return await self._where(own, lambda hosted: hosted.outcome(timeout, settled=settled))

    async def _settled_outcome(self) -> CallOutcome:
        return CallOutcome.model_validate(await self._handle.result())

    async def _first_outcome(self) -> CallOutcome:
        """The workflow's result, or the outcome of a call that still owes an acknowledgement."""
        result = asyncio.create_task(self._handle.result())
        update = asyncio.create_task(self._await_outcome())
        try:
            await asyncio.wait([result, update], return_when=asyncio.FIRST_COMPLETED)
            outcome = update.result() if update.done() else None
            return _completed(outcome) if outcome else CallOutcome.model_validate(await result)
        finally:
            result.cancel()
            update.cancel()

    async def _await_outcome(self) -> CallOutcome | None:
        """The outcome by update; None when only the workflow's result can give it.

        An update and not a query: a query may split a workflow task (decision 7).
        """
        await asyncio.sleep(_FIRST_UPDATE_AFTER.total_seconds())
        outcome: CallOutcome | None = None
        try:
            while outcome is None:
                status: CallStatus = await self._handle.execute_update(
                    names.AWAIT_OUTCOME,
                    AwaitOutcome(timeout=_UPDATE_TIMEOUT),
                    result_type=CallStatus,
                )
                outcome = status.outcome
                if outcome is None:
                    await self._wait_while_parked()
        except (WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            # Too many updates are in flight, no worker runs, or the call has ended.
            return None
        return outcome

    async def _wait_while_parked(self) -> None:
        """Poll the indexed stage: a parked call answers every update at once."""
        stage: str | None = Stage.PARKED
        while stage in (Stage.PARKED, None):
            await asyncio.sleep(_PARKED_POLL_INTERVAL.total_seconds())
            described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
            stage = described.typed_search_attributes.get(search_attributes.STAGE)

    async def cancel(self, *, by: str, reason: str) -> None:
        """Send a failed acknowledgement and end as cancelled, unless the response is captured."""
        await self._signal(names.CANCEL, Cancel(by=by, reason=reason))

    async def force_ack(self, *, by: str, reason: str, response: Any = None) -> None:
        """Complete the call on an operator's authority, with or without a response."""
        await self._signal(names.FORCE_ACK, ForceAck(by=by, reason=reason, response=response))

    async def reprocess(self, *, by: str, reason: str | None = None) -> None:
        """Send a parked call again, if its flags and the breaker allow it."""
        await self._signal(names.REPROCESS, Reprocess(by=by, reason=reason))

    async def resolve(self, as_: Effect, *, by: str, reason: str, response: Any = None) -> None:
        """State what happened at the provider, for an open call that does not know.

        Args:
            as_: `done` completes the call, `none` fails it with effect none.
            response: the provider's response, if `done` and it is known.

        Raises:
            InvalidInputError: naming the field.
            CallEndedError: it has ended; `AckbridgeClient.settle` settles it.
        """
        fields = {"as": as_, "by": by, "reason": reason, "response": response}
        await self._signal(names.RESOLVE, parse_argument(Resolve, (fields,)))

    async def write_off(self, cycle: int, *, by: str, reason: str) -> None:
        """Stop retrying the acknowledgement of a cycle of an open call.

        Raises:
            InvalidInputError: naming the field.
            CallEndedError: it has ended.
        """
        fields = {"cycle": cycle, "by": by, "reason": reason}
        await self._signal(names.WRITE_OFF, parse_argument(WriteOff, (fields,)))

    async def request(self) -> CallRequest:
        """The request that the call was started with, from its first history event.

        Raises:
            InvalidRequestError: its argument is not a valid request.
        """
        with self._rpc_errors():
            return await self._where(self._own_request, HostedCall.request)

    async def _own_request(self) -> CallRequest:
        async for event in self._handle.fetch_history_events(page_size=1):
            started = event.workflow_execution_started_event_attributes
            payloads = list[Payload](started.input.payloads)
            if started.continued_execution_run_id or len(payloads) > 1:
                # A run that continues another one has its state as a second argument.
                payloads = payloads[:1]
            arguments = await self._client.data_converter.decode(payloads)
            try:
                return parse_argument(CallRequest, tuple(arguments))
            except InvalidInputError as error:
                raise InvalidRequestError(str(error)) from None
        raise CallNotFoundError(f"{self.id}: its history is empty")

    async def _signal(self, name: str, argument: OperatorRequest) -> None:
        size = len(argument.model_dump_json().encode())
        if size > MAX_RESULT_BYTES:
            raise InvalidRequestError(
                f"response: the signal has {size} bytes as JSON, at most {MAX_RESULT_BYTES} are"
                " allowed"
            )

        async def own() -> bool:
            await self._handle.signal(name, argument, rpc_timeout=RPC_TIMEOUT)
            return True

        with self._rpc_errors():
            await self._where(own, lambda host: host.signal(name, argument))

    def _rpc_errors(self) -> AbstractContextManager[None]:
        return rpc_errors(
            not_found=CallNotFoundError(f"{self.id}: no such call"),
            ended=CallEndedError(f"{self.id}: too late, the call has ended"),
        )

    async def _error(self, error: WorkflowFailureError) -> CallError:
        cause = error.cause
        if isinstance(cause, ApplicationError):
            return _typed(cause)
        if isinstance(cause, CancelledError):
            status = await self.status()
            if status.outcome is not None:
                return CallCancelledError(status.outcome)
        return CallError(f"{self.id}: {cause}")


class AckbridgeClient:
    """Starts, finds, lists and controls calls and batches.

        async with AckbridgeClient.connect() as calls:
            status = await calls.start_and_wait(request, timeout=timedelta(seconds=5))

    `await AckbridgeClient.connect()` gives the same client without a block. There is nothing to
    close: the Temporal client ends its connections when it is garbage collected.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._indexed = True
        self._known = KnownNames(client)
        # Whether calls of an operation share workflows.
        self._checked: dict[tuple[str, str], bool] = {}
        self._checking = asyncio.Lock()
        self._hosts = HostFinder(client)
        self._lane = BulkLane(client, self._hosts)

    @staticmethod
    def connect(environ: Mapping[str, str] | None = None) -> UnconnectedClient:
        """Connect as `TEMPORAL_*` says, in `environ` or the process environment.

        Await it, or use it as an asynchronous context manager.

        Raises:
            ConfigurationError: `TEMPORAL_*` is not valid.
            EngineUnavailableError: no Temporal server answers.
        """
        return UnconnectedClient(os.environ if environ is None else environ)

    def call(self, call_id: str) -> Call:
        """The call with this id; the server is not asked."""
        return Call(self._client.get_workflow_handle(call_id), self._hosts)

    def control(self, provider: str) -> ControlHandle:
        """The control of a provider: its flags, breaker and limit."""
        return ControlHandle(self._client, provider)

    async def start(self, request: CallRequest) -> Call:
        """Start a call, or find the one that has the same key and payload.

        Raises:
            InvalidRequestError: there is no such provider or operation, or the request is too
                large; nothing was sent.
            KeyReusedError: the key belongs to a call with another payload.
            EngineUnavailableError: the engine does not answer; repeating with the same key is
                safe.
        """
        await self._check(request)
        if self._checked.get((request.provider, request.operation)):
            return await self._start_hosted(request)
        try:
            with rpc_errors():
                return Call(await self._start(request), self._hosts)
        except WorkflowAlreadyStartedError:
            call = self.call(request.call_id)
            await _check_same_request(call, request)
            return call

    async def _start_hosted(self, request: CallRequest) -> Call:
        queued = self._lane.submit(request)
        await queued.started
        handle = self._client.get_workflow_handle(request.call_id)
        return Call(handle, self._hosts, queued.ended)

    async def _start_hosted_and_wait(self, request: CallRequest, timeout: timedelta) -> CallStatus:  # noqa: ASYNC109 -- see `start_and_wait`
        try:
            async with asyncio.timeout((timeout + LATE_BY).total_seconds()):
                call = await self._start_hosted(request)
        except TimeoutError:
            raise EngineUnavailableError("the engine has not stored the call in time") from None
        return await self._status_by(call, timeout)

    async def start_and_wait(self, request: CallRequest, timeout: timedelta) -> CallStatus:  # noqa: ASYNC109 -- part of the public signature, and sent to the workflow
        """Start a call and return its status: with the outcome if it ends within the timeout.

        One round trip (update-with-start). A call that is still in flight is no error: its status
        has no outcome, and the same request waits again. Where no worker answers, the status says
        so, at most `LATE_BY` after the timeout.

        Raises:
            InvalidRequestError, KeyReusedError: nothing was sent.
            EngineUnavailableError: the engine does not answer; repeating with the same key is
                safe.
        """
        await self._check(request)
        if self._checked.get((request.provider, request.operation)):
            return await self._start_hosted_and_wait(request, timeout)
        argument = AwaitOutcome(timeout=timeout, request_digest=request.digest)
        limit = asyncio.timeout((timeout + LATE_BY).total_seconds())
        try:
            # Its request's own timeout is not enough: without a worker the SDK repeats it.
            async with limit:
                with first_connection():
                    return await self._update_with_start(request, argument)
        except TimeoutError:
            return await self._unanswered(await self.start(request))
        except WorkflowAlreadyStartedError:
            return await self._final_status(request)
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError):
                raise _typed(error.cause) from None
            raise
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            if not limit.expired():
                raise_if_cancelled(error)
            return await self._unanswered(await self.start(request))
        except RPCError as error:
            return await self._without_update(request, timeout, error)

    def call_many(
        self,
        requests: Iterable[CallRequest] | AsyncIterable[CallRequest],
        *,
        in_flight: int = IN_FLIGHT,
    ) -> AsyncIterator[BulkOutcome]:
        """Make many calls, several in one workflow; yield how each ended, in the order they end.

        The requests are read as there is room for more calls: as many as `in_flight` are started,
        or have ended and were not taken yet. A call that waits for long does not count. A call that
        another client has started, in whatever way, is followed. Breaking off leaves the calls that
        are started alone; the same requests again return their outcomes.
        """
        return CallMany(self._lane, self._check, self._follow, in_flight).run(requests)

    async def _follow(self, request: CallRequest) -> CallOutcome:
        """The outcome of a call that left its host, completed or not."""
        call = self.call(request.call_id)
        await _check_same_request(call, request)
        try:
            return await call.outcome()
        except (CallFailedError, CallCancelledError) as error:
            return error.outcome

    async def start_unserved(self, request: CallRequest) -> CallStatus:
        """Start a call where no worker runs: its status says that it waits for one.

        Raises:
            as `start`.
        """
        return await self._unanswered(await self.start(request))

    async def list(
        self,
        *,
        provider: str | None = None,
        stage: str | None = None,
        owed: bool = False,
        limit: int = 50,
    ) -> AsyncIterator[ListedCall]:
        """Calls in the visibility store, which lags by about a second.

        Open ones come first, and among them the newest. A call in a host is listed with its stage.
        Those that share a workflow cost one request for each of these workflows.

        Args:
            provider: only its calls.
            stage: only open calls that are indexed as `parked`, as `reconciling` or as `in_flight`.
            owed: only calls that owe the provider an acknowledgement, open or ended.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        which = ListFilter(provider, stage, owed)
        async for row in CallLister(self._client, which, limit).calls():
            yield row

    async def settle(
        self, call_id: str, as_: Effect, *, by: str, reason: str, response: Any = None
    ) -> CallOutcome:
        """State what happened at the provider, for a call that has ended without knowing it.

        Args:
            as_: `done` or `none`.
            response: the provider's response, if `done` and it is known.

        Returns:
            The new outcome, which `Call.status` and `Call.outcome` return from then on.

        Raises:
            InvalidInputError: naming the field.
            InvalidRequestError: there is no such call, or it has not ended.
            EngineUnavailableError: the engine does not answer; repeating is safe.
        """
        fields = {"call_id": call_id, "as": as_, "by": by, "reason": reason, "response": response}
        outcome = await settle(self._client, parse_argument(SettleRequest, (fields,)))
        if outcome is None:
            raise InvalidRequestError(f"{call_id}: it has not ended; use `Call.resolve`")
        return outcome

    async def reprocess_parked(self, request: BatchRequest, name: str | None = None) -> BatchHandle:
        """Start a batch that reprocesses parked calls, or find the running one of the same name.

        Args:
            name: the last part of its id; None: made from the time.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        return await start_batch(self._client, request, name)

    def batch(self, batch_id: str) -> BatchHandle:
        """The batch with this id; the server is not asked."""
        return find_batch(self._client, batch_id)

    def batches(self, provider: str | None = None, limit: int = 20) -> AsyncIterator[BatchHandle]:
        """The newest batches in the visibility store, which lags by about a second.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        return list_batches(self._client, provider, limit)

    async def _check(self, request: CallRequest) -> None:
        try:
            request.check_size()
        except InvalidInputError as error:
            raise InvalidRequestError(str(error)) from None
        name = (request.provider, request.operation)
        if name in self._checked:
            return
        # One at a time: the next call of the same operation need not ask again.
        async with self._checking:
            if name not in self._checked:
                await self._known.check(request)
                self._checked[name] = self._known.is_bulk(request)

    async def _start(self, request: CallRequest) -> WorkflowHandle[Any, Any]:
        options = self._options(request)
        try:
            # Not USE_EXISTING, which does not say whether the call is new; an existing one has to
            # be compared with the request.
            return await self._client.start_workflow(
                names.INTEGRATION_CALL,
                request,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                rpc_timeout=RPC_TIMEOUT,
                **options,
            )
        except RPCError as error:
            if not self._is_index_missing(error):
                raise
        return await self._start(request)

    async def _update_with_start(self, request: CallRequest, argument: AwaitOutcome) -> CallStatus:
        operation = WithStartWorkflowOperation[Any, Any](
            names.INTEGRATION_CALL,
            request,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            **self._options(request),
        )
        try:
            status: CallStatus = await self._client.execute_update_with_start_workflow(
                names.AWAIT_OUTCOME,
                argument,
                start_workflow_operation=operation,
                result_type=CallStatus,
                rpc_timeout=argument.timeout + LATE_BY,
            )
            return status  # noqa: TRY300 -- an else would have to be shared with the second try
        except RPCError as error:
            if not self._is_index_missing(error):
                raise
        finally:
            await retrieve_start(operation)
        return await self._update_with_start(request, argument)

    async def _without_update(
        self,
        request: CallRequest,
        timeout: timedelta,  # noqa: ASYNC109 -- see `start_and_wait`
        error: RPCError,
    ) -> CallStatus:
        """The status after an update without an answer: too many in flight, or no engine."""
        if error.status is RPCStatusCode.NOT_FOUND:
            # The call ended between the start and the update.
            return await self._final_status(request)
        call = await self.start(request)
        if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
            return await self._status_by(call, timeout)
        return await self._unanswered(call)

    async def _status_by(self, call: Call, timeout: timedelta) -> CallStatus:  # noqa: ASYNC109 -- see `start_and_wait`
        """The status with the outcome, or the one when the time is over."""
        with contextlib.suppress(TimeoutError):
            return await status_at_end(call, timeout)
        try:
            async with asyncio.timeout(LATE_BY.total_seconds()):
                return await call.status()
        except (TimeoutError, EngineUnavailableError):
            return await self._unanswered(call)

    async def _unanswered(self, call: Call) -> CallStatus:
        """The status of a call that no worker has answered for."""
        host = self._hosts.known.get(call.id, call.id)
        with rpc_errors():
            described = await self._client.get_workflow_handle(host).describe(
                rpc_timeout=RPC_TIMEOUT
            )
        return CallStatus(
            call_id=call.id,
            stage=Stage.PREPARING,
            since=described.start_time,
            waiting=Waiting(
                what=WaitingFor.WORKER,
                since=described.start_time,
                detail="started; no worker has answered yet",
            ),
        )

    async def _final_status(self, request: CallRequest) -> CallStatus:
        call = self.call(request.call_id)
        await _check_same_request(call, request)
        return await status_at_end(call, RPC_TIMEOUT)

    def _options(self, request: CallRequest) -> dict[str, Any]:
        return {
            "id": request.call_id,
            "task_queue": names.TASK_QUEUE,
            "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
            "static_summary": f"{request.operation} at {request.provider}",
            "search_attributes": request.search_attributes if self._indexed else None,
        }

    def _is_index_missing(self, error: RPCError) -> bool:
        """Whether the start failed only because our search attributes are not registered.

        Later starts are then made without them.
        """
        unregistered = is_unregistered(error)
        self._indexed = self._indexed and not unregistered
        return unregistered


class UnconnectedClient:
    """A client that is not connected yet: await it, or enter it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __await__(self) -> Generator[Any, None, AckbridgeClient]:
        return self._connect().__await__()

    async def __aenter__(self) -> AckbridgeClient:
        return await self._connect()

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _connect(self) -> AckbridgeClient:
        return AckbridgeClient(await connect(self._environ))


async def _check_same_request(call: Call, request: CallRequest) -> None:
    first = await call.request()
    if first.digest != request.digest:
        raise KeyReusedError(f"key: {call.id} already belongs to a call with another payload")


async def status_at_end(call: Call, timeout: timedelta) -> CallStatus:  # noqa: ASYNC109 -- see `start_and_wait`
    """The status with the outcome; raises `TimeoutError` while there is none."""
    try:
        return status_of(await call.outcome(timeout))
    except (CallFailedError, CallCancelledError) as error:
        return status_of(error.outcome)


def _is_missing(error: RPCError) -> bool:
    """Whether there is no such workflow."""
    return error.status is RPCStatusCode.NOT_FOUND and not is_namespace_missing(error)


def _is_open(outcome: CallOutcome) -> bool:
    """Whether its call goes on."""
    return outcome.acknowledgement_owed or outcome.effect is Effect.UNKNOWN


def _completed(outcome: CallOutcome) -> CallOutcome:
    """Return the outcome of a completed call; raise any other."""
    if outcome.status is OutcomeStatus.CANCELLED:
        raise CallCancelledError(outcome)
    if outcome.status is OutcomeStatus.FAILED:
        raise CallFailedError(outcome)
    return outcome


def status_of(outcome: CallOutcome) -> CallStatus:
    """The status of a call that has ended, from its outcome."""
    return CallStatus(
        call_id=outcome.call_id,
        stage=Stage(outcome.status),
        since=outcome.timings.ended_at or outcome.timings.started_at,
        cycle=outcome.cycles,
        attempts=outcome.attempts,
        reference=outcome.reference,
        notice=outcome.notice,
        outcome=outcome,
        effect=outcome.effect,
        code=outcome.code,
        provider_code=outcome.provider_code,
        receipt=outcome.receipt,
        disputed=outcome.disputed,
    )


def _may_be_corrected(outcome: CallOutcome) -> bool:
    """Whether an operator may have stated another effect since."""
    is_certain = outcome.effect is Effect.DONE and not outcome.disputed and not outcome.forced
    return not is_certain


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
