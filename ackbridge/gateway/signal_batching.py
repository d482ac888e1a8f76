"""Signal calls through the engine, and batch messages that arrive for the same call."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import zip_longest
from typing import Any, TypeVar

from temporalio.api.common.v1 import Header
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.catch_up import CatchUpRequest
from ackbridge.contracts.deliveries import EventStream, ForwardedEvent
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.wire import digest
from ackbridge.errors import EngineUnavailableError
from ackbridge.temporal.connect import as_plain, signal_once

from .traces import CallbackTraces

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH_MESSAGES = 100
"""Messages in one signal."""

MAX_BATCH_BYTES = 1024 * 1024
"""Bytes of the bodies of messages that share a signal: the engine's limit is 2 MiB."""


class SignalResult(StrEnum):
    DELIVERED = "delivered"
    NO_OPEN_CALL = "no_open_call"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


class EngineClient:
    """The gateway's requests to the engine: one short attempt each, since the inbox takes over."""

    def __init__(
        self, client: Client, timeout: timedelta, traces: CallbackTraces | None = None
    ) -> None:
        """Bound each request by `timeout`, connecting included; trace callbacks with `traces`."""
        self._client = client
        self._timeout = timeout
        self._traces = traces

    async def signal(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[ProviderMessage],
        traceparents: Sequence[str | None] = (),
    ) -> SignalResult:
        """Send messages to a call in one signal, with the trace context that each echoed.

        The engine ignores a request id that it has seen for the same call, from any gateway.

        Raises:
            EngineUnavailableError: no answer in time; the signal may have been stored.
        """
        name, argument, event_key = _signal(messages)
        request_id = f"{provider}:{event_key}"
        try:
            async with self._spans(call_id, provider, messages, traceparents) as header:
                await self._bounded(
                    signal_once(
                        self._client, call_id, name, argument, request_id, self._timeout, header
                    )
                )
        except RPCError as error:
            return _refusal(error)
        return SignalResult.DELIVERED

    async def forward(self, stream: EventStream, events: Sequence[ForwardedEvent]) -> None:
        """Forward events, in a workflow that is started unless it is there.

        Raises:
            EngineUnavailableError: no answer in time; it may have been stored.
        """
        plain = {"events": [as_plain(event) for event in events]}
        start = self._client.start_workflow(
            names.FORWARD_EVENTS,
            as_plain(stream),
            id=names.events_id(stream.provider, stream.subject),
            task_queue=names.TASK_QUEUE,
            start_signal=names.FORWARD,
            start_signal_args=[plain],
            static_summary=f"events of {stream.provider}",
            rpc_timeout=self._timeout,
        )
        try:
            await self._bounded(start)
        except RPCError as error:
            raise _unavailable(error) from None

    async def catch_up(self, request: CatchUpRequest) -> bool:
        """Start reading a provider's own list of events; false while that is running.

        Raises:
            EngineUnavailableError: no answer in time; it may have been started.
        """
        start = self._client.start_workflow(
            names.CATCH_UP,
            as_plain(request),
            id=names.catch_up_id(request.provider),
            task_queue=names.TASK_QUEUE,
            static_summary=f"events since {request.since:%Y-%m-%d %H:%M}, for {request.by}",
            rpc_timeout=self._timeout,
        )
        try:
            await self._bounded(start)
        except WorkflowAlreadyStartedError:
            return False
        except RPCError as error:
            raise _unavailable(error) from None
        return True

    async def has_ended(self, call_id: str) -> bool:
        """Whether the call exists and is closed; raises `EngineUnavailableError`."""
        handle = self._client.get_workflow_handle(call_id)
        try:
            description = await self._bounded(handle.describe(rpc_timeout=self._timeout))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise _unavailable(error) from None
        return description.close_time is not None

    async def ping(self) -> None:
        """Raise `EngineUnavailableError` unless the engine answers and has our namespace."""
        request = DescribeNamespaceRequest(namespace=self._client.namespace)
        try:
            service = self._client.workflow_service
            await self._bounded(service.describe_namespace(request, timeout=self._timeout))
        except RPCError as error:
            raise _unavailable(error) from None

    def _spans(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[ProviderMessage],
        traceparents: Sequence[str | None],
    ) -> AbstractAsyncContextManager[Header | None]:
        if self._traces is None:
            return nullcontext()
        callbacks = zip_longest(traceparents, (message.received_at for message in messages))
        return self._traces.signal_header(call_id, provider, list(callbacks))

    async def _bounded(self, request: Awaitable[T]) -> T:
        try:
            # The timeout of a request does not cover the first connection of a lazy client, whose
            # failure is a bare RuntimeError.
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await request
        except (RuntimeError, TimeoutError):
            raise EngineUnavailableError("the engine does not answer") from None


def _signal(messages: Sequence[ProviderMessage]) -> tuple[str, dict[str, Any], str]:
    """The signal's name and argument, and the event key that identifies it."""
    plain = [as_plain(message) for message in messages]
    if len(messages) == 1:
        return names.PROVIDER_MESSAGE, plain[0], messages[0].event_key
    keys = [message.event_key for message in messages]
    return names.PROVIDER_MESSAGES, {"messages": plain}, digest(keys)


