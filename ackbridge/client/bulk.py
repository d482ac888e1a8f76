"""Start many calls in few workflows, and collect their outcomes as they end."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.bulk import MAX_HOSTED, CallEnd, CallEnds, TakeEnds, host_attributes
from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.contracts.limits import MAX_RESULT_BYTES, MAX_SUMMARY_LENGTH
from ackbridge.errors import (
    AckbridgeError,
    CallError,
    EngineUnavailableError,
)
from ackbridge.temporal.connect import (
    RPC_TIMEOUT,
    as_plain,
    is_unregistered,
    retrieve_start,
    rpc_errors,
)

from .hosted import HostFinder, raise_if_cancelled, rejection_error

log = logging.getLogger(__name__)

T = TypeVar("T")

EndsUpdate: TypeAlias = WorkflowUpdateHandle[CallEnds]
"""The update `take_ends`, which its host has accepted."""

IN_FLIGHT: Final = 1000
"""Calls of `call_many` that are in flight at once, unless it is told otherwise."""

AT_THE_SAME_TIME: Final = 0.002
"""Seconds; a call takes tens of milliseconds."""

MAX_MOVED: Final = 10_000
"""Calls of `call_many` that have left their hosts and do not count as in flight."""

LOOK_AFTER: Final = 0.2
"""Seconds that the start of a host may take before the engine is asked whether it has stored it."""

NEXT_AFTER: Final = 0.5
"""Seconds after which the next host is started, though no worker has sent the calls of this one."""

RETRY_AFTER: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class BulkOutcome:
    """How one request of many ended.

    Attributes:
        outcome: of the call, completed or not; None: `error` says why there is none.
        error: nothing was sent (`InvalidRequestError`, `KeyReusedError`), or the outcome is not
            known, and the same request can be made again.
    """

    request: CallRequest
    outcome: CallOutcome | None = None
    error: AckbridgeError | None = None


@dataclass(frozen=True, eq=False)
class QueuedCall:
    """A request that waits for a host.

    Attributes:
        size: of its JSON, in bytes.
        started: done when the engine has stored it.
        ended: how the call has left its host. Both raise `EngineUnavailableError`, after which
            repeating with the same key is safe.
    """

    request: CallRequest
    size: int
    started: asyncio.Future[None]
    ended: asyncio.Future[CallEnd]


class BulkLane:
    """Starts hosts for the calls of one client, without ever waiting for more of them.

    Calls that are asked for while one is being started share the next one: the busier the client,
    the more calls share one.
    """

    def __init__(self, client: Client, hosts: HostFinder) -> None:
        """Start hosts through `client`, and remember in `hosts` which calls they have."""
        self._client = client
        self._hosts = hosts
        self._queue: deque[QueuedCall] = deque()
        self._is_starting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_indexed = True

    def submit(self, request: CallRequest) -> QueuedCall:
        """Start a call in a host."""
        loop = asyncio.get_running_loop()
        queued = QueuedCall(
            request, request.check_size(), loop.create_future(), loop.create_future()
        )
        for future in (queued.started, queued.ended):
            # Its failure need not interest anybody, and must be retrieved all the same.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._queue.append(queued)
        self._start_host()
        return queued

    def _start_host(self) -> None:
        if self._queue and not self._is_starting:
            self._is_starting = True
            self._run(self._host)

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work(), name="host of calls")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _host(self) -> None:
        """Start one host, and collect how its calls end."""
        # What else is asked for at the same time comes along.
        await asyncio.sleep(AT_THE_SAME_TIME)
        calls = self._next_calls()
        has_started = False

        def started() -> None:
            nonlocal has_started
            if not has_started:
                has_started, self._is_starting = True, False
                self._start_host()

        host_id = names.bulk_id(uuid.uuid4().hex)
        handle = self._client.get_workflow_handle(host_id)
        starting = asyncio.create_task(self._start(host_id, calls))
        try:
            await _until_stored(handle, starting)
            # Without a worker, nobody takes the question.
            asyncio.get_running_loop().call_later(NEXT_AFTER, started)
            before = [self._hosts.known.get(call.request.call_id) for call in calls]
            self._hosts.remember((call.request.call_id for call in calls), host_id)
            for call in calls:
                _settle(call.started, None)
            await self._collect(handle, starting, calls, before, started)
        except AckbridgeError as error:
            _fail(calls, error)
        except RPCError as error:
            _fail(calls, EngineUnavailableError(f"the engine answers {error.status.name}"))
        except BaseException:
            _fail(calls, EngineUnavailableError("the outcome was not collected"))
            raise
        finally:
            starting.cancel()
            started()

    def _next_calls(self) -> list[QueuedCall]:
        """Remove what fits into one host, each key once."""
        calls: dict[str, QueuedCall] = {}
        size, left = 0, deque[QueuedCall]()
        while self._queue and len(calls) < MAX_HOSTED:
            if calls and size + self._queue[0].size > MAX_RESULT_BYTES:
                break
            queued = self._queue.popleft()
            if queued.request.call_id in calls:
                left.append(queued)
            else:
                calls[queued.request.call_id] = queued
                size += queued.size
        self._queue.extendleft(reversed(left))
        return list(calls.values())

    async def _start(self, host_id: str, calls: list[QueuedCall]) -> EndsUpdate:
        """Start a host and ask it for its first ends, in one request.

        Asked in a second one, it would need another workflow task to take the question. Ends when a
        worker has; without search attributes where ours are not registered.
        """
        operations = {f"{one.request.operation} at {one.request.provider}" for one in calls}
        summary = f"{len(calls)} of {', '.join(sorted(operations))}"[:MAX_SUMMARY_LENGTH]
        attributes = host_attributes([call.request for call in calls])
        operation = WithStartWorkflowOperation[Any, Any](
            names.BULK_CALLS,
            {"requests": [as_plain(call.request) for call in calls]},
            id=host_id,
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            static_summary=summary,
            search_attributes=attributes if self._is_indexed else None,
        )
        try:
            return await self._client.start_update_with_start_workflow(
                names.TAKE_ENDS,
                TakeEnds(),
                start_workflow_operation=operation,
                id=_update_id(0),
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                result_type=CallEnds,
            )
        except RPCError as error:
            if not (self._is_indexed and is_unregistered(error)):
                raise
        finally:
            await retrieve_start(operation)
        self._is_indexed = False
        return await self._start(host_id, calls)

    async def _collect(
        self,
        handle: WorkflowHandle[Any, Any],
        starting: asyncio.Task[EndsUpdate],
        calls: list[QueuedCall],
        before: list[str | None],
        started: Callable[[], None],
    ) -> None:
        after, remaining = 0, len(calls)
        asked: asyncio.Task[EndsUpdate] | None = starting
        while remaining:
            ends = await self._take_ends(handle, after, started, asked)
            asked = None
            for end in ends.ends:
                call_id = calls[end.index].request.call_id
                if end.rejected is not None:
                    self._hosts.forget(call_id, before[end.index])
                elif end.moved_to == call_id:
                    self._hosts.forget(call_id)
                _settle(calls[end.index].ended, end)
            after, remaining = after + len(ends.ends), ends.remaining

    async def _take_ends(
        self,
        handle: WorkflowHandle[Any, Any],
        after: int,
        started: Callable[[], None],
        asked: asyncio.Task[EndsUpdate] | None = None,
    ) -> CallEnds:
        """The ends that follow, if they are not `asked` for already; by the result of a host that
        has ended."""
        while True:
            try:
                asking, asked = asked, None
                update = await (asking or _ask(handle, after))
                # All its calls have been sent: the next host can be started.
                started()
                ends: CallEnds = await update.result()
                return ends  # noqa: TRY300 -- an else would be further from what it returns
            except WorkflowUpdateFailedError:
                return await _last_ends(handle, after)
            except WorkflowAlreadyStartedError:
                # The engine has stored this host, and its first answer was lost.
                continue
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return await _last_ends(handle, after)
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                raise_if_cancelled(error)
            await asyncio.sleep(RETRY_AFTER.total_seconds())


async def _ask(handle: WorkflowHandle[Any, Any], after: int) -> EndsUpdate:
    return await handle.start_update(
        names.TAKE_ENDS,
        TakeEnds(after=after),
        id=_update_id(after),
        wait_for_stage=WorkflowUpdateStage.ACCEPTED,
        result_type=CallEnds,
    )


def _update_id(after: int) -> str:
    """Asked again, it is the same update."""
    return f"after-{after}"


async def _until_stored(
    handle: WorkflowHandle[Any, Any], starting: asyncio.Task[EndsUpdate]
) -> None:
    """Wait until the engine has stored a host, whose start ends when a worker has taken it.

    Raises:
        EngineUnavailableError, InvalidRequestError: it may not have been stored.
    """
    try:
        with rpc_errors():
            async with asyncio.timeout(RPC_TIMEOUT.total_seconds()):
                while not await _is_stored(handle, starting):
                    pass
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
        raise EngineUnavailableError("the engine does not answer in time") from None


async def _is_stored(handle: WorkflowHandle[Any, Any], starting: asyncio.Task[EndsUpdate]) -> bool:
    done, _ = await asyncio.wait({starting}, timeout=LOOK_AFTER)
    if done and starting.exception() is None:
        return True
    try:
        await handle.describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError:
        if done:
            starting.result()
        return False
    return True


async def _last_ends(handle: WorkflowHandle[Any, Any], after: int) -> CallEnds:
    """The ends that the result of a closed host has."""
    try:
        ends = CallEnds.model_validate(await handle.result())
    except WorkflowFailureError as error:
        raise CallError(f"{handle.id}: {error.cause}") from None
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        # Not an engine that is away: the others' outcomes can be had.
        raise CallError(f"{handle.id}: it was deleted") from None
    return CallEnds(ends=ends.ends[after:])


def _fail(calls: Iterable[QueuedCall], error: AckbridgeError) -> None:
    for call in calls:
        for future in (call.started, call.ended):
            if not future.done():
                future.set_exception(error)


def _settle(future: asyncio.Future[T], result: T) -> None:
    # Who waits for it may have been cancelled.
    if not future.done():
        future.set_result(result)


class CallMany:
    """One run of `AckbridgeClient.call_many`."""

    def __init__(
        self,
        lane: BulkLane,
        check: Callable[[CallRequest], Awaitable[None]],
        follow: Callable[[CallRequest], Awaitable[CallOutcome]],
        in_flight: int,
    ) -> None:
        """Start calls in a lane.

        Args:
            check: raises `InvalidRequestError` for a request that cannot be a call.
            follow: waits for the outcome of a call that is in another workflow; raises `CallError`
                for one that has none.
            in_flight: how many calls may be in flight, or ended and not taken yet.
        """
        self._lane = lane
        self._check = check
        self._follow = follow
        self._free = asyncio.Semaphore(in_flight)
        self._moved = 0
        # With each, whether it is in flight until it is taken.
        self._ended: asyncio.Queue[tuple[BulkOutcome, bool]] = asyncio.Queue()
        self._open: set[asyncio.Task[None]] = set()

    async def run(
        self, requests: Iterable[CallRequest] | AsyncIterable[CallRequest]
    ) -> AsyncIterator[BulkOutcome]:
        """Start the calls as there is room for them; yield how each ended."""
        feeding = asyncio.create_task(self._feed(requests))
        taking: asyncio.Task[tuple[BulkOutcome, bool]] | None = None
        try:
            while not feeding.done() or self._open or not self._ended.empty():
                taking = taking or asyncio.create_task(self._ended.get())
                others = {feeding} if not feeding.done() else self._open
                await asyncio.wait({taking, *others}, return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    (outcome, is_counted), taking = taking.result(), None
                    if is_counted:
                        self._free.release()
                    yield outcome
            await feeding
        finally:
            for task in (feeding, taking, *self._open):
                if task is not None:
                    task.cancel()

    async def _feed(self, requests: Iterable[CallRequest] | AsyncIterable[CallRequest]) -> None:
        async for request in _each(requests):
            await self._free.acquire()
            task = asyncio.create_task(self._call(request))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _call(self, request: CallRequest) -> None:
        is_counted = True
        try:
            await self._check(request)
            end = await self._lane.submit(request).ended
            if end.moved_to is not None and self._moved < MAX_MOVED:
                # A call that takes long holds up no other one.
                is_counted = False
                self._moved += 1
                self._free.release()
            outcome = await self._outcome(request, end)
        except AckbridgeError as error:
            outcome = BulkOutcome(request, error=error)
        except Exception as error:
            # Whatever it is, the request must not go missing among many.
            log.exception("%s: its outcome was not collected", request.call_id)
            unexpected = CallError(f"unexpected error: {type(error).__name__}")
            outcome = BulkOutcome(request, error=unexpected)
        self._moved -= not is_counted
        self._ended.put_nowait((outcome, is_counted))

    async def _outcome(self, request: CallRequest, end: CallEnd) -> BulkOutcome:
        if end.rejected is not None:
            return BulkOutcome(request, error=rejection_error(end.rejected))
        if end.moved_to is None:
            return BulkOutcome(request, end.outcome)
        return BulkOutcome(request, await self._follow(request))


async def _each(
    requests: Iterable[CallRequest] | AsyncIterable[CallRequest],
) -> AsyncIterator[CallRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
