"""List calls from the visibility store, those with a workflow of their own and those in hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError

from ackbridge.contracts import names, search_attributes
from ackbridge.contracts.bulk import BulkStatus, CallEnds
from ackbridge.contracts.calls import Stage
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors

from .hosted import host_requests

MAX_PAGE: Final = 1000
"""Workflows of one request to the visibility store."""

HOSTS_AT_ONCE: Final = 10

QUERY_TIMEOUT: Final = timedelta(seconds=3)
"""Of one host; where no worker runs, this is what a list takes longer."""

_NO_OWN_STAGE: Final = (Stage.PARKED, Stage.RECONCILING)

RUNNING: Final = WorkflowExecutionStatus.RUNNING.name

UNKNOWN: Final = "UNKNOWN"
"""The state of a workflow that the engine has not said."""

ENDED: Final = {
    Stage.COMPLETED: WorkflowExecutionStatus.COMPLETED.name,
    Stage.FAILED: WorkflowExecutionStatus.FAILED.name,
    Stage.CANCELLED: WorkflowExecutionStatus.CANCELED.name,
}
"""The state of a call's own workflow, by the stage in which it has ended."""


@dataclass(frozen=True)
class ListedCall:
    """One row of `AckbridgeClient.list`.

    Attributes:
        call_id: the call.
        state: of its workflow: RUNNING, COMPLETED, FAILED, CANCELED, ...; of a call in a host,
            that which its own workflow would have, or the host's if that has ended without it.
        stage: where it is known without asking the call: `parked`, `completed` and so on.
        started_at: ISO 8601, UTC.
        host: the id of the workflow that hosts it with others; None: its own.
        answered: False for a call whose host no worker has answered for; it may have ended.
    """

    call_id: str
    state: str
    stage: str | None
    started_at: str
    host: str | None = None
    answered: bool = True


@dataclass(frozen=True)
class ListFilter:
    """Which calls to list; see `AckbridgeClient.list`."""

    provider: str | None = None
    stage: str | None = None
    owed: bool = False

    @property
    def query(self) -> str:
        """Of the visibility store, for own workflows and for hosts."""
        own = [f"WorkflowType = '{names.INTEGRATION_CALL}'"]
        hosts = [f"WorkflowType = '{names.BULK_CALLS}'"]
        provider, owed = search_attributes.PROVIDER.name, f"{search_attributes.OWED.name} = true"
        if self.provider is not None:
            is_its = f"{provider} = {_quoted(self.provider)}"
            own.append(is_its)
            # A host of calls of several providers has none.
            hosts.append(f"({is_its} OR {provider} IS NULL)")
        if self.stage is not None:
            # The index keeps the last stage of calls that have ended.
            own.append(f"{search_attributes.STAGE.name} = {_quoted(self.stage)}")
            own.append("ExecutionStatus = 'Running'")
            hosts.append("ExecutionStatus = 'Running'")
        if self.owed:
            own.append(owed)
            hosts.append(f"({owed} OR ExecutionStatus = 'Running')")
        return f"({' AND '.join(own)}) OR ({' AND '.join(hosts)})"

    def has(self, call_id: str, stage: Stage | None, *, owes: bool) -> bool:
        """Whether a call in a host is to be listed."""
        if self.provider is not None and not call_id.startswith(f"{self.provider}."):
            return False
        if self.owed and not owes:
            return False
        if self.stage == search_attributes.IN_FLIGHT:
            return stage not in _NO_OWN_STAGE and not (stage and stage.is_final)
        return self.stage is None or self.stage == stage


