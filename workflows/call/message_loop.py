"""Listening: every message is dealt with, until one decides, an order comes, or time is up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from temporalio import workflow

from .closing import Closing
from .cycles import Cycle
from .recording import Recording
from .round_result import NoResponse, RoundEnd
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Stage
    from ackbridge.contracts.messages import MessageKind, ProviderMessage


def _nothing() -> bool:
    return False


class MessageLoop:
    """Takes what the provider and the operators say.

    Attributes:
        capture: what takes the response.
    """

    def __init__(self, state: CallState, closing: Closing) -> None:
        self._state = state
        self._closing = closing
        self.capture = Recording(state)

    async def until(
        self, deadline: datetime, summary: str, aside: Callable[[], bool] = _nothing
    ) -> RoundEnd | NoResponse:
        """Take messages as they come, until one decides, an order comes, or time is up."""
        state = self._state
        while True:
            if state.hearing:
                ending = await self._take(self._next())
                if ending is not None:
                    return ending
                deadline = max(deadline, state.progress.deadline or deadline)
            elif state.orders.cancelled is not None:
                return RoundEnd.CANCEL
            elif state.orders.reprocess:
                state.orders.reprocess = False
                return RoundEnd.REPROCESS
            elif aside():
                return RoundEnd.ASIDE
            elif not await state.host.wait(lambda: state.is_roused or aside(), deadline, summary):
                return RoundEnd.SILENCE

    async def at_once(self) -> RoundEnd | NoResponse:
        """Deal with what is there already, and do not wait for more."""
        return await self.until(self._state.host.now(), "")

    def _next(self) -> ProviderMessage:
        """The oldest message; but an answer that is here counts before anything that gives up."""
        hearing = self._state.hearing
        if hearing.has_overtaken_answer and self._state.is_revised:
            return hearing.next_answer()
        return hearing.next()

    async def _take(self, message: ProviderMessage) -> RoundEnd | NoResponse | None:
        """Deal with one message; None: it decides nothing."""
        cycle = self._state.spoken_of(message)
        if message.kind is MessageKind.EXTENSION:
            self._extend(message, cycle)
            return None
        if message.kind is MessageKind.RESPONSE:
            return RoundEnd.ANSWER if await self.capture.take(message, cycle) else None
        return await self._hear_failure(message, cycle)

    async def _hear_failure(self, message: ProviderMessage, cycle: Cycle) -> NoResponse | None:
        """A failure ends its cycle, and the round unless the call is parked."""
        state = self._state
        is_parked = state.progress.stage is Stage.PARKED
        if cycle.has_given_up or (is_parked and not state.is_revised):
            state.hearing.suppress(message, "a failure of a cycle that was given up already")
            return None
        cycle.spend()
        state.cycles.failed(cycle, state.heard_at(message, cycle))
        reason = f"the provider reported a failure: {message.reason or 'no reason given'}"
        state.progress.last_error = reason
        if not is_parked:
            return NoResponse(reason, "provider_failure", again=message.retryable)
        await self._closing.acknowledge_failed(reason)
        state.enter(Stage.PARKED)
        return None

    def _extend(self, message: ProviderMessage, cycle: Cycle) -> None:
        """Move the deadline as the provider asks, up to the operation's ceiling."""
        state = self._state
        stage = state.progress.stage
        if cycle.has_given_up or cycle is not state.cycles.current:
            state.hearing.suppress(message, "an extension of a cycle that was given up already")
            return
        if stage is Stage.SENDING and cycle.was_sent and state.is_revised:
            # The receipt was lost, and the provider is at work all the same.
            state.progress.presumed_received(state.host.now(), state.plan)
            state.cycles.rounds += 1
            state.enter(Stage.AWAITING_RESPONSE)
        wanted = message.until or state.host.now() + (message.extend_by or state.plan.deadline)
        if state.progress.extended(wanted, state.plan.ceiling) is None:
            state.hearing.suppress(message, f"an extension of a call that is {stage}")
        else:
            state.show()
