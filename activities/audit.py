"""The activity `audit`: record in the audit log what an operator requested of a workflow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client

from ackbridge.contracts import names
from ackbridge.contracts.audit import Audited, AuditOrigin, AuditRequest, digest_of
from ackbridge.ledger.audit import hash_of
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors

PAGE_EVENTS: Final = 200
MAX_PAGES: Final = 5
"""The request is among the newest events: only what arrived with it, or after it, is newer."""

RPC_TIMEOUT: Final = timedelta(seconds=5)


class Audit:
    """Who it was is read from the history: what a signal says about itself is only its own word."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.AUDIT)
    async def audit(self, request: AuditRequest) -> Audited:
        """Record a request once.

        Raises:
            ApplicationError: Unavailable, retryable: the ledger does not answer.
            RPCError: the engine does not answer.
        """
        event = await _find(activity.client(), request)
        client, principal = ("", "") if event is None else (_client(event), _principal(event))
        with classified_errors():
            entry = await self._deps.ledger.audit.append(request, client, principal)
        # Copies outside of the database: whoever computes a new chain there cannot change them.
        own = hash_of(entry.text())
        activity.logger.info("audit entry %d: %s, hash %s", entry.seq, entry.action, own)
        return Audited(seq=entry.seq, hash=own, by=entry.by, client=client, principal=principal)


async def _find(client: Client, request: AuditRequest) -> HistoryEvent | None:
    """The event with which the request arrived."""
    async for event in _events(client, starts=request.origin is AuditOrigin.WORKFLOW):
        name, arguments = _request_of(event)
        if name != request.action and request.origin is not AuditOrigin.WORKFLOW:
            continue
        if request.arguments_digest is None or arguments is None:
            return event
        values = await client.data_converter.decode(arguments.payloads)
        if digest_of(values) == request.arguments_digest:
            return event
    return None


async def _events(client: Client, *, starts: bool) -> AsyncIterator[HistoryEvent]:
    """The first event of this run, or its newest ones backwards."""
    info = activity.info()
    execution = WorkflowExecution(
        workflow_id=info.workflow_id or "", run_id=info.workflow_run_id or ""
    )
    service, namespace = client.workflow_service, client.namespace
    if starts:
        first = await service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=namespace, execution=execution, maximum_page_size=1
            ),
            timeout=RPC_TIMEOUT,
        )
        for event in first.history.events[:1]:
            yield event
        return
    token = b""
    for _ in range(MAX_PAGES):
        page = await service.get_workflow_execution_history_reverse(
            GetWorkflowExecutionHistoryReverseRequest(
                namespace=namespace,
                execution=execution,
                maximum_page_size=PAGE_EVENTS,
                next_page_token=token,
            ),
            timeout=RPC_TIMEOUT,
        )
        for event in page.history.events:
            yield event
        token = page.next_page_token
        if not token:
            return


def _request_of(event: HistoryEvent) -> tuple[str, Payloads | None]:
    """The name of a request that an event has, and its arguments."""
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            signal = event.workflow_execution_signaled_event_attributes
            return signal.signal_name, signal.input
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            update = event.workflow_execution_update_accepted_event_attributes.accepted_request
            return update.input.name, update.input.args
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
            return names.CANCEL_WORKFLOW, None
    return "", None


def _client(event: HistoryEvent) -> str:
    attributes: Any = getattr(event, event.WhichOneof("attributes") or "", None)
    if event.HasField("workflow_execution_update_accepted_event_attributes"):
        attributes = attributes.accepted_request.meta
    return str(getattr(attributes, "identity", ""))


def _principal(event: HistoryEvent) -> str:
    if not event.HasField("principal"):
        return ""
    principal = event.principal
    return f"{principal.name} ({principal.type})" if principal.type else principal.name
