"""The workflow `BulkCalls`: hosts the protocols of many calls, and passes their signals on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts import search_attributes as search
    from ackbridge.contracts.bulk import (
        BulkRequest,
        BulkStatus,
        CallEnd,
        CallEnds,
        HoldMessageStep,
        HostedState,
        Rejection,
        TakeEnds,
        host_attributes,
    )
    from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus, Stage
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.limits import MAX_RESULT_BYTES
    from ackbridge.contracts.messages import ProviderMessage, ProviderMessages
    from ackbridge.contracts.signals import (
        AwaitOutcome,
        Cancel,
        ForceAck,
        Reprocess,
        Resolve,
        WriteOff,
    )
    from ackbridge.contracts.steps import StepFailure
    from ackbridge.contracts.wire import InvalidInputError, Wire, parse_argument
    from workflows.call.protocol import CallProtocol
    from workflows.hosting.audit import AuditTrail
    from workflows.hosting.host import ContinueAsNewRequested, StepError
    from workflows.hosting.inputs import (
        handle_signal,
        handle_update,
        invalid_request,
        refuse_plain,
        require_no_timeouts,
    )
    from workflows.hosting.steps import LEDGER_TIMEOUT

    from .host import CallHost, Turns
    from .ui_details import render

SignalModel = TypeVar("SignalModel", bound=Wire)

Arguments = tuple[Any, ...]

MAX_WAITING: Final = 8
"""Updates `await_outcome` at once. The engine takes ten updates, and one of them is `take_ends`."""

MAX_ERROR_SHOWN: Final = 200
"""Characters of an error in the query about all calls."""


class CallInHost:
    """One call of a host.

    Attributes:
        index: of its request.
        is_leaving: its state is being passed to a workflow of its own.
        moved_to: the workflow that has it now.
        waiting: signals that came while it left.
        end: how it ended, or its outcome while it goes on with acknowledging; its number.
    """

    def __init__(
        self,
        turns: Turns,
        index: int,
        request: CallRequest,
        run_chain: str,
        released: Callable[[CallInHost, CallOutcome], None],
        indexed: Callable[[], None],
    ) -> None:
        self.index = index
        self.request = request
        self.host = CallHost(
            request.call_id, turns, lambda outcome: released(self, outcome), indexed
        )
        self._run_chain = run_chain
        self.protocol = self._protocol(None)
        self.is_leaving = False
        self.moved_to: str | None = None
        self.waiting: list[tuple[str, Arguments]] = []
        self.end: int | None = None
        self.is_open = True

    @property
    def id(self) -> str:
        return self.request.call_id

    def status(self) -> CallStatus:
        """Where the call is, or which workflow has it."""
        status = self.protocol.state.status()
        return status.model_copy(update={"moved_to": self.moved_to}) if self.moved_to else status

    def where(self) -> HostedState:
        """As `status`, of an open call, in short."""
        state = self.protocol.state
        return HostedState(
            call_id=self.id,
            stage=state.stage,
            since=state.since,
            effect=state.effect,
            code=state.code,
            owes=bool(state.pending_acknowledgements),
            deadline=state.deadline,
            waiting=state.waiting,
            performing=self.host.performing,
            last_error=state.last_error and state.last_error[:MAX_ERROR_SHOWN],
        )

    def resume(self, continuation: CallContinuation) -> None:
        """Host it again: it could not leave."""
        self.host.stays = True
        self.is_leaving = False
        self.protocol = self._protocol(continuation)

    def _protocol(self, continuation: CallContinuation | None) -> CallProtocol:
        host_id = workflow.info().workflow_id
        return CallProtocol(self.host, self.request, self._run_chain, continuation, host_id)


@workflow.defn(name=names.BULK_CALLS)
class BulkCalls:
    """Many calls. Arguments arrive raw and are validated inside: nothing bad can hang it."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._turns = Turns(self._show)
        self._calls: dict[str, CallInHost] = {}
        self._ends: list[CallEnd] = []
        self._forwards: set[asyncio.Task[None]] = set()
        self._audit = AuditTrail()
        self._invalid = ""
        # Whether our search attributes are registered.
        self._is_indexed = False
        self._owes = False
        self._waiting = 0
        try:
            self._read(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)

    def _read(self, arguments: Arguments) -> None:
        refuse_plain(arguments)
        require_no_timeouts("calls would end unacknowledged; their own deadlines bound them")
        run_chain = workflow.info().first_execution_run_id
        for index, raw in enumerate(parse_argument(BulkRequest, arguments).requests):
            try:
                request = parse_argument(CallRequest, (raw,))
            except InvalidInputError as error:
                self._reject_request(index, str(error))
                continue
            if request.call_id in self._calls:
                self._reject_request(index, f"key: {request.call_id} is in the request twice")
            else:
                self._calls[request.call_id] = CallInHost(
                    self._turns, index, request, run_chain, self._release, self._index
                )

    def _reject_request(self, index: int, reason: str) -> None:
        rejected = Rejection(type=names.INVALID_REQUEST, reason=reason)
        self._ends.append(CallEnd(index=index, call_id="", rejected=rejected))

    @workflow.run
    async def run(self, *_arguments: Any) -> CallEnds:
        """Conduct the calls until each has ended, or has moved into a workflow of its own.

        Raises:
            ApplicationError: of type InvalidRequest, if the list of requests does not validate.
        """
        if self._invalid:
            raise invalid_request(self._invalid)
        running = asyncio.create_task(self._run_calls())
        while True:
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                if running.cancelled():
                    raise
                # A native cancellation never abandons work under way.
                self._cancel_all()

    async def _run_calls(self) -> CallEnds:
        turns = [asyncio.create_task(one) for one in (self._turns.run(), self._turns.run_timer())]
        calls = [asyncio.create_task(self._conduct(call)) for call in self._calls.values()]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        await self._finish()
        self._show()
        for task in turns:
            task.cancel()
        for error in errors:
            # A defect in one call holds up this last workflow task, and no other call.
            if error is not None:
                raise error
        result = await self._result()
        await self._finish()
        return result

    async def _finish(self) -> None:
        """Wait until what has arrived is passed on, held and recorded."""
        while True:
            await workflow.wait_condition(self._is_finished)
            await self._audit.finish()
            if self._is_finished():
                return

    def _is_finished(self) -> bool:
        return not self._forwards and workflow.all_handlers_finished()

    # The calls

    async def _conduct(self, call: CallInHost) -> None:
        while True:
            try:
                outcome = await call.protocol.run()
            except StepError as error:
                self._end(call, **_without_outcome(error))
                return
            except ContinueAsNewRequested as requested:
                if await self._move_out(call, requested):
                    return
            else:
                self._end(call, outcome=outcome)
                return

    def _end(self, call: CallInHost, **how: Any) -> None:
        call.moved_to, call.is_open = how.get("moved_to"), False
        end = CallEnd(index=call.index, call_id=call.id, **how)
        if call.end is None:
            self._report(call, end)
        else:
            # Who has taken its outcome already knows that it may owe an acknowledgement.
            self._ends[call.end] = end
        call.host.touch()
        if end.outcome is not None and end.outcome.acknowledgement_owed:
            self._index_owed()

    def _release(self, call: CallInHost, outcome: CallOutcome) -> None:
        """Report an outcome whose acknowledgement the provider has not accepted."""
        if call.end is None:
            self._report(call, CallEnd(index=call.index, call_id=call.id, outcome=outcome))

    def _report(self, call: CallInHost, end: CallEnd) -> None:
        call.end = len(self._ends)
        self._ends.append(end)

    async def _move_out(self, call: CallInHost, requested: ContinueAsNewRequested) -> bool:
        """Go on with a call in a workflow of its own; false where such a workflow is running."""
        call.is_leaving = True
        continuation = call.protocol.continuation(requested)
        try:
            await _start_call(call.request, continuation)
        except WorkflowAlreadyStartedError:
            call.resume(continuation)
        waiting, call.waiting = call.waiting, []
        if not call.is_leaving:
            for name, arguments in waiting:
                self._handle(call, name, arguments)
            return False
        self._end(call, moved_to=call.id)
        for name, arguments in waiting:
            self._forward(call, name, arguments)
        return True

    def _index(self) -> None:
        """Set what our own clients set at start, for a host that another client has started."""
        if self._is_indexed:
            return
        self._is_indexed = True
        known = {pair.key for pair in workflow.info().typed_search_attributes}
        if search.CALLS not in known and workflow.patched(names.HOST_INDEXED):
            pairs = host_attributes([call.request for call in self._calls.values()])
            workflow.upsert_search_attributes([pair.key.value_set(pair.value) for pair in pairs])

    def _index_owed(self) -> None:
        """Set by which a host is found one of whose calls has ended owing an acknowledgement."""
        if self._is_indexed and not self._owes and workflow.patched(names.HOST_INDEXED):
            self._owes = True
            workflow.upsert_search_attributes([search.OWED.value_set(True)])

    def _cancel_all(self) -> None:
        """Cancel each call; those that have ended say that it comes too late."""
        by = Cancel(by="Temporal", reason="the workflow was cancelled")
        for call in self._calls.values():
            if call.is_leaving and call.moved_to is None:
                # Its state has been passed on already.
                call.waiting.append((names.CANCEL, (by.model_dump(),)))
                continue
            call.protocol.cancel(by)
            call.host.touch()
        self._audit.record(names.CANCEL_WORKFLOW, (by.model_dump(),))

    async def _result(self) -> CallEnds:
        """All ends; the workflow of a call has its outcome where they are too large together."""
        ends, size = list[CallEnd](), 0
        for end in self._ends:
            size += _size(end)
            if size > MAX_RESULT_BYTES and _is_recorded(end.outcome):
                size -= _size(end)
                # It finds the outcome in the ledger, as does one that runs already.
                with contextlib.suppress(WorkflowAlreadyStartedError):
                    await _start_call(self._calls[end.call_id].request, None)
                end = end.model_copy(update={"outcome": None, "moved_to": end.call_id})
            ends.append(end)
        return CallEnds(ends=tuple(ends))

    # What arrives

    @workflow.signal(name=names.PROVIDER_MESSAGE)
    def provider_message(self, *arguments: Any) -> None:
        """A message about a call: `ProviderMessage`, and the call's id."""
        self._receive(names.PROVIDER_MESSAGE, arguments)

    @workflow.signal(name=names.PROVIDER_MESSAGES)
    def provider_messages(self, *arguments: Any) -> None:
        """Messages about several calls, in order: `ProviderMessages`, each with its call's id."""
        handle_signal(arguments, ProviderMessages, self._receive_all, self._reject)

    @workflow.signal(name=names.CANCEL)
    def cancel(self, *arguments: Any) -> None:
        """Cancel a call: `Cancel`, and its id."""
        self._receive(names.CANCEL, arguments)

    @workflow.signal(name=names.FORCE_ACK)
    def force_ack(self, *arguments: Any) -> None:
        """End the waiting of a call with an operator's response: `ForceAck`, and its id."""
        self._receive(names.FORCE_ACK, arguments)

    @workflow.signal(name=names.REPROCESS)
    def reprocess(self, *arguments: Any) -> None:
        """Send a parked call again: `Reprocess`, and its id."""
        self._receive(names.REPROCESS, arguments)

    @workflow.signal(name=names.RESOLVE)
    def resolve(self, *arguments: Any) -> None:
        """State what happened at the provider: `Resolve`, and the call's id."""
        self._receive(names.RESOLVE, arguments)

    @workflow.signal(name=names.WRITE_OFF)
    def write_off(self, *arguments: Any) -> None:
        """Stop retrying the acknowledgement of a cycle: `WriteOff`, and the call's id."""
        self._receive(names.WRITE_OFF, arguments)

    @workflow.query(name=names.STATUS)
    def status(self, *arguments: Any) -> CallStatus | BulkStatus:
        """Where a call is, for everybody; without a call's id, how many are where."""
        call_id, _ = _addressed(arguments or ({},))
        if not call_id:
            return self._status()
        call = self._call(call_id)
        rejection = call.protocol.state.rejection
        if rejection is not None and rejection.kind == names.KEY_REUSED:
            # The call with this id is another one.
            raise ApplicationError(rejection.reason, type=rejection.kind)
        return call.status().masked()

    @workflow.update(name=names.AWAIT_OUTCOME)
    async def await_outcome(self, *arguments: Any) -> CallStatus:
        """Wait until a call has its outcome, is delayed or leaves, or the time is over."""
        call_id, rest = _addressed(arguments)
        call, wanted = self._call(call_id), parse_argument(AwaitOutcome, rest)
        if wanted.timeout > timedelta(0):
            await self._await_release(call, workflow.now() + wanted.timeout)
        if call.protocol.state.rejection is not None:
            rejection = call.protocol.state.rejection
            raise ApplicationError(rejection.reason, type=rejection.kind)
        return call.status()

    async def _await_release(self, call: CallInHost, until: datetime) -> None:
        """Wait for the outcome or a delay of a call, or until it has moved."""
        self._waiting += 1
        # Its protocol is another one after it could not move.
        await call.host.wait(
            lambda: call.protocol.state.is_released or call.moved_to is not None, until
        )
        self._waiting -= 1

    @await_outcome.validator
    def _validate_await_outcome(self, *arguments: Any) -> None:
        """Refuse invalid arguments, unknown calls, who awaits that of another request, and too many
        at once."""
        if self._waiting >= MAX_WAITING:
            raise ApplicationError("too many wait: the result has the outcome", type=names.BUSY)
        call_id, rest = _addressed(arguments)
        digest = handle_update(rest, AwaitOutcome, lambda one: one.request_digest)
        if digest not in (None, self._call(call_id).request.digest):
            raise ApplicationError(
                "key: it already belongs to a call with another payload", type=names.KEY_REUSED
            )

    @workflow.update(name=names.TAKE_ENDS)
    async def take_ends(self, *arguments: Any) -> CallEnds:
        """Wait until more calls have left this host, and return how: `TakeEnds`."""
        after = parse_argument(TakeEnds, arguments or ({},)).after
        await workflow.wait_condition(lambda: len(self._ends) > after or not self._unreported())
        taken, size = list[CallEnd](), 0
        for end in self._ends[after:]:
            size += _size(end)
            if taken and size > MAX_RESULT_BYTES:
                break
            taken.append(end)
        known = self._unreported() + len(self._ends)
        return CallEnds(ends=tuple(taken), remaining=known - after - len(taken))

    @take_ends.validator
    def _validate_take_ends(self, *arguments: Any) -> None:
        """Refuse invalid arguments."""
        if self._invalid:
            raise invalid_request(self._invalid)
        handle_update(arguments or ({},), TakeEnds, lambda one: one)

    def _receive_all(self, several: ProviderMessages) -> None:
        for message in several.messages:
            self._receive(names.PROVIDER_MESSAGE, (message,))

    def _receive(self, name: str, arguments: Arguments) -> None:
        """Pass a signal on to its call, wherever that is."""
        try:
            call_id, rest = _addressed(arguments)
            call = self._call(call_id)
        except ApplicationError as error:
            self._reject(error.message)
            return
        if call.moved_to is not None:
            self._forward(call, name, rest)
        elif call.is_leaving:
            call.waiting.append((name, rest))
        elif name == names.PROVIDER_MESSAGE and not call.is_open:
            # Nothing stores any more what its protocol takes.
            self._run(_hold(call.id, rest))
        else:
            self._handle(call, name, rest)

    def _handle(self, call: CallInHost, name: str, arguments: Arguments) -> None:
        model, handle = _HANDLERS[name]

        def handle_and_record(signal: Any) -> None:
            handle(call.protocol, signal)
            if name != names.PROVIDER_MESSAGE:
                self._audit.record(name, arguments, subject=call.id)

        handle_signal(arguments, model, handle_and_record, call.protocol.reject)
        call.host.touch()

    def _forward(self, call: CallInHost, name: str, arguments: Arguments) -> None:
        target = call.moved_to or call.id
        if target.startswith(names.BULK_PREFIX):
            arguments = ({**arguments[0], "call_id": call.id},)
        self._run(_signal(call, target, name, arguments))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside the calls; the host ends after it."""
        task = asyncio.create_task(work)
        self._forwards.add(task)
        task.add_done_callback(self._forwards.discard)

    def _reject(self, problem: str) -> None:
        workflow.logger.warning("a signal to a host of calls is rejected: %s", problem)

    def _call(self, call_id: str) -> CallInHost:
        call = self._calls.get(call_id)
        if call is None:
            raise ApplicationError(
                f"call_id: {call_id!r} is not in this host", type=names.INVALID_REQUEST
            )
        return call

    # What is shown

    def _unreported(self) -> int:
        return sum(call.end is None for call in self._calls.values())

    def _open_calls(self) -> list[CallInHost]:
        """The oldest in their stage first."""
        return sorted(
            (call for call in self._calls.values() if call.is_open),
            key=lambda call: call.protocol.state.since,
        )

    def _status(self) -> BulkStatus:
        open_calls = self._open_calls()
        return BulkStatus(
            calls=len(self._calls),
            stages=Counter(str(call.protocol.state.stage) for call in open_calls),
            open=tuple(call.id for call in open_calls),
            moved=tuple(call.id for call in self._calls.values() if call.moved_to is not None),
            states=(*(call.where() for call in open_calls), *self._ended_states()),
        )

    def _ended_states(self) -> Iterator[HostedState]:
        for end in self._ends:
            if end.outcome is not None and not self._calls[end.call_id].is_open:
                yield _ended_state(end.outcome)

    def _show(self) -> None:
        """Show in the Temporal UI which calls are open, and what they wait for."""
        shown = [(call.protocol.state, call.host.performing) for call in self._open_calls()]
        workflow.set_current_details(render(shown, self._ends, len(self._calls)))


_HANDLERS: Mapping[str, tuple[type[Wire], Callable[[CallProtocol, Any], None]]] = {
    names.PROVIDER_MESSAGE: (ProviderMessage, CallProtocol.receive),
    names.CANCEL: (Cancel, CallProtocol.cancel),
    names.FORCE_ACK: (ForceAck, CallProtocol.force_ack),
    names.REPROCESS: (Reprocess, CallProtocol.reprocess),
    names.RESOLVE: (Resolve, CallProtocol.resolve),
    names.WRITE_OFF: (WriteOff, CallProtocol.write_off),
}
"""Signals of a call, as in `IntegrationCall`."""


def _size(end: CallEnd) -> int:
    """Bytes of JSON."""
    return len(end.model_dump_json().encode())


def _is_recorded(outcome: CallOutcome | None) -> bool:
    """Whether the ledger has it for certain: not what could not be prepared, and is small."""
    return outcome is not None and (outcome.response is not None or outcome.receipt is not None)


def _addressed(arguments: Arguments) -> tuple[str, Arguments]:
    """The call's id in an argument, and the argument without it."""
    if len(arguments) != 1 or not isinstance(arguments[0], Mapping):
        raise invalid_request("expected one JSON object with a call_id")
    fields = dict(arguments[0])
    return str(fields.pop("call_id", "")), (fields,)


