"""Find the workflow that hosts a call together with others, and address the call there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names, search_attributes
from ackbridge.contracts.bulk import BulkRequest, CallEnd, CallEnds, Rejection
from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus
from ackbridge.contracts.signals import AwaitOutcome
from ackbridge.contracts.wire import InvalidInputError, Wire, parse_argument
from ackbridge.errors import (
    AckbridgeError,
    CallEndedError,
    CallError,
    CallNotFoundError,
    InvalidRequestError,
    KeyReusedError,
)
from ackbridge.temporal.connect import RPC_TIMEOUT, as_plain

from .waiting import with_waiting

REMEMBERED: Final = 100_000
"""Calls whose hosts a client remembers, at some 300 bytes each."""

MAX_HOSTS: Final = 20
"""The newest hosts that are looked at for a call: one for each request with its key."""

_UPDATE_TIMEOUT: Final = timedelta(hours=1)
_DELAYED_INTERVAL: Final = timedelta(seconds=2)
_LONGEST_DELAYED_INTERVAL: Final = timedelta(minutes=1)
_WITHOUT_UPDATE: Final = (
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.FAILED_PRECONDITION,
)


def raise_if_cancelled(error: WorkflowUpdateRPCTimeoutOrCancelledError) -> None:
    """Go on with the cancellation of this task, which the SDK reports as a failed update."""
    if isinstance(error.__cause__, asyncio.CancelledError):
        raise error.__cause__


class HostFinder:
    """The hosts of calls: those that this client has started, and those that the engine lists.

    Attributes:
        known: the hosts that this client has started, by call.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.known: OrderedDict[str, str] = OrderedDict()

    def remember(self, call_ids: Iterable[str], host: str) -> None:
        for call_id in call_ids:
            self.known[call_id] = host
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)

    def forget(self, call_id: str, before: str | None = None) -> None:
        """The call has moved into a workflow of its own, or its host has refused it.

        Args:
            before: the host that had it before.
        """
        self.known.pop(call_id, None)
        if before is not None:
            self.known[call_id] = before

    async def find(self, call_id: str) -> str | None:
        """The newest host of a call, from the visibility store, which lags by about a second.

        One that has refused it, because of its payload, is the host of a call only if no other is.
        """
        query = (
            f"WorkflowType = '{names.BULK_CALLS}' AND"
            f" {search_attributes.CALLS.name} = '{names.search_token(call_id)}'"
        )
        try:
            found = [one.id async for one in self._client.list_workflows(query, limit=MAX_HOSTS)]
        except RPCError as error:
            # Our search attributes are not registered.
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            return None
        for host in found[:-1]:
            with contextlib.suppress(KeyReusedError):
                await HostedCall(self._client, call_id, host).own_status()
                return host
        return found[-1] if found else None


