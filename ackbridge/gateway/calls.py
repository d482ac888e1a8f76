"""The calls as the gateway reaches them: through the engine, by their wire names only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import zip_longest
from typing import Any, TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.wire import digest
from ackbridge.errors import EngineUnavailableError
from ackbridge.temporal.signals import as_plain, signal_once

from .traces import CallbackTraces

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_OPEN = (
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED,
)


class Signalled(StrEnum):
    """What became of a signal."""

    DELIVERED = "delivered"
    NO_OPEN_CALL = "no_open_call"
    REFUSED = "refused"


class DeliveryTarget(StrEnum):
    UNKNOWN = "unknown"
    OPEN = "open"
    CLOSED = "closed"


class Calls:
    """Signals calls, one short try each: behind it stands the inbox, not a retry."""

    def __init__(
        self, client: Client, timeout: timedelta, traces: CallbackTraces | None = None
    ) -> None:
        """Take the client, how long one request may take, and where callbacks are traced, if so."""
        self._client = client
        self._service = client.workflow_service
        self._timeout = timeout
        self._traces = traces

    async def signal(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[ProviderMessage],
        traceparents: Sequence[str | None] = (),
    ) -> Signalled:
        """Hand messages to a call: one by itself, several in one signal.

        The server does the same request id for the same call once, whichever gateway sends it.

        Args:
            traceparents: what the provider has echoed of our request's, one for each message.

        Raises:
            EngineUnavailableError: it did not answer in time; the signal may have arrived all the
                same.
        """
        name, plain, event = _content(messages)
        signal = partial(
            signal_once,
            self._client,
            call_id,
            name,
            plain,
            request_id=f"{provider}:{event}",
            timeout=self._timeout,
        )
        try:
            if self._traces is None:
                await self._bounded(signal())
            else:
                came = list(zip_longest(traceparents, (one.received_at for one in messages)))
                async with self._traces.of_signal(call_id, provider, came) as header:
                    await self._bounded(signal(header=header))
        except RPCError as error:
            return _refusal(error)
        return Signalled.DELIVERED

    async def state(self, call_id: str) -> DeliveryTarget:
        """Whether there is such a call, and whether it is still open.

        Raises:
            EngineUnavailableError: it did not answer in time.
        """
        request = DescribeWorkflowExecutionRequest(
            namespace=self._client.namespace, execution=WorkflowExecution(workflow_id=call_id)
        )
        try:
            described = await self._bounded(
                self._service.describe_workflow_execution(request, timeout=self._timeout)
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return DeliveryTarget.UNKNOWN
            raise _unavailable(error) from None
        is_open = described.workflow_execution_info.status in _OPEN
        return DeliveryTarget.OPEN if is_open else DeliveryTarget.CLOSED

    async def ping(self) -> None:
        """See whether the engine answers and has our namespace.

        Raises:
            EngineUnavailableError: it does not.
        """
        request = DescribeNamespaceRequest(namespace=self._client.namespace)
        try:
            await self._bounded(self._service.describe_namespace(request, timeout=self._timeout))
        except RPCError as error:
            raise _unavailable(error) from None

    async def _bounded(self, answer: Awaitable[Answer]) -> Answer:
        try:
            # The timeout of a request does not cover the first connecting of a lazy client, whose
            # failure is a bare RuntimeError.
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await answer
        except (RuntimeError, TimeoutError):
            raise EngineUnavailableError("the engine does not answer") from None


def _content(messages: Sequence[ProviderMessage]) -> tuple[str, dict[str, Any], str]:
    """Name and argument of the signal, and what makes two signals the same."""
    plain = [as_plain(message) for message in messages]
    if len(messages) == 1:
        return names.PROVIDER_MESSAGE, plain[0], messages[0].event_key
    keys = [message.event_key for message in messages]
    return names.PROVIDER_MESSAGES, {"messages": plain}, digest(keys)


def _refusal(error: RPCError) -> Signalled:
    if error.status is RPCStatusCode.NOT_FOUND:
        return Signalled.NO_OPEN_CALL
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        # Too large, or one signal too many for this call: the same again will be refused again.
        log.error("the engine refuses a signal", extra={"reason": error.message})
        return Signalled.REFUSED
    raise _unavailable(error) from None


def _unavailable(error: RPCError) -> EngineUnavailableError:
    return EngineUnavailableError(f"the engine answers {error.status.name}")
