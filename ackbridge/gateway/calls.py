"""The calls as the gateway reaches them: through the engine, by their wire names only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import ProviderMessage, names
from ackbridge.errors import EngineUnavailable
from ackbridge.signalling import signal_once

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


class CallState(StrEnum):
    UNKNOWN = "unknown"
    OPEN = "open"
    CLOSED = "closed"


class Calls:
    """Signals calls, one short try each: behind it stands the inbox, not a retry."""

    def __init__(self, client: Client, timeout: timedelta) -> None:
        """Take the client, and how long one request may take."""
        self._client = client
        self._service = client.workflow_service
        self._timeout = timeout

    async def signal(self, call_id: str, provider: str, message: ProviderMessage) -> Signalled:
        """Hand a message to a call.

        The server does the same request id for the same call once, whichever gateway sends it.

        Raises:
            EngineUnavailable: it did not answer in time; the signal may have arrived all the same.
        """
        signal = signal_once(
            self._client,
            call_id,
            names.PROVIDER_MESSAGE,
            message,
            request_id=f"{provider}:{message.event_key}",
            timeout=self._timeout,
        )
        try:
            await self._bounded(signal)
        except RPCError as error:
            return _refusal(error)
        return Signalled.DELIVERED

    async def state(self, call_id: str) -> CallState:
        """Whether there is such a call, and whether it is still open.

        Raises:
            EngineUnavailable: it did not answer in time.
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
                return CallState.UNKNOWN
            raise _unavailable(error) from None
        is_open = described.workflow_execution_info.status in _OPEN
        return CallState.OPEN if is_open else CallState.CLOSED

    async def ping(self) -> None:
        """See whether the engine answers and has our namespace.

        Raises:
            EngineUnavailable: it does not.
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
            raise EngineUnavailable("the engine does not answer") from None


def _refusal(error: RPCError) -> Signalled:
    if error.status is RPCStatusCode.NOT_FOUND:
        return Signalled.NO_OPEN_CALL
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        # Too large, or one signal too many for this call: the same again will be refused again.
        log.error("the engine refuses a signal", extra={"reason": error.message})
        return Signalled.REFUSED
    raise _unavailable(error) from None


def _unavailable(error: RPCError) -> EngineUnavailable:
    return EngineUnavailable(f"the engine answers {error.status.name}")