def _ended_state(outcome: CallOutcome) -> HostedState:
    return HostedState(
        call_id=outcome.call_id,
        stage=Stage(outcome.status),
        since=outcome.timings.ended_at or outcome.timings.started_at,
        effect=outcome.effect,
        code=outcome.code,
        owes=outcome.acknowledgement_owed,
    )


def _without_outcome(error: StepError) -> dict[str, Any]:
    """How a call ends that is not conducted here: it is rejected, or another workflow has it."""
    if error.kind == StepFailure.HOSTED_ELSEWHERE:
        return {"moved_to": error.code}
    return {"rejected": Rejection(type=error.kind, reason=error.reason)}


async def _start_call(request: CallRequest, continuation: CallContinuation | None) -> None:
    """Start the workflow of one call, which goes on without its host.

    Raises:
        WorkflowAlreadyStartedError: one is running.
    """
    is_indexed = continuation is not None and continuation.plan.indexed
    started = await workflow.start_child_workflow(
        names.INTEGRATION_CALL,
        args=[request] if continuation is None else [request, continuation],
        id=request.call_id,
        task_queue=names.TASK_QUEUE,
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
        # Another request with this key may have been refused in a workflow of this id.
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        static_summary=f"{request.operation} at {request.provider}",
        search_attributes=request.search_attributes if is_indexed else None,
    )
    # Its failure is nobody's concern here, and must be retrieved all the same.
    started.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


async def _signal(call: CallInHost, workflow_id: str, name: str, arguments: Arguments) -> None:
    """Pass a signal on to a call that has moved; a message to one that has ended is held."""
    is_message = name == names.PROVIDER_MESSAGE
    if not await call.host.pass_on(workflow_id, name, arguments[0]) and is_message:
        await _hold(call.id, arguments)


async def _hold(call_id: str, arguments: Arguments) -> None:
    fields = {name: value for name, value in arguments[0].items() if name != "call_id"}
    try:
        message = parse_argument(ProviderMessage, (fields,))
    except InvalidInputError as error:
        workflow.logger.warning("%s: a message is rejected: %s", call_id, error)
        return
    await workflow.execute_activity(
        names.HOLD_MESSAGE,
        HoldMessageStep(call_id=call_id, message=message, reason="the call had ended"),
        task_queue=names.TASK_QUEUE,
        start_to_close_timeout=LEDGER_TIMEOUT,
    )