class CallLister:
    """Lists the calls of both lanes: one request for a page of workflows, and one for each host."""

    def __init__(self, client: Client, which: ListFilter, limit: int) -> None:
        self._client = client
        self._which = which
        self._limit = limit
        # Where one host is not answered for, no other one is.
        self._has_worker = True

    async def calls(self) -> AsyncIterator[ListedCall]:
        """Each call once."""
        seen = set[str]()
        with rpc_errors():
            async for row in self._rows():
                if row.call_id in seen:
                    continue
                seen.add(row.call_id)
                yield row
                if len(seen) == self._limit:
                    return

    async def _rows(self) -> AsyncIterator[ListedCall]:
        page: list[WorkflowExecution] = []
        listed = self._client.list_workflows(
            self._which.query, page_size=min(self._limit, MAX_PAGE), rpc_timeout=RPC_TIMEOUT
        )
        async for execution in listed:
            page.append(execution)
            if len(page) == min(HOSTS_AT_ONCE, self._limit):
                for row in await self._calls_of(page):
                    yield row
                page = []
        for row in await self._calls_of(page):
            yield row

    async def _calls_of(self, executions: Sequence[WorkflowExecution]) -> list[ListedCall]:
        several = await asyncio.gather(*map(self._calls, executions))
        return [row for rows in several for row in rows]

    async def _calls(self, execution: WorkflowExecution) -> list[ListedCall]:
        if execution.workflow_type != names.BULK_CALLS:
            return [_own(execution)]
        if execution.status is WorkflowExecutionStatus.RUNNING:
            return await self._of_running(execution)
        if execution.status is WorkflowExecutionStatus.COMPLETED:
            return await self._of_completed(execution)
        return await self._of_unanswered(execution)

    async def _of_running(self, execution: WorkflowExecution) -> list[ListedCall]:
        status = await self._query(execution.id) if self._has_worker else None
        if status is None:
            return await self._of_unanswered(execution)
        return [
            _hosted(execution, one.call_id, one.stage)
            for one in status.states
            if self._which.has(one.call_id, one.stage, owes=one.owes)
        ]

    async def _query(self, host: str) -> BulkStatus | None:
        try:
            status: BulkStatus = await self._client.get_workflow_handle(host).query(
                names.STATUS, result_type=BulkStatus, rpc_timeout=QUERY_TIMEOUT
            )
        except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            self._has_worker = False
            return None
        return status

    async def _of_completed(self, execution: WorkflowExecution) -> list[ListedCall]:
        """From the result, which no worker is needed for."""
        handle = self._client.get_workflow_handle(execution.id, run_id=execution.run_id)
        ends = CallEnds.model_validate(await handle.result(rpc_timeout=RPC_TIMEOUT)).ends
        outcomes = [end.outcome for end in ends if end.outcome is not None]
        return [
            _hosted(execution, one.call_id, Stage(one.status))
            for one in outcomes
            if self._which.has(one.call_id, Stage(one.status), owes=one.acknowledgement_owed)
        ]

    async def _of_unanswered(self, execution: WorkflowExecution) -> list[ListedCall]:
        """What a host was started with, without what has a workflow of its own."""
        requests = await host_requests(self._client, execution.id)
        call_ids = [
            one.call_id
            for one in requests
            if self._which.has(one.call_id, None, owes=not self._which.owed)
        ]
        moved = await self._with_own_workflow(call_ids)
        return [
            _hosted(execution, call_id, None, answered=False)
            for call_id in call_ids
            if call_id not in moved
        ]

    async def _with_own_workflow(self, call_ids: Sequence[str]) -> set[str]:
        if not call_ids:
            return set()
        ids = ", ".join(map(_quoted, call_ids))
        query = f"WorkflowType = '{names.INTEGRATION_CALL}' AND WorkflowId IN ({ids})"
        listed = self._client.list_workflows(query, rpc_timeout=RPC_TIMEOUT)
        return {one.id async for one in listed}


def _own(execution: WorkflowExecution) -> ListedCall:
    return ListedCall(
        call_id=execution.id,
        state=execution.status.name if execution.status else UNKNOWN,
        stage=_stage(execution),
        started_at=execution.start_time.isoformat(timespec="seconds"),
    )


def _hosted(
    execution: WorkflowExecution, call_id: str, stage: Stage | None, *, answered: bool = True
) -> ListedCall:
    state = execution.status.name if execution.status else UNKNOWN
    return ListedCall(
        call_id=call_id,
        state=ENDED.get(stage, state) if stage else state,
        stage=stage,
        started_at=execution.start_time.isoformat(timespec="seconds"),
        host=execution.id,
        answered=answered,
    )


def _stage(execution: WorkflowExecution) -> str | None:
    """The stage, as far as the index and the state of the workflow tell it."""
    if execution.status is WorkflowExecutionStatus.COMPLETED:
        return Stage.COMPLETED
    if execution.status is WorkflowExecutionStatus.CANCELED:
        return Stage.CANCELLED
    indexed = execution.typed_search_attributes.get(search_attributes.STAGE)
    is_running = execution.status is WorkflowExecutionStatus.RUNNING
    return indexed if is_running and indexed != search_attributes.IN_FLIGHT else None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
