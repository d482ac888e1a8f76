"""The workflow `IntegrationCall`: hosts the protocol of one call and passes its signals on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

# Passed through: loading these anew for every call would cost more CPU than the rest of it. What
# the sandbox would have caught there, tests/unit/workflows/test_imports.py catches.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, OutcomeStatus, Stage
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.messages import ProviderMessage, ProviderMessages
    from ackbridge.contracts.signals import (
        AwaitOutcome,
        Cancel,
        ForceAck,
        Reprocess,
        Resolve,
        WriteOff,
    )
    from ackbridge.contracts.wire import InvalidInputError, Wire, parse_argument
    from workflows.hosting.audit import AuditTrail
    from workflows.hosting.host import ContinueAsNewRequested, StepError
    from workflows.hosting.inputs import (
        handle_signal,
        handle_update,
        invalid_request,
        read_start,
        refuse_plain,
        require_no_timeouts,
        require_workflow_id,
    )
    from workflows.hosting.temporal_host import TemporalHost

    from .protocol import CallProtocol
    from .ui_details import render

SignalModel = TypeVar("SignalModel", bound=Wire)


@workflow.defn(name=names.INTEGRATION_CALL)
class IntegrationCall:
    """One call. Arguments arrive raw and are validated inside, so that nothing bad can hang it."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._host = TemporalHost(render)
        self._invalid = ""
        self._audit: AuditTrail | None = None
        self._protocol: CallProtocol | None = None
        try:
            self._protocol = _start(self._host, arguments)
        except InvalidInputError as error:
            self._invalid = str(error)

    @workflow.run
    async def run(self, *_arguments: Any) -> CallOutcome:
        """Conduct the call.

        Returns:
            The outcome of a completed call.

        Raises:
            ApplicationError: of type InvalidRequest, KeyReused, CallFailed or CallCancelled; the
                outcome, where there is one, is in its details.
        """
        if self._protocol is None:
            raise invalid_request(self._invalid)
        call, is_cancelled = asyncio.create_task(self._protocol.run()), False
        try:
            try:
                outcome = await asyncio.shield(call)
            except asyncio.CancelledError:
                # A native cancellation never abandons work under way.
                is_cancelled = True
                by = Cancel(by="Temporal", reason="the workflow was cancelled")
                self._protocol.cancel(by)
                self._record(names.CANCEL_WORKFLOW, (by.model_dump(),))
                outcome = await call
        except StepError as error:
            await self._handlers_finished()
            raise ApplicationError(error.reason, type=error.kind, non_retryable=True) from None
        except ContinueAsNewRequested as requested:
            await self._handlers_finished()
            # Asked last, so that whatever arrives before this moment is passed on.
            continuation = self._protocol.continuation(requested)
            workflow.continue_as_new(args=[self._protocol.state.request, continuation])
        await self._handlers_finished()
        if outcome.status is OutcomeStatus.CANCELLED and is_cancelled:
            raise asyncio.CancelledError
        return _result(outcome)

    @workflow.signal(name=names.PROVIDER_MESSAGE)
    def provider_message(self, *arguments: Any) -> None:
        """A message of the provider: `ProviderMessage`."""
        self._receive(ProviderMessage, arguments, CallProtocol.receive)

    @workflow.signal(name=names.PROVIDER_MESSAGES)
    def provider_messages(self, *arguments: Any) -> None:
        """Several messages of the provider, in order: `ProviderMessages`."""
        self._receive(ProviderMessages, arguments, self._receive_all)

    @workflow.signal(name=names.CANCEL)
    def cancel(self, *arguments: Any) -> None:
        """Cancel the call: `Cancel`."""
        self._obey(names.CANCEL, Cancel, arguments, CallProtocol.cancel)

    @workflow.signal(name=names.FORCE_ACK)
    def force_ack(self, *arguments: Any) -> None:
        """End the waiting with an operator's response: `ForceAck`."""
        self._obey(names.FORCE_ACK, ForceAck, arguments, CallProtocol.force_ack)

    @workflow.signal(name=names.REPROCESS)
    def reprocess(self, *arguments: Any) -> None:
        """Send a parked call again: `Reprocess`."""
        self._obey(names.REPROCESS, Reprocess, arguments, CallProtocol.reprocess)

    @workflow.signal(name=names.RESOLVE)
    def resolve(self, *arguments: Any) -> None:
        """State what happened at the provider: `Resolve`."""
        self._obey(names.RESOLVE, Resolve, arguments, CallProtocol.resolve)

    @workflow.signal(name=names.WRITE_OFF)
    def write_off(self, *arguments: Any) -> None:
        """Stop retrying the acknowledgement of a cycle: `WriteOff`."""
        self._obey(names.WRITE_OFF, WriteOff, arguments, CallProtocol.write_off)

    @workflow.query(name=names.STATUS)
    def status(self) -> CallStatus:
        """Where the call is, for everybody."""
        return self._status().masked()

    def _status(self) -> CallStatus:
        if self._protocol is not None:
            return self._protocol.state.status()
        return CallStatus(
            call_id=workflow.info().workflow_id,
            stage=Stage.FAILED,
            since=workflow.info().start_time,
            last_error=self._invalid,
        )

    @workflow.update(name=names.AWAIT_OUTCOME)
    async def await_outcome(self, *arguments: Any) -> CallStatus:
        """Wait until the call has its outcome or is parked; return the status then, or in time."""
        wanted = parse_argument(AwaitOutcome, arguments or ({},))
        if self._protocol is not None:
            state = self._protocol.state
            if wanted.timeout > timedelta(0):
                until = workflow.now() + wanted.timeout
                summary = "latest reply to a caller that waits for the outcome"
                await self._host.wait(lambda: state.is_released, until, summary)
            if state.rejection is not None:
                raise ApplicationError(state.rejection.reason, type=state.rejection.kind)
        return self._status()

    @await_outcome.validator
    def _validate_await_outcome(self, *arguments: Any) -> None:
        """Refuse invalid arguments, and those who await the outcome of another request."""
        if self._protocol is None:
            raise invalid_request(self._invalid)
        digest = handle_update(arguments or ({},), AwaitOutcome, lambda one: one.request_digest)
        if digest not in (None, self._protocol.state.request.digest):
            raise ApplicationError(
                "key: it already belongs to a call with another payload", type=names.KEY_REUSED
            )

    def _receive_all(self, _call: CallProtocol, several: ProviderMessages) -> None:
        for message in several.messages:
            self.provider_message(message)

    def _receive(
        self,
        model: type[SignalModel],
        arguments: tuple[Any, ...],
        handle: Callable[[CallProtocol, SignalModel], None],
    ) -> None:
        if (call := self._protocol) is not None:
            handle_signal(arguments, model, lambda signal: handle(call, signal), call.reject)

    def _obey(
        self,
        action: str,
        model: type[SignalModel],
        arguments: tuple[Any, ...],
        handle: Callable[[CallProtocol, SignalModel], None],
    ) -> None:
        """Handle an operator's request, and record it; what is not valid is none."""

        def handle_and_record(call: CallProtocol, signal: SignalModel) -> None:
            handle(call, signal)
            self._record(action, arguments)

        self._receive(model, arguments, handle_and_record)

    def _record(self, action: str, arguments: tuple[Any, ...]) -> None:
        self._audit = self._audit or AuditTrail()
        self._audit.record(action, arguments)

    async def _handlers_finished(self) -> None:
        try:
            await workflow.wait_condition(workflow.all_handlers_finished)
        except asyncio.CancelledError:
            # Too late: the call has its outcome.
            await workflow.wait_condition(workflow.all_handlers_finished)
        if self._audit is not None:
            await self._audit.finish()


def _start(host: TemporalHost, arguments: tuple[Any, ...]) -> CallProtocol:
    refuse_plain(arguments)
    request, continuation = read_start(arguments, CallRequest, CallContinuation)
    require_workflow_id(request.call_id, "key")
    require_no_timeouts("a call would end unacknowledged; the operation's own deadlines bound it")
    run_chain = workflow.info().first_execution_run_id
    return CallProtocol(host, request, run_chain, continuation)


def _result(outcome: CallOutcome) -> CallOutcome:
    """A call without the provider's success fails, so that the Temporal UI's colour is true."""
    if outcome.status is OutcomeStatus.COMPLETED:
        return outcome
    kind = names.CALL_CANCELLED if outcome.status is OutcomeStatus.CANCELLED else names.CALL_FAILED
    reason = outcome.reason or outcome.status
    raise ApplicationError(reason, outcome, type=kind, non_retryable=True)
