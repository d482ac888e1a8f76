"""The workflow `ProviderControl`: hosts the control of one provider, as long as it exists.

It runs for months and continues as new when its history is long, with its whole state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow

from workflows.hosting.audit import AuditTrail
from workflows.hosting.inputs import (
    handle_signal,
    handle_update,
    invalid_request,
    read_start,
    require_no_timeouts,
    require_workflow_id,
)
from workflows.hosting.temporal_host import should_continue_as_new

from .control import Control
from .control_loop import ControlLoop, SnapshotCopy
from .ui_details import render

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.audit import AuditOrigin
    from ackbridge.contracts.breaker import ForceBreaker, SetLimit
    from ackbridge.contracts.control import (
        CONTROL_MEMO,
        CONTROL_REVISION,
        ControlChange,
        ControlStart,
        ControlState,
        ControlStatus,
        IntegrationFlags,
        SetFlag,
    )
    from ackbridge.contracts.wire import InvalidInputError, Wire

Command = TypeVar("Command", bound=Wire)
Result = TypeVar("Result")


@workflow.defn(name=names.PROVIDER_CONTROL)
class ProviderControl:
    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        self._control: Control | None = None
        self._copy: SnapshotCopy | None = None
        self._published: str | None = None
        self._audit = AuditTrail()
        try:
            self._start, state = read_start(arguments, ControlStart, ControlState)
            require_workflow_id(names.control_id(self._start.provider), "provider")
            require_no_timeouts("the control's flags would end with it")
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._control = Control(self._start, state, workflow.now, self._publish)
        self._copy = SnapshotCopy(self._control) if self._start.revision >= 1 else None

    @workflow.run
    async def run(self, *_arguments: Any) -> None:
        """Run until the history is long, and continue as new.

        Raises:
            ApplicationError: of type InvalidRequest.
        """
        control = self._require_control()
        control.begin()
        loop = ControlLoop(control)
        if self._copy is not None:
            self._copy.start()
        try:
            await workflow.wait_condition(should_continue_as_new)
        except asyncio.CancelledError:
            # Without its control, a provider that is switched off would be on.
            control.reject("cancelled: a control cannot be cancelled; use its flags")
        await loop.stop()
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._audit.finish()
        # Last, so that the state has whatever arrived before this moment.
        workflow.continue_as_new(
            # The engine does not carry the memo over, and workers read it all the time.
            args=[
                self._start.model_copy(update={"revision": CONTROL_REVISION}),
                control.state(),
            ],
            memo={CONTROL_MEMO: control.snapshot},
        )

    @workflow.update(name=names.SET_FLAG)
    async def set_flag(self, *arguments: Any) -> ControlChange:
        self._audit.record(names.SET_FLAG, arguments, AuditOrigin.UPDATE)
        return await self._change(SetFlag, arguments, Control.set_flag)

    @set_flag.validator
    def _validate_set_flag(self, *arguments: Any) -> None:
        self._update(SetFlag, arguments, Control.validate_flag)

    @workflow.signal(name=names.SET_FLAG)
    def signal_set_flag(self, *arguments: Any) -> None:
        """The update as a signal: an error is shown in the status."""
        self._signal(SetFlag, arguments, Control.set_flag, names.SET_FLAG)

    @workflow.update(name=names.FORCE_BREAKER)
    async def force_breaker(self, *arguments: Any) -> ControlChange:
        self._audit.record(names.FORCE_BREAKER, arguments, AuditOrigin.UPDATE)
        return await self._change(ForceBreaker, arguments, Control.force_breaker)

    @force_breaker.validator
    def _validate_force_breaker(self, *arguments: Any) -> None:
        self._update(ForceBreaker, arguments, Control.validate_breaker)

    @workflow.signal(name=names.FORCE_BREAKER)
    def signal_force_breaker(self, *arguments: Any) -> None:
        self._signal(ForceBreaker, arguments, Control.force_breaker, names.FORCE_BREAKER)

    @workflow.update(name=names.SET_LIMIT)
    async def set_limit(self, *arguments: Any) -> ControlChange:
        self._audit.record(names.SET_LIMIT, arguments, AuditOrigin.UPDATE)
        return await self._change(SetLimit, arguments, Control.set_limit)

    @set_limit.validator
    def _validate_set_limit(self, *arguments: Any) -> None:
        self._update(SetLimit, arguments, Control.validate_limit)

    @workflow.signal(name=names.SET_LIMIT)
    def signal_set_limit(self, *arguments: Any) -> None:
        self._signal(SetLimit, arguments, Control.set_limit, names.SET_LIMIT)

    @workflow.signal(name=names.CONFIGURE)
    def configure(self, *arguments: Any) -> None:
        """The flags of the integration file, from a worker that starts: `IntegrationFlags`."""
        self._signal(IntegrationFlags, arguments, Control.configure)

    @workflow.query(name=names.STATUS)
    def status(self) -> ControlStatus:
        return self._require_control().status()

    def _require_control(self) -> Control:
        if self._control is None:
            raise invalid_request(self._invalid)
        return self._control

    def _update(
        self,
        model: type[Command],
        arguments: tuple[Any, ...],
        handle: Callable[[Control, Command], Result],
    ) -> Result:
        control = self._require_control()
        return handle_update(arguments, model, lambda command: handle(control, command))

    async def _change(
        self,
        model: type[Command],
        arguments: tuple[Any, ...],
        handle: Callable[[Control, Command], ControlChange],
    ) -> ControlChange:
        """As `_update`, and wait until workers that cannot ask the engine can know of it."""
        change = self._update(model, arguments, handle)
        if self._copy is not None:
            await self._copy.wait()
        return change

    def _signal(
        self,
        model: type[Command],
        arguments: tuple[Any, ...],
        handle: Callable[[Control, Command], object],
        action: str | None = None,
    ) -> None:
        """Handle a signal; `action` is what it is in the audit log, if an operator sends it."""
        control = self._control
        if control is None:
            return

        def handle_and_record(command: Command) -> None:
            handle(control, command)
            if action is not None:
                self._audit.record(action, arguments)

        handle_signal(arguments, model, handle_and_record, control.reject)

    def _publish(self) -> None:
        if self._control is None:
            return
        workflow.set_current_details(render(self._control.status()))
        snapshot = self._control.snapshot
        if (published := snapshot.model_dump_json()) != self._published:
            self._published = published
            workflow.upsert_memo({CONTROL_MEMO: snapshot})
