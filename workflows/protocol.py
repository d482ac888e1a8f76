"""The acknowledgement protocol of one call, whatever hosts it.

prepare ─► send ─► await response ─► capture ─► acknowledge(success)
            │            │  ▲ extension
            │ no receipt │ deadline or failure: ask once, acknowledge(failed), next cycle
            ▼            ▼
          park or fail, with a notice
"""

from __future__ import annotations

from temporalio import workflow

from . import steps
from .conversation import Conversation
from .hearing import Hearing
from .host import Host, StepFailed
from .orders import Orders
from .progress import Progress
from .settlement import Settlement

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        CallOutcome,
        CallRequest,
        CallStatus,
        Cancel,
        ForceAck,
        MessageKind,
        MessageSource,
        OutcomeStatus,
        Prepared,
        PrepareStep,
        ProviderMessage,
        Reprocess,
        Stage,
        Steering,
    )


class CallProtocol:
    """One call from its request to its outcome.

    The host feeds it with what arrives (`hear`, `cancel`, `force`, `reprocess`, `reject`), asks it
    (`status`, `released`) and runs it (`run`).

    Attributes:
        refusal: why `prepare` refused the call, if it did; nothing was sent then.
    """

    def __init__(self, host: Host, request: CallRequest, run_chain: str) -> None:
        self._host = host
        self._request = request
        self._run_chain = run_chain
        self._progress = Progress(host, request)
        self._hearing = Hearing()
        self._orders = Orders()
        self._settlement = Settlement(host, self._show)
        self.refusal: StepFailed | None = None

    # What it is told

    def hear(self, message: ProviderMessage) -> None:
        """Take a provider's message; each counts once, and none after the outcome."""
        if self.outcome is not None:
            self._hearing.suppress(message, f"the call is {self.outcome.status} already")
        else:
            self._hearing.hear(message)

    def cancel(self, order: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"cancel by {order.by}: too late, the call is {self.outcome.status}")
        elif self._orders.cancelled is None:
            self._orders.cancelled = Steering(by=order.by, reason=order.reason)

    def force(self, order: ForceAck) -> None:
        """Take an operator's word for the answer; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"force_ack by {order.by}: too late, the call is {self.outcome.status}")
            return
        self._orders.forced = Steering(by=order.by, reason=order.reason)
        self.hear(
            ProviderMessage(
                kind=MessageKind.RESPONSE,
                event_key=self._orders.forced_key(self._request.call_id),
                data=order.response,
                source=MessageSource.OPERATOR,
                received_at=self._host.now(),
            )
        )

    def reprocess(self, order: Reprocess) -> None:
        """Take a parked call up again."""
        if self._progress.stage is Stage.PARKED:
            self._orders.reprocess = True
        else:
            stage = self._progress.stage
            self.reject(f"reprocess by {order.by}: the call is not parked but {stage}")

    def reject(self, problem: str) -> None:
        """Keep what was wrong with something we were sent, for whoever looks at the status."""
        self._progress.last_error = problem
        self._show()

    # What it is asked

    @property
    def outcome(self) -> CallOutcome | None:
        """How the call ended, once it did."""
        return self._progress.outcome

    @property
    def released(self) -> bool:
        """Whether whoever waits for the outcome can be answered now."""
        is_over = self.outcome is not None or self.refusal is not None
        return is_over or self._progress.stage is Stage.PARKED

    def status(self) -> CallStatus:
        """Where the call is."""
        return self._progress.status(self._settlement.owed, self._hearing.duplicates)

    # What it does

    async def run(self) -> CallOutcome:
        """Conduct the call to its end.

        Raises:
            StepFailed: it was refused before anything was sent.
        """
        prepared = await self._prepare()
        if prepared.plan is None:
            self._progress.outcome = prepared.recorded
            return self._finish()
        if prepared.plan.indexed:
            self._host.index_at_start(self._request.provider, self._request.operation)
        conversation = Conversation(
            self._host,
            self._request,
            prepared.plan,
            self._progress,
            self._hearing,
            self._orders,
            self._settlement,
        )
        self._progress.outcome = await conversation.hold()
        await self._host.wait(lambda: self._settlement.is_settled, None, "acknowledgements we owe")
        self._progress.outcome = self._settled(self._progress.outcome)
        if conversation.is_unrecorded(self._progress.outcome):
            await conversation.conclude(
                Stage(self._progress.outcome.status), self._progress.outcome.reason
            )
        return self._finish()

    async def _prepare(self) -> Prepared:
        try:
            return await self._host.perform(
                self._request.provider,
                steps.PREPARE,
                PrepareStep(request=self._request, run_chain=self._run_chain),
            )
        except StepFailed as refusal:
            self.refusal = refusal
            self._progress.last_error = refusal.reason
            self._progress.enter(Stage.FAILED)
            self._show()
            raise

    def _settled(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome as it stands when the call is over."""
        is_owed = self._settlement.owed > 0
        timings = outcome.timings.model_copy(
            update={
                "acknowledged_at": self._settlement.paid_at
                if outcome.status is OutcomeStatus.COMPLETED and not is_owed
                else None,
                "ended_at": self._host.now(),
            }
        )
        return outcome.model_copy(update={"acknowledgement_owed": is_owed, "timings": timings})

    def _finish(self) -> CallOutcome:
        if self.outcome is None:
            raise StepFailed("NoOutcome", "the ledger has neither a plan nor an outcome for it")
        self._progress.wait_no_longer()
        self._progress.enter(Stage(self.outcome.status))
        self._show()
        return self.outcome

    def _show(self) -> None:
        self._host.show(self.status())
