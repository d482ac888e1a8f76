"""The workflow `ProviderControl`: hosts the control of one provider, for as long as there is one.

It runs for months: it continues as new when its history is long, and takes everything along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.hosting.temporal_host import should_continue_as_new

from .control import Control
from .control_loop import Watching
from .ui_details import tell_control

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.breaker import ForceBreaker, SetLimit
    from ackbridge.contracts.control import (
        CONTROL_MEMO,
        ControlChange,
        ControlStart,
        ControlState,
        ControlStatus,
        IntegrationFlags,
        SetFlag,
    )
    from ackbridge.contracts.wire import InvalidInputError, Wire, parse_argument

WATCHED = "watched"
WATCHED_LATER = "watched-later"
"""What controls of an older version do not do; see `docs/decisions/0012`."""

Order = TypeVar("Order", bound=Wire)
Answer = TypeVar("Answer")


@workflow.defn(name=names.PROVIDER_CONTROL)
class ProviderControl:
    """One provider's control. Arguments arrive raw and are validated inside, as those of calls."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        self._control: Control | None = None
        self._start: ControlStart | None = None
        self._published: str | None = None
        self._watching: Watching | None = None
        try:
            self._start, memory = _read_start(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._is_continued = memory is not None
        self._control = Control(self._start, memory, workflow.now, self._publish)

    @workflow.run
    async def run(self, *_arguments: Any) -> None:
        """Be there until the history is long, and continue then.

        Raises:
            ApplicationError: of type InvalidRequest; it was started with something else.
        """
        control, start = self._control, self._start
        if control is None or start is None:
            raise ApplicationError(
                self._invalid or "", type=names.INVALID_REQUEST, non_retryable=True
            )
        control.begin(start, is_continued=self._is_continued)
        if workflow.patched(WATCHED):
            self._watching = Watching(control)
        try:
            await workflow.wait_condition(should_continue_as_new)
        except asyncio.CancelledError:
            # Providers are switched off by their flags: without its control they would be on.
            control.reject("cancelled: a control goes on all the same; use its flags")
        if self._watching is not None:
            await self._watching.stop()
        await workflow.wait_condition(workflow.all_handlers_finished)
        # Asked last: whatever arrives before this moment is in the memory.
        workflow.continue_as_new(
            # The engine takes none along by itself, and workers look all the time.
            args=[start, control.memory()],
            memo={CONTROL_MEMO: control.snapshot},
        )

    @workflow.update(name=names.SET_FLAG)
    def set_flag(self, *arguments: Any) -> ControlChange:
        """Set a flag: `SetFlag`; answers with what was changed, from what to what."""
        return self._obey(SetFlag, arguments, Control.set_flag)

    @set_flag.validator
    def _may_set_flag(self, *arguments: Any) -> None:
        self._obey(SetFlag, arguments, Control.check)

    @workflow.signal(name=names.SET_FLAG)
    def set_flag_later(self, *arguments: Any) -> None:
        """The same for whoever cannot wait for an answer; what is wrong is in the status."""
        self._take(SetFlag, arguments, Control.set_flag)

    @workflow.update(name=names.FORCE_BREAKER)
    def force_breaker(self, *arguments: Any) -> ControlChange:
        """Hold the breaker somewhere, or let it go: `ForceBreaker`."""
        return self._obey(ForceBreaker, arguments, Control.force_breaker)

    @force_breaker.validator
    def _may_force_breaker(self, *arguments: Any) -> None:
        self._obey(ForceBreaker, arguments, lambda _control, _order: None)

    @workflow.signal(name=names.FORCE_BREAKER)
    def force_breaker_later(self, *arguments: Any) -> None:
        """The same for whoever cannot wait for an answer."""
        self._take(ForceBreaker, arguments, Control.force_breaker)

    @workflow.update(name=names.SET_LIMIT)
    def set_limit(self, *arguments: Any) -> ControlChange:
        """Bound the provider's sends per second: `SetLimit`."""
        return self._obey(SetLimit, arguments, Control.set_limit)

    @set_limit.validator
    def _may_set_limit(self, *arguments: Any) -> None:
        self._obey(SetLimit, arguments, lambda _control, _order: None)

    @workflow.signal(name=names.SET_LIMIT)
    def set_limit_later(self, *arguments: Any) -> None:
        """The same for whoever cannot wait for an answer."""
        self._take(SetLimit, arguments, Control.set_limit)

    @workflow.signal(name=names.CONFIGURE)
    def configure(self, *arguments: Any) -> None:
        """A worker that starts says what its integration file says: `IntegrationFlags`."""
        self._take(IntegrationFlags, arguments, Control.configure)
        if self._watching is None and self._control and workflow.patched(WATCHED_LATER):
            # A control that began before there were watches would have none for months.
            self._watching = Watching(self._control)

    @workflow.query(name=names.STATUS)
    def status(self) -> ControlStatus:
        """How everything stands, and the latest changes."""
        if self._control is None:
            raise ApplicationError(self._invalid or "", type=names.INVALID_REQUEST)
        return self._control.status()

    def _obey(
        self,
        model: type[Order],
        arguments: tuple[Any, ...],
        act: Callable[[Control, Order], Answer],
    ) -> Answer:
        """Do what an update says.

        Raises:
            ApplicationError: of type InvalidRequest, naming the field.
        """
        if self._control is None:
            raise ApplicationError(self._invalid or "", type=names.INVALID_REQUEST)
        try:
            return act(self._control, parse_argument(model, arguments))
        except InvalidInputError as error:
            raise ApplicationError(str(error), type=names.INVALID_REQUEST) from None

    def _take(
        self,
        model: type[Order],
        arguments: tuple[Any, ...],
        act: Callable[[Control, Order], object],
    ) -> None:
        """Do what a signal says, or keep what is wrong with it."""
        if self._control is None:
            return
        try:
            act(self._control, parse_argument(model, arguments))
        except InvalidInputError as error:
            self._control.reject(str(error))

    def _publish(self) -> None:
        """Let workers and the Temporal UI see how everything stands."""
        if self._control is None:
            return
        workflow.set_current_details(tell_control(self._control.status()))
        snapshot = self._control.snapshot
        if (published := snapshot.model_dump_json()) != self._published:
            self._published = published
            workflow.upsert_memo({CONTROL_MEMO: snapshot})


def _read_start(arguments: tuple[Any, ...]) -> tuple[ControlStart, ControlState | None]:
    """Validate what the control was started with, the start options included."""
    info = workflow.info()
    is_continued = info.continued_run_id is not None and len(arguments) == 2
    memory = ControlState.model_validate(arguments[1]) if is_continued else None
    start = parse_argument(ControlStart, arguments[:1] if is_continued else arguments)
    if info.workflow_id != names.control_id(start.provider):
        raise InvalidInputError(
            f"provider: a control's workflow id is control.<provider>, here"
            f" {names.control_id(start.provider)!r}; it was started as {info.workflow_id!r}"
        )
    if info.execution_timeout or info.run_timeout:
        raise InvalidInputError(
            "workflow timeouts: a control has none, its flags would end with it"
        )
    return start, memory
