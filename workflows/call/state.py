"""What is known about one call: built once, from its request or from the run before this one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow

from workflows.hosting.host import Host, StepError

from .cycles import Cycle, Cycles

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import (
        MASKED,
        CallOutcome,
        CallRequest,
        CallStatus,
        Effect,
        Intervention,
        Notice,
        OutcomeStatus,
        Stage,
        Timings,
        Waiting,
        WaitingFor,
        texts_at,
    )
    from ackbridge.contracts.continuation import (
        CallSnapshot,
        MessagesState,
        NotificationsState,
        OperatorRequestsState,
        PendingAcknowledgementState,
    )
    from ackbridge.contracts.limits import MAX_KEY_LENGTH
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.steps import (
        DUPLICATE,
        AcknowledgementKind,
        AcknowledgeStep,
        Sent,
        SuppressedMessage,
        WrittenOff,
    )
    from ackbridge.contracts.wire import Wire, digest, duration_text

MAX_EVENT_KEYS = 1000
"""Event keys that a continued run still knows; the ledger has all that were applied."""

MAX_SEEN = 100
"""Event keys that a look at the inbox leaves out; the call suppresses what it has seen anyway."""

FIRST_QUESTION = timedelta(seconds=10)
LONGEST_QUESTION = timedelta(hours=1)
"""The pause after a question that the provider did not answer, at the most."""

MAX_BATCHES = 20
"""Batches that a call remembers; the ledger has all of them."""


class MessageQueue:
    """Messages in the order they came, and those that changed nothing, with the reason.

    Attributes:
        duplicates: how many were suppressed because their event key was known.
        doorbells: what the provider has not been asked about.
        ask_at: when it is asked again about them; None: at once.
    """

    def __init__(self, state: MessagesState) -> None:
        self._waiting = deque(state.waiting)
        # A dict for its order: the oldest are dropped first.
        self._seen: dict[str, None] = dict.fromkeys(state.seen)
        self._suppressed = list(state.suppressed)
        self._held = list(state.held)
        self._arrivals: dict[str, tuple[datetime | None, MessageKind]] = {}
        self.duplicates = state.duplicates
        self.doorbells = list(state.doorbells)
        self.ask_at: datetime | None = None
        self._questions = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, message: ProviderMessage) -> None:
        """Add a message, unless it is known."""
        if self.has_arrival(message):
            return
        if message.event_key in self._seen:
            self.duplicates += 1
            self.suppress(message, DUPLICATE)
        else:
            self._seen[message.event_key] = None
            self._arrivals[message.event_key] = (message.received_at, message.kind)
            if message.kind is MessageKind.DOORBELL:
                self.doorbells.append(message)
                self.ask_at = None
            else:
                self._waiting.append(message)

    def withdraw(self, event_key: str) -> None:
        """Forget an operator's response, which the workflow that conducts the call has now."""
        self._seen.pop(event_key, None)
        self._arrivals.pop(event_key, None)
        waiting = [message for message in self._waiting if message.event_key != event_key]
        self._waiting = deque(waiting)

    def has_arrival(self, message: ProviderMessage) -> bool:
        """Whether this very delivery is known: it may come from the inbox and by signal."""
        arrival = (message.received_at, message.kind)
        return message.received_at is not None and (
            self._arrivals.get(message.event_key) == arrival
        )

    def take_doorbells(self) -> list[ProviderMessage]:
        """What to ask the provider about now."""
        taken, self.doorbells, self.ask_at = self.doorbells, [], None
        return taken

    def put_back_doorbells(self, unanswered: list[ProviderMessage], now: datetime) -> None:
        """The provider does not answer: ask again later, each time after twice as long."""
        self._questions = self._questions + 1 if unanswered else 0
        if unanswered and not self.doorbells:
            backoff = FIRST_QUESTION * 2 ** min(self._questions - 1, 16)
            self.ask_at = now + min(backoff, LONGEST_QUESTION)
        self.doorbells = [*unanswered, *self.doorbells]

    @property
    def has_response(self) -> bool:
        """Whether one of them is a response."""
        return any(message.kind is MessageKind.RESPONSE for message in self._waiting)

    def pop(self) -> ProviderMessage:
        """The oldest response, else the oldest message: no failure overtakes a response."""
        responses = (one for one in self._waiting if one.kind is MessageKind.RESPONSE)
        message = next(responses, self._waiting[0])
        self._waiting.remove(message)
        return message

    def suppress(self, message: ProviderMessage, reason: str) -> None:
        """A message changes nothing; the ledger logs why."""
        self._suppressed.append(SuppressedMessage(event_key=message.event_key, reason=reason))

    def hold(self, message: ProviderMessage, reason: str) -> None:
        """A message changes nothing until a person decides; the ledger keeps it whole."""
        self._held.append(message)
        self.suppress(message, reason)

    @property
    def last_seen(self) -> tuple[str, ...]:
        """The event keys seen last."""
        return tuple(self._seen)[-MAX_SEEN:]

    @property
    def has_suppressed(self) -> bool:
        """Whether something is to be written to the ledger's log."""
        return bool(self._suppressed)

    def take_suppressed(self) -> tuple[SuppressedMessage, ...]:
        """What was suppressed since the last time."""
        taken, self._suppressed = tuple(self._suppressed), []
        return taken

    def take_held(self) -> tuple[ProviderMessage, ...]:
        """What is to be held since the last time."""
        taken, self._held = tuple(self._held), []
        return taken

    def state(self) -> MessagesState:
        """For continue-as-new."""
        return MessagesState(
            waiting=tuple(self._waiting),
            seen=tuple(self._seen)[-MAX_EVENT_KEYS:],
            suppressed=tuple(self._suppressed),
            held=tuple(self._held),
            duplicates=self.duplicates,
            doorbells=tuple(self.doorbells),
        )


