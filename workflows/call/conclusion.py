"""The end of a call: what comes too late, what is still owed, and what the ledger keeps of it."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import Host

from .messages import Messages
from .notifications import Notifications
from .operator_requests import OperatorRequests
from .progress import Progress
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Stage
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.steps import Concluded, ConcludeStep, Parking


class Conclusion:
    """Keeps in the ledger where a call stands; the ledger answers for it when no worker does.

    Attributes:
        state: of a call that has a plan.
    """

    def __init__(
        self,
        host: Host,
        request: CallRequest,
        progress: Progress,
        hearing: Messages,
        orders: OperatorRequests,
        telling: Notifications,
        show: Callable[[], None],
    ) -> None:
        self._host = host
        self._request = request
        self._progress = progress
        self._hearing = hearing
        self._orders = orders
        self._telling = telling
        self._show = show
        self.state: CallState | None = None

    async def conclude(
        self, stage: Stage, reason: str | None, parked_reason: str | None = None
    ) -> Concluded:
        """Keep the stage, the outcome if there is one, and what was suppressed or is held.

        Args:
            parked_reason: under which name a parked call is found.
        """
        times = self._progress.parked_times
        parking = Parking(reason=parked_reason, times=times) if parked_reason else None
        outcome = self._progress.outcome
        gives_up = outcome is not None and outcome.status is not OutcomeStatus.COMPLETED
        return await self._host.perform(
            self._request.provider,
            steps.CONCLUDE_FOR_GOOD if gives_up and self._is_revised else steps.CONCLUDE,
            ConcludeStep(
                request=self._request,
                stage=stage,
                reason=reason,
                outcome=outcome,
                suppressed=self._hearing.take_suppressed(),
                held=self._hearing.take_held(),
                parking=parking,
                ended=self.state.cycles.take_ends() if self.state else (),
            ),
        )

    async def end(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome stands: settle what is owed, and keep the whole of it."""
        self._progress.outcome = outcome
        self._telling.ended(outcome, was_delayed=self._progress.parked_times > 0)
        self._end_hearing(outcome)
        self._enter(Stage(outcome.status) if self._is_settled() else Stage.ACKNOWLEDGING)
        is_told = await self._settle(outcome)
        self._progress.outcome = outcome = self._settled(self._progress.outcome)
        is_kept = outcome.status is OutcomeStatus.COMPLETED and not is_told
        if is_kept and outcome.acknowledgement_owed:
            is_kept = not self._is_revised
        if not is_kept or self._hearing.has_suppressed:
            await self.conclude(Stage(outcome.status), outcome.reason)
        return await self._finish(outcome)

    async def end_without_plan(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome stands, by the ledger's word or for lack of it; nothing can be owed."""
        self._progress.outcome = outcome
        self._end_hearing(outcome)
        self._enter(Stage(outcome.status))
        return await self._finish(outcome)

    def hear_too_late(self, message: ProviderMessage, outcome: CallOutcome) -> None:
        """Nothing is dropped: what says something new is kept whole, all of it is logged."""
        if self.state is not None:
            self.state.spoken_of(message)
        reason = f"the call is {outcome.status} already"
        is_news = (
            outcome.status is not OutcomeStatus.COMPLETED and message.kind is MessageKind.RESPONSE
        )
        if is_news:
            self._hearing.hold(message, reason)
        else:
            self._hearing.suppress(message, reason)

    def _end_hearing(self, outcome: CallOutcome) -> None:
        """Deal with what was heard and is too late now."""
        if self._orders.cancelled and outcome.status is not OutcomeStatus.CANCELLED:
            by = self._orders.cancelled.by
            self._progress.last_error = f"cancel by {by}: too late, the call is {outcome.status}"
            self._show()
        while self._hearing and self._is_revised:
            self.hear_too_late(self._hearing.next(), outcome)

    async def _settle(self, outcome: CallOutcome) -> bool:
        """Wait until nothing is being paid; the ledger has the outcome, and the log, meanwhile.

        Returns:
            Whether the ledger was told meanwhile that something is owed.
        """
        is_revised = not self._is_settled() and self._is_revised
        if is_revised:
            self._progress.outcome = outcome.model_copy(update={"acknowledgement_owed": True})
        is_kept = outcome.status is OutcomeStatus.COMPLETED
        is_told = False
        while is_revised and not self._is_settled():
            if not is_kept or self._hearing.has_suppressed:
                await self.conclude(Stage.ACKNOWLEDGING, outcome.reason)
                is_kept = is_told = True
            await self._host.wait(
                lambda: self._is_settled() or self._hearing.has_suppressed, None, ""
            )
        await self._host.wait(self._is_settled, None, "acknowledgements we owe")
        return is_told

    async def _finish(self, outcome: CallOutcome) -> CallOutcome:
        """Keep what is heard while the end is being kept; the last answer of a poll may be."""
        await self._telling.settled()
        while (self._hearing or self._hearing.has_suppressed) and self._is_revised:
            self._end_hearing(outcome)
            await self.conclude(Stage(outcome.status), outcome.reason)
        self._enter(Stage(outcome.status))
        return outcome

    def _settled(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome as it stands when the call is over."""
        settlement = self.state.settlement if self.state else None
        is_owed = settlement is not None and settlement.owed > 0
        paid_at = settlement.paid_at if settlement else None
        is_acknowledged = outcome.status is OutcomeStatus.COMPLETED and not is_owed
        acknowledged_at = paid_at or outcome.timings.acknowledged_at
        timings = outcome.timings.model_copy(
            update={
                "acknowledged_at": acknowledged_at if is_acknowledged else None,
                "ended_at": self._host.now(),
            }
        )
        return outcome.model_copy(update={"acknowledgement_owed": is_owed, "timings": timings})

    def _enter(self, stage: Stage) -> None:
        """The call is over but for what is owed or to be kept; nothing is waited for any more."""
        self._progress.wait_no_longer()
        if self._progress.stage is not stage:
            self._progress.enter(stage)
        self._show()

    def _is_settled(self) -> bool:
        return self.state is None or self.state.settlement.is_settled

    @property
    def _is_revised(self) -> bool:
        """A call that ends without a plan has no history that an older worker has begun."""
        return self.state is None or self.state.is_revised