class HostedCall:
    """A call in its host. Errors of the engine are raised as `RPCError`."""

    def __init__(self, client: Client, call_id: str, host: str) -> None:
        self._client = client
        self._call_id = call_id
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(host)

    async def own_status(self) -> CallStatus:
        """Query the status that this host knows; raises `KeyReusedError` if it was refused."""
        try:
            status: CallStatus = await self._handle.query(
                names.STATUS,
                {"call_id": self._call_id},
                result_type=CallStatus,
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowQueryFailedError as error:
            raise KeyReusedError(str(error)) from None
        return status

    async def status(self) -> CallStatus | None:
        """Query the status; None: the call has moved into a workflow of its own.

        Raises:
            KeyReusedError: as above.
        """
        status = await self.own_status()
        if status.moved_to is not None:
            other = self._other(status.moved_to)
            return await other.status() if other is not None else None
        if status.stage.is_final:
            return status
        described = await self._handle.describe(rpc_timeout=RPC_TIMEOUT)
        return await with_waiting(self._client, status, described)

    async def outcome(
        self,
        timeout: timedelta | None = None,  # noqa: ASYNC109 -- sent to the host
        *,
        settled: bool = False,
    ) -> CallOutcome | None:
        """Wait for the outcome, completed or not; None: it has moved, as above.

        Args:
            timeout: after which nobody waits any more, as the host is told; the caller's own.
            settled: wait until the call has left its host. One that owes an acknowledgement for
                long, or whose effect is unknown, moves.

        Raises:
            InvalidRequestError, KeyReusedError: nothing was sent.
            CallError: the host has ended without it.
        """
        if settled:
            return await self._outcome_after(await self._end(), settled=True)
        within = min(timeout or _UPDATE_TIMEOUT, _UPDATE_TIMEOUT)
        argument = as_plain(AwaitOutcome(timeout=within)) | {"call_id": self._call_id}
        pause = _DELAYED_INTERVAL
        while True:
            try:
                status: CallStatus = await self._handle.execute_update(
                    names.AWAIT_OUTCOME, argument, result_type=CallStatus
                )
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                raise_if_cancelled(error)
                continue
            except WorkflowUpdateFailedError:
                return await self._outcome_after(await self._end())
            except RPCError as error:
                # It has ended, or too many updates wait or were made: its result says how.
                if error.status not in _WITHOUT_UPDATE:
                    raise
                return await self._outcome_after(await self._end())
            if status.outcome is not None:
                return status.outcome
            if status.moved_to is not None:
                other = self._other(status.moved_to)
                return await other.outcome(timeout) if other is not None else None
            # A call that is delayed answers every update at once.
            await asyncio.sleep(pause.total_seconds())
            pause = min(pause * 2, _LONGEST_DELAYED_INTERVAL)

    async def _end(self) -> CallEnd:
        """How the call left its host, when that has ended.

        Raises:
            CallError: the host has ended without it.
        """
        try:
            ends = CallEnds.model_validate(await self._handle.result())
        except WorkflowFailureError as error:
            raise CallError(f"{self._call_id}: its host has failed: {error.cause}") from None
        end = next((one for one in ends.ends if one.call_id == self._call_id), None)
        if end is None:
            raise CallError(f"{self._call_id}: its host has ended without it")
        return end

    async def _outcome_after(self, end: CallEnd, *, settled: bool = False) -> CallOutcome | None:
        if end.rejected is not None:
            raise rejection_error(end.rejected)
        if end.outcome is not None or end.moved_to is None:
            return end.outcome
        other = self._other(end.moved_to)
        return await other.outcome(settled=settled) if other is not None else None

    async def signal(self, name: str, argument: Wire) -> bool | None:
        """Signal the call, wherever its host has moved it.

        Returns:
            True; None: its host has ended, and it has moved into a workflow of its own before.

        Raises:
            CallEndedError: it has ended in its host.
            CallError: its host has failed, or has ended without it.
            CallNotFoundError: it was no call: its request was rejected.
        """
        plain = argument.model_dump(mode="json", by_alias=True) | {"call_id": self._call_id}
        try:
            await self._handle.signal(name, plain, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        else:
            return True
        end = await self._end()
        if end.rejected is not None:
            raise CallNotFoundError(f"{self._call_id}: no such call, {end.rejected.reason}")
        if end.moved_to is None:
            raise CallEndedError(f"{self._call_id}: too late, the call has ended")
        other = self._other(end.moved_to)
        return await other.signal(name, argument) if other is not None else None

    async def request(self) -> CallRequest | None:
        """The request that the host was started with; None: it has none with this id."""
        requests = await host_requests(self._client, self._handle.id)
        return next((one for one in requests if one.call_id == self._call_id), None)

    def _other(self, host: str) -> HostedCall | None:
        is_own = host == self._call_id
        return None if is_own else HostedCall(self._client, self._call_id, host)


async def host_requests(client: Client, host: str) -> list[CallRequest]:
    """The requests that a host was started with, from its first history event.

    Those that are not valid are left out: they are no calls.
    """
    requests = list[CallRequest]()
    history = client.get_workflow_handle(host).fetch_history_events(
        page_size=1, rpc_timeout=RPC_TIMEOUT
    )
    async for event in history:
        started = event.workflow_execution_started_event_attributes
        arguments = await client.data_converter.decode(list[Payload](started.input.payloads))
        for raw in parse_argument(BulkRequest, tuple(arguments)).requests:
            with contextlib.suppress(InvalidInputError):
                requests.append(parse_argument(CallRequest, (raw,)))
        break
    return requests


def rejection_error(rejection: Rejection) -> AckbridgeError:
    """Why a request is not a call, as the client raises it."""
    if rejection.type == names.KEY_REUSED:
        return KeyReusedError(rejection.reason)
    if rejection.type == names.INVALID_REQUEST:
        return InvalidRequestError(rejection.reason)
    return CallError(f"{rejection.type}: {rejection.reason}")