class OperatorRequests:
    """What operators and services have asked a call to do.

    Attributes:
        cancelled, forced, resolved: by whom, and why; None if nobody did.
        resolved_as: what happened at the provider, as an operator states it.
        reprocess: a parked call is to be sent again.
        is_released: the last who asked for that was an operator, which ends a quarantine.
        received: what came before the call was prepared, by the names of the signals: another
            workflow may conduct it.
    """

    def __init__(self, state: OperatorRequestsState) -> None:
        self.cancelled = state.cancelled
        self.forced = state.forced
        self.resolved, self.resolved_as = state.resolved, state.resolved_as
        self.reprocess = state.reprocess
        self.is_released = False
        self.received: list[tuple[str, Wire]] = []
        self._batches = state.batches

    def withdraw(self) -> None:
        """The workflow that conducts the call has them."""
        self.cancelled = self.forced = self.resolved = None
        self.resolved_as = None

    def request_reprocess(self, batch: str | None) -> None:
        """Send the call again; a batch may ask for it once."""
        self.reprocess = True
        self.is_released = batch is None
        if batch is not None:
            self._batches = (*self._batches, batch)[-MAX_BATCHES:]

    def has_batch(self, batch: str | None) -> bool:
        """Whether a batch has asked for it before."""
        return batch in self._batches

    @property
    def end_waiting(self) -> bool:
        """Whether one of them ends the waiting for a response."""
        return self.cancelled is not None or self.reprocess or self.is_resolved_as_none

    @property
    def is_resolved_as_none(self) -> bool:
        """Whether an operator states that nothing happened at the provider."""
        return self.resolved_as is Effect.NONE

    def interrupts_work(self) -> bool:
        """Whether no further attempt of a send or a status request may be made."""
        requests = (self.cancelled, self.forced, self.resolved)
        return any(request is not None for request in requests)

    def is_cancelled(self) -> bool:
        """Whether no further attempt may be made of a step that a forced response needs, too."""
        return self.cancelled is not None

    @staticmethod
    def forced_key(call_id: str) -> str:
        """The event key of an operator's response; a call can have one."""
        key = f"operator:{call_id}"
        return key if len(key) <= MAX_KEY_LENGTH else f"operator:{digest(call_id)}"

    def state(self) -> OperatorRequestsState:
        """For continue-as-new."""
        return OperatorRequestsState(
            cancelled=self.cancelled,
            forced=self.forced,
            resolved=self.resolved,
            resolved_as=self.resolved_as,
            reprocess=self.reprocess,
            batches=self._batches,
        )


