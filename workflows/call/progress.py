"""Where a call is, for everybody who asks."""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow

from workflows.hosting.host import Host

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import (
        CallOutcome,
        CallRequest,
        CallStatus,
        Notice,
        OutcomeStatus,
        Stage,
        Timings,
    )
    from ackbridge.contracts.plan import Plan
    from ackbridge.contracts.steps import Sent


class Progress:
    """The visible side of one call; every change of stage is shown by the host.

    Attributes:
        stage, cycle, attempts, deadline, deadline_reason, reference, last_error, notice,
            standing: as in `CallStatus`.
        timings: as in `CallOutcome`.
        parked_times, reprocessed, reprocessed_by: as in `CallStatus`.
        outcome: how the call ended, once it did.
    """

    def __init__(self, host: Host, request: CallRequest) -> None:
        self._host = host
        self._request = request
        self._since = host.now()
        self.stage = Stage.PREPARING
        self.cycle = 1
        self.attempts = 0
        self.deadline: datetime | None = None
        self.deadline_reason: str | None = None
        self.reference: str | None = None
        self.last_error: str | None = None
        self.notice: Notice | None = None
        self.standing: str | None = None
        self.timings = Timings(started_at=host.now())
        self.parked_times = 0
        self.reprocessed = 0
        self.reprocessed_by: str | None = None
        self.outcome: CallOutcome | None = None

    def recall(self, status: CallStatus, timings: Timings) -> None:
        """Go on where the run before this one was, parked."""
        self._since = status.since
        self.stage = status.stage
        self.cycle = status.cycle
        self.attempts = status.attempts
        self.deadline, self.deadline_reason = status.deadline, status.deadline_reason
        self.reference = status.reference
        self.last_error = status.last_error
        self.notice = status.notice
        # A run from before they were counted has been parked once at least.
        self.parked_times = max(status.parked_times, 1)
        self.reprocessed, self.reprocessed_by = status.reprocessed, status.reprocessed_by
        self.standing = status.standing
        self.timings = timings

    def enter(self, stage: Stage) -> None:
        """The call has got to another stage."""
        self.stage = stage
        self._since = self._host.now()

    def received(self, sent: Sent, plan: Plan) -> datetime:
        """The provider has the request; answers with the deadline of its response.

        It counts from the moment of sending, in the host's clock: the sender's may differ.
        """
        receipt_at = self._host.now()
        sent_at = receipt_at - (sent.receipt_at - sent.sent_at)
        self.timings = self.timings.model_copy(
            update={"sent_at": sent_at, "receipt_at": receipt_at, "answered_at": None}
        )
        return self.wait_until(sent_at + plan.deadline, plan.deadline_reason)

    def presumed_received(self, sent_at: datetime, plan: Plan) -> datetime:
        """The provider speaks of a request whose receipt never came: so it has it."""
        self.timings = self.timings.model_copy(
            update={"sent_at": sent_at, "receipt_at": self._host.now(), "answered_at": None}
        )
        return self.wait_until(sent_at + plan.deadline, plan.deadline_reason)

    def answered(self) -> None:
        """A response is here."""
        self.timings = self.timings.model_copy(update={"answered_at": self._host.now()})

    def wait_until(self, deadline: datetime, reason: str) -> datetime:
        """Until when the call waits now, and why until then."""
        self.deadline, self.deadline_reason = deadline, reason
        return deadline

    def is_delayed(self, notice: Notice | None, until: datetime | None) -> None:
        """The call is parked, or parked again; its user reads when a batch takes it up."""
        self.notice = notice and notice.model_copy(update={"expected_at": until})

    def wait_no_longer(self) -> None:
        """The call waits for nothing any more."""
        self.deadline = self.deadline_reason = None

    def extended(self, wanted: datetime, at_most: timedelta) -> datetime | None:
        """Move the deadline as the provider asks; None when no response is being awaited."""
        sent_at = self.timings.sent_at
        if self.stage is not Stage.AWAITING_RESPONSE or self.deadline is None or sent_at is None:
            return None
        deadline = max(self.deadline, min(wanted, sent_at + at_most))
        return self.wait_until(
            deadline, f"extended by the provider, at most {at_most} from the sending"
        )

    def draft(self, status: OutcomeStatus) -> CallOutcome:
        """An outcome with what is known by now."""
        return CallOutcome(
            call_id=self._request.call_id,
            status=status,
            reference=self.reference,
            cycles=self.cycle,
            attempts=self.attempts,
            timings=self.timings,
        )

    def status(self, owed: int, duplicates: int) -> CallStatus:
        """Everything, for whoever asks."""
        return CallStatus(
            call_id=self._request.call_id,
            stage=self.stage,
            since=self._since,
            cycle=self.cycle,
            attempts=self.attempts,
            deadline=self.deadline,
            deadline_reason=self.deadline_reason,
            reference=self.reference,
            last_error=self.last_error,
            notice=self.notice,
            standing=self.standing,
            acknowledgements_owed=owed,
            duplicates=duplicates,
            parked_times=self.parked_times,
            reprocessed=self.reprocessed,
            reprocessed_by=self.reprocessed_by,
            outcome=self.outcome,
        )
