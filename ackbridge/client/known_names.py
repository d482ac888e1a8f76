"""Refuse requests for providers and operations that no worker has an integration file of."""

from __future__ import annotations

from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import AckbridgeError, InvalidRequestError, unknown_name
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors

from .control import read_snapshot


class KnownNames:
    """The providers that have a control, and their operations; read once for each provider.

    Names that cannot be checked are accepted: the workflow checks them again.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._operations: dict[str, tuple[str, ...]] = {}
        self._bulk: dict[str, tuple[str, ...]] = {}

    def is_bulk(self, request: CallRequest) -> bool:
        """Whether calls of the operation share workflows; known once a request was checked."""
        return request.operation in self._bulk.get(request.provider, ())

    async def check(self, request: CallRequest) -> None:
        """Check the names of a request.

        Raises:
            InvalidRequestError: there is no such provider or operation; names the similar one.
        """
        if request.operation in self._operations.get(request.provider, ()):
            return
        try:
            with rpc_errors():
                problem = await self._problem(request)
        except AckbridgeError:
            return
        if problem is not None:
            raise InvalidRequestError(problem)

    async def _problem(self, request: CallRequest) -> str | None:
        control = self._client.get_workflow_handle(names.control_id(request.provider))
        described = await _describe(control)
        if described is None:
            known: tuple[str, ...] = tuple(sorted(await self._providers()))
            problem = unknown_name("provider", request.provider, known)
        else:
            snapshot = await read_snapshot(described)
            known = snapshot.configured.operations if snapshot else ()
            self._operations[request.provider] = known
            self._bulk[request.provider] = snapshot.configured.bulk if snapshot else ()
            problem = unknown_name("operation", request.operation, known)
        if not known or (request.operation in known and described is not None):
            return None
        # The file of a call that exists may be gone; its outcome can still be read.
        exists = await _describe(self._client.get_workflow_handle(request.call_id))
        return problem if exists is None else None

    async def _providers(self) -> set[str]:
        """The providers with a running control, from the visibility store."""
        query = f"WorkflowType = '{names.PROVIDER_CONTROL}' AND ExecutionStatus = 'Running'"
        prefix = names.control_id("")
        return {
            execution.id.removeprefix(prefix)
            async for execution in self._client.list_workflows(query)
        }


async def _describe(handle: WorkflowHandle[Any, Any]) -> Any:
    try:
        return await handle.describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