@dataclass
class PendingAcknowledgement:
    """An acknowledgement that the provider has not accepted.

    Attributes:
        since: its first attempt.
        is_void: a later acknowledgement of the same cycle replaces it.
        is_running: it is still being tried.
        is_refused: the provider refuses it for good.
        needs_reference: it cannot be addressed until the provider's reference is known.
    """

    step: AcknowledgeStep
    since: datetime
    is_void: bool = False
    is_running: bool = False
    is_refused: bool = False
    needs_reference: bool = False


class CallState:
    """One call. Every change that people can see is shown by the host.

    Attributes:
        stage, since, cycle, attempts, deadline, deadline_reason, reference, last_error, notice,
            standing, parked_times, reprocessed, reprocessed_by, code, provider_code, receipt,
            waiting: as in `CallStatus`.
        outcome: once the call has one.
        is_reconciling: the outcome is set with an unknown effect, and messages may replace it.
        awaited: how long the last response was awaited, from its sending.
        delayed_at: when the caller is told that it takes longer; None: at the deadline.
        ask_from: when the provider wants to be asked again, at the earliest.
        rejection: why `prepare` refused the request; nothing was sent then.
        conductor: the workflow that conducts the call, where this one only waits for its end.
        acknowledged_at: when the provider accepted the last acknowledgement.
        pending_acknowledgements: those it has not accepted so far.
        notifications: what the subscriber was notified of.
    """

    def __init__(self, host: Host, request: CallRequest, snapshot: CallSnapshot) -> None:
        self._host = host
        self.request = request
        status = snapshot.status
        self.stage, self.since = status.stage, status.since
        self.cycle, self.attempts = status.cycle, status.attempts
        self.deadline, self.deadline_reason = status.deadline, status.deadline_reason
        self.reference = status.reference
        self.last_error = status.last_error
        self.notice = status.notice
        self.standing = status.standing
        self.parked_times = status.parked_times
        self.reprocessed, self.reprocessed_by = status.reprocessed, status.reprocessed_by
        self.code, self.provider_code = status.code, status.provider_code
        self.receipt = status.receipt
        self.waiting: Waiting | None = status.waiting
        self.timings = snapshot.timings
        self.cycles = Cycles(snapshot.cycles, snapshot.rounds, snapshot.ended, snapshot.counted)
        self.messages = MessageQueue(snapshot.messages)
        self.operator_requests = OperatorRequests(snapshot.operator_requests)
        self.pending_acknowledgements = [
            PendingAcknowledgement(pending.step, pending.since, is_refused=pending.is_refused)
            for pending in snapshot.pending_acknowledgements
        ]
        self._written_off = list(snapshot.written_off)
        self.notifications: NotificationsState = snapshot.notifications
        self.outcome: CallOutcome | None = status.outcome
        self.is_reconciling = status.outcome is not None
        self.awaited: timedelta | None = snapshot.awaited
        self.delayed_at: datetime | None = snapshot.delayed_at
        self.ask_from: datetime | None = snapshot.ask_from
        self.rejection: StepError | None = None
        self.conductor: str | None = None
        self.acknowledged_at: datetime | None = None
        self.sensitive: tuple[str, ...] = ()
        self._hidden: frozenset[str] = frozenset()

    @staticmethod
    def at_start(call_id: str, now: datetime) -> CallSnapshot:
        """What a call that starts now knows."""
        status = CallStatus(call_id=call_id, stage=Stage.PREPARING, since=now)
        return CallSnapshot(status=status, timings=Timings(started_at=now))

    def snapshot(self) -> CallSnapshot:
        """For continue-as-new."""
        return CallSnapshot(
            status=self.status(),
            timings=self.timings,
            cycles=self.cycles.states(),
            rounds=self.cycles.rounds,
            ended=self.cycles.ended,
            counted=self.cycles.counted,
            messages=self.messages.state(),
            operator_requests=self.operator_requests.state(),
            pending_acknowledgements=tuple(
                PendingAcknowledgementState(
                    step=pending.step, since=pending.since, is_refused=pending.is_refused
                )
                for pending in self.pending_acknowledgements
            ),
            written_off=tuple(self._written_off),
            notifications=self.notifications,
            awaited=self.awaited,
            delayed_at=self.delayed_at,
            ask_from=self.ask_from,
        )

    def status(self) -> CallStatus:
        """The answer of the query `status`."""
        return CallStatus(
            call_id=self.request.call_id,
            stage=self.stage,
            since=self.since,
            cycle=self.cycle,
            attempts=self.attempts,
            deadline=self.deadline,
            deadline_reason=self.deadline_reason,
            reference=self.reference,
            last_error=self.last_error,
            notice=self.notice,
            standing=self.standing,
            acknowledgements_owed=len(self.pending_acknowledgements),
            duplicates=self.messages.duplicates,
            parked_times=self.parked_times,
            reprocessed=self.reprocessed,
            reprocessed_by=self.reprocessed_by,
            outcome=self.outcome,
            effect=self.effect,
            code=self.code,
            provider_code=self.provider_code,
            receipt=self.receipt,
            disputed=self.is_disputed,
            waiting=self.waiting,
        )

    def hide_sensitive(self, paths: tuple[str, ...]) -> None:
        """Show these fields of payload and response to nobody but the caller."""
        self.sensitive = paths
        self._hidden = frozenset(texts_at({"payload": self.request.payload}, paths))

    def show(self) -> None:
        """Let the host show the status."""
        self._host.show(self.status())

    # Where the call is

    def enter(self, stage: Stage) -> None:
        """Go on to another stage."""
        self.stage, self.since = stage, self._host.now()
        self.waiting = None
        if stage in _WAITING_FOR:
            self.wait_for(_WAITING_FOR[stage])
        else:
            self.show()

    def wait_for(
        self,
        what: WaitingFor,
        next_attempt_at: datetime | None = None,
        detail: str | None = None,
        *,
        is_delayed: bool = False,
    ) -> None:
        """Show what the call waits for now; see `Waiting`."""
        self.waiting = Waiting(
            what=what,
            since=self._host.now(),
            next_attempt_at=next_attempt_at,
            detail=detail,
            is_delayed=is_delayed,
        )
        self.show()

    @property
    def is_released(self) -> bool:
        """Whether those who await the outcome can be answered now."""
        is_over = self.outcome is not None or self.rejection is not None
        is_delayed = self.waiting is not None and self.waiting.is_delayed
        return is_over or self.stage is Stage.PARKED or is_delayed

    @property
    def has_pending_input(self) -> bool:
        """Whether a message, or a request that ends the waiting, is there."""
        has_doorbell = bool(self.messages.doorbells) and self.messages.ask_at is None
        is_ended = self.outcome is None and self.operator_requests.end_waiting
        return bool(self.messages) or has_doorbell or is_ended

    @property
    def effect(self) -> Effect:
        """What is known about the provider's side; an operator may have stated it."""
        is_none = self.operator_requests.is_resolved_as_none
        return Effect.NONE if is_none else self.cycles.effect

    @property
    def is_acknowledged(self) -> bool:
        """Whether no acknowledgement is being tried any more, accepted or given up."""
        return not any(pending.is_running for pending in self.pending_acknowledgements)

    @property
    def owes_failed_acknowledgement(self) -> bool:
        """Whether a failed acknowledgement is being tried: accepted later, it may undo work."""
        return any(
            pending.is_running and pending.step.kind is AcknowledgementKind.FAILED
            for pending in self.pending_acknowledgements
        )

    @property
    def is_disputed(self) -> bool:
        """Whether the provider refuses our success acknowledgement."""
        return any(
            pending.is_refused and pending.step.kind is AcknowledgementKind.SUCCESS
            for pending in self.pending_acknowledgements
        )

    def write_off(self, cycle: int, by: Intervention) -> bool:
        """Stop retrying the acknowledgement of a cycle; false if none is pending."""
        of_cycle = [
            pending
            for pending in self.pending_acknowledgements
            if pending.step.cycle == cycle and not pending.is_void
        ]
        for pending in of_cycle:
            pending.is_void = True
            if not pending.is_running:
                self.pending_acknowledgements.remove(pending)
            written_off = WrittenOff(
                cycle=cycle, kind=pending.step.kind, by=by.by, reason=by.reason
            )
            self._written_off.append(written_off)
        return bool(of_cycle)

    @property
    def has_entries(self) -> bool:
        """Whether something is to be written to the ledger's log."""
        return self.messages.has_suppressed or bool(self._written_off)

    def take_written_off(self) -> tuple[WrittenOff, ...]:
        """What was written off since the last time."""
        taken, self._written_off = tuple(self._written_off), []
        return taken

    def wait_until(self, deadline: datetime, reason: str) -> datetime:
        """Set until when the call waits, and why until then."""
        self.deadline, self.deadline_reason = deadline, reason
        return deadline

    def ask_later(self, delay: timedelta | None) -> None:
        """The provider wants to be asked again after this; None: it has not said anything."""
        if delay is not None:
            self.ask_from = max(self._host.now() + delay, self.ask_from or self._host.now())

    @property
    def response_due(self) -> datetime | None:
        """When the deadline of the response passes, if one is running."""
        return self.deadline if self.stage is Stage.AWAITING_RESPONSE else None

    def stop_waiting(self) -> None:
        """Clear the deadline."""
        self.deadline = self.deadline_reason = None

    def delay(self, notice: Notice | None, expected_at: datetime | None) -> None:
        """Set the notice of a parked call, and when a batch reprocesses it."""
        self.notice = notice and notice.model_copy(update={"expected_at": expected_at})

    def draft_outcome(self, status: OutcomeStatus) -> CallOutcome:
        """An outcome with what is known by now."""
        return CallOutcome(
            call_id=self.request.call_id,
            status=status,
            reference=self.reference,
            cycles=self.cycle,
            attempts=self.attempts,
            timings=self.timings,
            effect=self.effect,
            receipt=self.receipt,
            sensitive=self.sensitive,
        )

    def hide(self, text: str | None) -> str | None:
        """A provider's text without what it quotes of the payload's sensitive fields."""
        for value in sorted(self._hidden, key=len, reverse=True):
            text = text and text.replace(value, MASKED)
        return text

    def next_message(self) -> ProviderMessage:
        """The next message to handle; its reason may be shown."""
        message = self.messages.pop()
        return message.model_copy(update={"reason": self.hide(message.reason)})

    # Sending and receiving

    def receipt_arrived(
        self, sent: Sent, deadline: timedelta, reason: str, delayed_after: timedelta | None
    ) -> None:
        """The provider has the request; start the deadline of its response.

        It counts from the sending, in the host's clock: the sender's may differ.
        """
        now = self._host.now()
        sent_at = now - (sent.receipt_at - sent.sent_at)
        self._await_response(sent_at, now, deadline, reason)
        if delayed_after is not None and delayed_after < deadline:
            self.delayed_at = sent_at + delayed_after

    def receipt_presumed(self, deadline: timedelta, reason: str) -> None:
        """The provider sends a message about a request whose receipt was lost."""
        now = self._host.now()
        self._await_response(now, now, deadline, reason)

    def _await_response(
        self, sent_at: datetime, receipt_at: datetime, deadline: timedelta, reason: str
    ) -> None:
        self.timings = self.timings.model_copy(
            update={"sent_at": sent_at, "receipt_at": receipt_at, "answered_at": None}
        )
        self.awaited, self.delayed_at = deadline, None
        self.wait_until(sent_at + deadline, reason)

    def response_arrived(self) -> None:
        self.timings = self.timings.model_copy(update={"answered_at": self._host.now()})

    def extend_deadline(self, until: datetime, ceiling: timedelta) -> bool:
        """Move the deadline to at most `ceiling` from the sending; false if none is running."""
        sent_at = self.timings.sent_at
        if self.stage is not Stage.AWAITING_RESPONSE or self.deadline is None or sent_at is None:
            return False
        deadline = max(self.deadline, min(until, sent_at + ceiling))
        most = duration_text(ceiling)
        self.wait_until(deadline, f"extended by the provider, at most {most} from the sending")
        return True

    def is_forced(self, message: ProviderMessage) -> bool:
        """Whether an operator, and not the provider, has given this response."""
        return message.event_key == self.operator_requests.forced_key(self.request.call_id)

    def arrived_at(self, message: ProviderMessage, cycle: Cycle) -> datetime:
        """When a message about a cycle came; the host's time where the gateway's cannot be true."""
        now, received_at = self._host.now(), message.received_at
        if received_at is not None and (cycle.sent_at or now) <= received_at <= now:
            return received_at
        return now

    def cycle_for(self, message: ProviderMessage) -> Cycle:
        """The cycle a message is about; the message may bring a reference that was missing."""
        if self.is_forced(message):
            return self.cycles.last_sent
        cycle = self.cycles.cycle_for(message)
        if message.reference is not None and cycle.was_sent and cycle.reference is None:
            cycle.reference = message.reference
            for pending in self.pending_acknowledgements:
                if pending.needs_reference and pending.step.cycle == cycle.number:
                    update = {"reference": message.reference}
                    pending.step = pending.step.model_copy(update=update)
                    pending.needs_reference = False
        return cycle

    def withdraw_requests(self) -> None:
        """Forget what operators have asked for: the workflow that conducts the call has it."""
        self.operator_requests.withdraw()
        self.messages.withdraw(self.operator_requests.forced_key(self.request.call_id))

    def receive_after_end(self, message: ProviderMessage, outcome: CallOutcome) -> None:
        """Log a message that is too late; a response that the call does not have is kept whole."""
        cycle = self.cycle_for(message)
        reason = f"the call is {outcome.status} already"
        is_completed = outcome.status is OutcomeStatus.COMPLETED
        is_response = message.kind is MessageKind.RESPONSE
        if is_response and self.is_forced(message):
            self.messages.suppress(message, f"force_ack, too late: {reason}")
        elif is_response and not is_completed:
            cycle.report_success()
            self.messages.hold(message, reason)
        else:
            if message.kind is MessageKind.FAILURE:
                cycle.report_failure()
            self.messages.suppress(message, reason)


_WAITING_FOR = {
    Stage.AWAITING_RESPONSE: WaitingFor.RESPONSE,
    Stage.PARKED: WaitingFor.REPROCESSING,
    Stage.RECONCILING: WaitingFor.RECONCILIATION,
}


def describe_intervention(verb: str, steering: Intervention | None) -> str:
    """What was done, by whom, and why."""
    return f"{verb} by {steering.by}: {steering.reason}" if steering else verb
