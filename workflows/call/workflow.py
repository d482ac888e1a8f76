"""The workflow `IntegrationCall`: hosts the protocol of one call and wires its handlers to it."""

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
    from ackbridge.contracts.signals import AwaitOutcome, Cancel, ForceAck, Reprocess
    from ackbridge.contracts.wire import InvalidInputError, Wire, parse_argument
    from workflows.hosting.host import ContinueAsNewRequested, StepError
    from workflows.hosting.temporal_host import TemporalHost

    from .protocol import CallProtocol

Order = TypeVar("Order", bound=Wire)


@workflow.defn(name=names.INTEGRATION_CALL)
class IntegrationCall:
    """One call. Arguments arrive raw and are validated inside, so that nothing bad can hang it."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._host = TemporalHost()
        self._invalid: str | None = None
        self._is_cancelled_natively = False
        self._protocol: CallProtocol | None = None
        self._request: CallRequest | None = None
        try:
            request, memory = _read_start(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._request = request
        self._protocol = CallProtocol(
            self._host, request, workflow.info().first_execution_run_id, memory
        )

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
            raise ApplicationError(
                self._invalid or "", type=names.INVALID_REQUEST, non_retryable=True
            )
        try:
            outcome = await self._conduct(self._protocol)
        except StepError as failure:
            await self._before_closing()
            raise ApplicationError(failure.reason, type=failure.kind, non_retryable=True) from None
        except ContinueAsNewRequested:
            await self._before_closing()
            # Asked last: whatever arrives before this moment is in the memory.
            workflow.continue_as_new(args=[self._request, self._protocol.memory()])
        await self._before_closing()
        if outcome.status is OutcomeStatus.CANCELLED and self._is_cancelled_natively:
            raise asyncio.CancelledError
        return _end_as_it_is(outcome)

    async def _conduct(self, protocol: CallProtocol) -> CallOutcome:
        """Run the protocol; work in hand is never abandoned by a native cancellation."""
        conduct = asyncio.create_task(protocol.run())
        try:
            return await asyncio.shield(conduct)
        except asyncio.CancelledError:
            self._is_cancelled_natively = True
            protocol.cancel(Cancel(by="Temporal", reason="the workflow was cancelled"))
            return await conduct

    async def _before_closing(self) -> None:
        try:
            await workflow.wait_condition(workflow.all_handlers_finished)
        except asyncio.CancelledError:
            # Too late: the end of the call stands.
            await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal(name=names.PROVIDER_MESSAGE)
    def provider_message(self, *arguments: Any) -> None:
        """A provider speaks: `ProviderMessage`."""
        self._take(ProviderMessage, arguments, lambda call, message: call.hear(message))

    @workflow.signal(name=names.PROVIDER_MESSAGES)
    def provider_messages(self, *arguments: Any) -> None:
        """A provider has spoken several times: `ProviderMessages`, heard one after the other."""
        self._take(ProviderMessages, arguments, self._hear_all)

    @workflow.signal(name=names.CANCEL)
    def cancel(self, *arguments: Any) -> None:
        """Cancel the call: `Cancel`."""
        self._take(Cancel, arguments, lambda call, order: call.cancel(order))

    @workflow.signal(name=names.FORCE_ACK)
    def force_ack(self, *arguments: Any) -> None:
        """End the waiting by an operator's word: `ForceAck`."""
        self._take(ForceAck, arguments, lambda call, order: call.force(order))

    @workflow.signal(name=names.REPROCESS)
    def reprocess(self, *arguments: Any) -> None:
        """Take a parked call up again: `Reprocess`."""
        self._take(Reprocess, arguments, lambda call, order: call.reprocess(order))

    @workflow.query(name=names.STATUS)
    def status(self) -> CallStatus:
        """Where the call is."""
        if self._protocol is not None:
            return self._protocol.status()
        return CallStatus(
            call_id=workflow.info().workflow_id,
            stage=Stage.FAILED,
            since=workflow.info().start_time,
            last_error=self._invalid,
        )

    @workflow.update(name=names.AWAIT_OUTCOME)
    async def await_outcome(self, *arguments: Any) -> CallStatus:
        """Answer with the status once the outcome is there or the call is parked, or in time."""
        wish = parse_argument(AwaitOutcome, arguments) if arguments else AwaitOutcome()
        protocol = self._protocol
        if protocol is not None and wish.timeout > timedelta(0):
            until = workflow.now() + wish.timeout
            await self._host.wait(lambda: protocol.released, until, "somebody awaits the outcome")
        if protocol is not None and protocol.refusal is not None:
            raise ApplicationError(protocol.refusal.reason, type=protocol.refusal.kind)
        return self.status()

    @await_outcome.validator
    def _may_await(self, *arguments: Any) -> None:
        """Refuse what does not validate, and whoever awaits another request's outcome."""
        if self._invalid is not None:
            raise ApplicationError(self._invalid, type=names.INVALID_REQUEST)
        try:
            wish = parse_argument(AwaitOutcome, arguments) if arguments else AwaitOutcome()
        except InvalidInputError as error:
            raise ApplicationError(str(error), type=names.INVALID_REQUEST) from None
        if self._request and wish.request_digest not in (None, self._request.digest):
            raise ApplicationError(
                "key: it already belongs to a call with another payload", type=names.KEY_REUSED
            )

    def _hear_all(self, _call: CallProtocol, spoken: ProviderMessages) -> None:
        for message in spoken.messages:
            self.provider_message(message)

    def _take(
        self,
        model: type[Order],
        arguments: tuple[Any, ...],
        act: Callable[[CallProtocol, Order], None],
    ) -> None:
        if self._protocol is None:
            return
        try:
            order = parse_argument(model, arguments)
        except InvalidInputError as error:
            self._protocol.reject(str(error))
            return
        act(self._protocol, order)


def _read_start(arguments: tuple[Any, ...]) -> tuple[CallRequest, CallContinuation | None]:
    """Validate what the call was started with, the start options included."""
    is_continued = workflow.info().continued_run_id is not None and len(arguments) == 2
    memory = CallContinuation.model_validate(arguments[1]) if is_continued else None
    request = parse_argument(CallRequest, arguments[:1] if is_continued else arguments)
    info = workflow.info()
    if info.workflow_id != request.call_id:
        raise InvalidInputError(
            f"key: a call's workflow id is <provider>.<operation>.<key>, here {request.call_id!r};"
            f" it was started as {info.workflow_id!r}"
        )
    if info.execution_timeout or info.run_timeout:
        raise InvalidInputError(
            "workflow timeouts: a call has none, it would end unacknowledged; the operation's own"
            " deadlines bound it"
        )
    return request, memory


def _end_as_it_is(outcome: CallOutcome) -> CallOutcome:
    """A call without the provider's success fails, so that the Temporal UI's colour is true."""
    if outcome.status is OutcomeStatus.COMPLETED:
        return outcome
    kind = names.CALL_CANCELLED if outcome.status is OutcomeStatus.CANCELLED else names.CALL_FAILED
    reason = outcome.reason or outcome.status
    raise ApplicationError(reason, outcome, type=kind, non_retryable=True)