def _refusal(error: RPCError) -> SignalResult:
    if error.status is RPCStatusCode.NOT_FOUND:
        return SignalResult.NO_OPEN_CALL
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        # Too large, or over the limit of signals per call: a retry would be refused as well.
        log.error("the engine refuses a signal", extra={"reason": error.message})
        return SignalResult.REFUSED
    raise _unavailable(error) from None


def _unavailable(error: RPCError) -> EngineUnavailableError:
    # The status alone: the server's message may contain addresses, and /readyz is public.
    return EngineUnavailableError(f"the engine answers {error.status.name}")


@dataclass(frozen=True)
class QueuedMessage:
    """A message that waits for the next signal; `size` is of the body it arrived in, in bytes."""

    message: ProviderMessage
    size: int
    traceparent: str | None
    result: asyncio.Future[SignalResult]


class SignalBatcher:
    """Send messages to calls, with at most one signal in flight per call.

    Messages that arrive while a signal is in flight are queued and sent together in the next one:
    the busier a call, the fewer signals per message. For one event loop.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._queues: dict[str, deque[QueuedMessage]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(
        self,
        call_id: str,
        provider: str,
        message: ProviderMessage,
        size: int,
        traceparent: str | None = None,
    ) -> SignalResult:
        """Send a message from a body of `size` bytes; return when it is stored or refused.

        Raises:
            EngineUnavailableError: no answer in time; the signal may have been stored.
        """
        queue = self._queues.get(call_id)
        if queue is not None:
            result: asyncio.Future[SignalResult] = asyncio.get_running_loop().create_future()
            queue.append(QueuedMessage(message, size, traceparent, result))
            return await result
        self._queues[call_id] = deque()
        try:
            return await self._engine.signal(call_id, provider, [message], [traceparent])
        except EngineUnavailableError:
            self._fail_queued(call_id)
            raise
        finally:
            self._start_sending_queued(call_id, provider)

    async def send_all(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[tuple[ProviderMessage, int, str | None]],
    ) -> list[SignalResult]:
        """Send several messages to a call, in one signal if that holds them.

        Args:
            messages: each with the bytes of its body, and the trace context that it echoed.

        Returns:
            For each what became of it; `UNANSWERED` may have been stored.
        """
        loop = asyncio.get_running_loop()
        queued = [QueuedMessage(*one, loop.create_future()) for one in messages]
        queue = self._queues.get(call_id)
        if queue is None:
            self._queues[call_id] = deque(queued)
            self._start_sending_queued(call_id, provider)
        else:
            queue.extend(queued)
        results = await asyncio.gather(*(one.result for one in queued), return_exceptions=True)
        return [_result(one) for one in results]

    def _start_sending_queued(self, call_id: str, provider: str) -> None:
        if not self._queues[call_id]:
            del self._queues[call_id]
            return
        # In a task of its own: the first sender gets its result now, and may have been cancelled.
        task = asyncio.create_task(self._send_queued(call_id, provider), name="signal batches")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_queued(self, call_id: str, provider: str) -> None:
        queue = self._queues[call_id]
        try:
            while batch := _next_batch(queue):
                await self._send_batch(call_id, provider, batch)
        finally:
            # No sender may wait forever, even if this task is cancelled.
            self._fail_queued(call_id)
            del self._queues[call_id]

    async def _send_batch(self, call_id: str, provider: str, batch: list[QueuedMessage]) -> None:
        messages = [queued.message for queued in batch]
        traceparents = [queued.traceparent for queued in batch]
        try:
            result = await self._engine.signal(call_id, provider, messages, traceparents)
        except EngineUnavailableError:
            # The rest of the queue would only wait for the same timeout.
            _fail(batch)
            self._fail_queued(call_id)
        except BaseException:
            _fail(batch)
            raise
        else:
            if result is SignalResult.REFUSED and len(batch) > 1:
                # A single message may be the reason.
                for queued in batch:
                    await self._send_batch(call_id, provider, [queued])
                return
            for queued in batch:
                if not queued.result.done():
                    queued.result.set_result(result)

    def _fail_queued(self, call_id: str) -> None:
        queue = self._queues[call_id]
        _fail(queue)
        queue.clear()


def _next_batch(queue: deque[QueuedMessage]) -> list[QueuedMessage]:
    """Remove what fits into one signal, in order of arrival."""
    batch: list[QueuedMessage] = []
    size = 0
    while queue and len(batch) < MAX_BATCH_MESSAGES:
        queued = queue[0]
        if batch and size + queued.size > MAX_BATCH_BYTES:
            break
        queue.popleft()
        # A cancelled sender has replied nothing to its provider, which will send again.
        if not queued.result.cancelled():
            batch.append(queued)
            size += queued.size
    return batch


def _result(found: SignalResult | BaseException) -> SignalResult:
    if isinstance(found, EngineUnavailableError):
        return SignalResult.UNANSWERED
    if isinstance(found, BaseException):
        raise found
    return found


def _fail(messages: Iterable[QueuedMessage]) -> None:
    for queued in messages:
        if not queued.result.done():
            queued.result.set_exception(EngineUnavailableError("the engine does not answer"))
