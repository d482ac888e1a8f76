"""What must hold, whatever happens: after every action, and when the world has settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeStatus, Stage
from ackbridge.contracts.messages import MessageKind
from ackbridge.contracts.notices import notice_kind
from ackbridge.contracts.plan import LatePolicy, Prepared, ResponseMode
from ackbridge.contracts.steps import AcknowledgementKind, PrepareStep, SendStep, Sent
from ackbridge.contracts.wire import Wire
from workflows.hosting.host import StepError

from .runtime import Ticket
from .simulated_services import Acknowledgement
from .world import World

SUCCESS, FAILED = AcknowledgementKind.SUCCESS, AcknowledgementKind.FAILED


class InvariantError(AssertionError):
    """Something does not hold; the text ends with the trace of what happened."""


class Invariants:
    """Watches a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._accepted = 0
        self._asked = 0
        self._attempts = self._cycle = 0
        self._known: set[int] = set()

    def check(self) -> None:
        """What holds at any time.

        Raises:
            InvariantError: saying what does not.
        """
        self._raise(self._always())

    def check_end(self) -> None:
        """What holds once the call is over.

        Raises:
            InvariantError: saying what does not.
        """
        self._raise(self._always())
        self._raise(self._finally())

    def _raise(self, problems: Iterator[str]) -> None:
        problem = next(problems, None)
        if problem is not None:
            plan = self._world.plan.model_dump_json(exclude={"notices"}, exclude_defaults=True)
            raise InvariantError("\n".join([problem, "", plan, *self._world.trace]))

    # At any time

    def _always(self) -> Iterator[str]:
        yield from self._never_hangs()
        yield from self._status_is_consistent()
        yield from self._sends_are_allowed()
        yield from self._acknowledgements_are_true()
        yield from self._one_end()

    def _never_hangs(self) -> Iterator[str]:
        engine = self._world.engine
        is_moving = engine.replica.locals or engine.activities or engine.timers
        if not engine.is_closed and not is_moving:
            yield "the call hangs: nothing is under way, and no timer runs"

    def _status_is_consistent(self) -> Iterator[str]:
        world, status = self._world, self._world.protocol.state.status()
        timings = world.protocol.state.timings
        if status.stage is Stage.PARKED:
            if status.deadline is None or status.notice is None:
                yield "a parked call has no deadline or no notice"
            if not world.protocol.state.is_released:
                yield "a parked call keeps its callers waiting"
            if self._is_idle() and world.protocol.state.messages.has_suppressed:
                yield "a parked call keeps suppressed messages to itself"
        if status.stage is Stage.AWAITING_RESPONSE:
            if status.deadline is None or status.deadline_reason is None or not timings.sent_at:
                yield "a response is awaited without a deadline"
            elif status.deadline > timings.sent_at + max(world.plan.ceiling, world.plan.deadline):
                yield "the deadline is beyond the ceiling"
            elif status.deadline < timings.sent_at + world.plan.deadline or not self._is_dated():
                yield "the deadline does not count from the sending"
        if status.stage is Stage.SENDING and status.deadline is not None:
            yield "a call that sends shows the deadline of another round"
        if (
            status.stage.is_final
            and status.outcome is None
            and world.protocol.state.rejection is None
        ):
            yield f"the stage is {status.stage} without an outcome"
        if status.outcome is not None and status.stage not in (
            Stage.CAPTURING,
            Stage.ACKNOWLEDGING,
            Stage.RECONCILING,
            Stage(status.outcome.status),
        ):
            yield f"the stage is {status.stage} while the outcome stands"
        if status.acknowledgements_owed != len(world.protocol.state.pending_acknowledgements):
            yield "the status does not tell what is owed"
        if status.outcome is None and not world.engine.task:
            if status.attempts < self._attempts or status.cycle < self._cycle:
                yield "attempts or cycles have become fewer"
            self._attempts, self._cycle = status.attempts, status.cycle

    def _is_dated(self) -> bool:
        """Whether the sending is dated as far before its receipt as the sender reports."""
        timings = self._world.protocol.state.timings
        tickets = reversed(self._world.engine.replica.tickets.values())
        last = next((sent for one in tickets if (sent := _sent(one)) is not None), None)
        if not isinstance(last, Sent) or not timings.receipt_at or not timings.sent_at:
            return True  # A lost receipt: nobody can tell.
        return timings.receipt_at - timings.sent_at == last.receipt_at - last.sent_at

    def _is_idle(self) -> bool:
        """Whether no step of a parked call is under way, or waits to be tried again."""
        # A call that ends looks for an answer while it is parked.
        ends = (names.CONCLUDE, names.RECORD, names.ACKNOWLEDGE)
        ends_and_looks = (*ends, names.LOOK_INBOX, names.ASK_STATUS)
        tickets = self._world.engine.replica.tickets.values()
        found = [one.end for one in tickets if one.options.name in ends_and_looks]
        return self._world.engine.task is None and all(isinstance(end, Wire) for end in found[-1:])

    def _sends_are_allowed(self) -> Iterator[str]:
        """The idempotency key rule, and no send after an operator's request."""
        world = self._world
        for cycle, accepted in world.provider.asked[self._asked :]:
            before = cycle - 1
            if world.protocol.state.owes_failed_acknowledgement and world.plan.undoes:
                yield f"cycle {cycle} was sent while a failed acknowledgement was owed"
            if cycle > 1 and not self._is_definitive(before):
                yield f"cycle {cycle} was sent, though cycle {before} may still succeed"
            told = world.provider.accepted[:accepted]
            is_told = any(
                (one.cycle, one.kind, one.is_known) == (cycle, FAILED, True) for one in told
            )
            if is_told and world.plan.undoes and not world.engine.is_rough:
                yield f"cycle {cycle} was sent under the key of a failed acknowledgement"
        self._asked = len(world.provider.asked)
        requests = world.protocol.state.operator_requests
        if world.engine.task is None and (requests.cancelled or requests.forced):
            waiting = [one for one in world.engine.activities.values() if one.is_queued]
            if any(one.options.name == names.SEND for one in waiting):
                yield "something may still be sent after a cancel or a force"
        for ticket in world.engine.replica.locals:
            if ticket.number not in self._known and _sends(ticket.options.argument):
                self._known.add(ticket.number)
                yield from self._may_start(ticket)

    def _may_start(self, ticket: Ticket) -> Iterator[str]:
        requests = self._world.protocol.state.operator_requests
        if requests.cancelled or requests.forced:
            yield f"{ticket.options.name} was asked for after a cancel or a force"

    def _is_definitive(self, cycle: int) -> bool:
        """The provider has refused or failed a cycle, or it has accepted that it is called off."""
        world = self._world
        is_called_off = world.plan.undoes and world.provider.has_accepted(cycle, FAILED)
        is_refused = cycle in world.provider.refused
        return is_called_off or is_refused or self._has_failed(cycle)

    def _has_failed(self, cycle: int) -> bool:
        """Whether the call has received a failure of a cycle."""
        return any(
            one.kind is MessageKind.FAILURE
            and (about := self._world.sent_by_provider.get(one.event_key))
            and (about[1] in (cycle, None) or one.reference is None)
            for one in self._world.received()
        )

    def _acknowledgements_are_true(self) -> Iterator[str]:
        provider = self._world.provider
        for index in range(self._accepted, len(provider.accepted)):
            new, before = provider.accepted[index], provider.accepted[:index]
            if new.kind is SUCCESS:
                yield from self._success_is_true(new, before)
            elif any(one.kind is SUCCESS and one.cycle == new.cycle for one in before):
                yield f"cycle {new.cycle} is acknowledged as failed after its success"
            elif new.cycle not in self._scheduled():
                yield f"cycle {new.cycle} is acknowledged as failed, though it was never sent"
        self._accepted = len(provider.accepted)

    def _scheduled(self) -> set[int]:
        """Cycles whose request was handed to workers; what was interrupted may have been sent."""
        engine = self._world.engine
        commands = [
            command
            for task in engine.tasks
            for command in task.commands
            if command[0] == "activity"
        ]
        steps = [options.argument for _, _, options in commands]
        steps += [ticket.options.argument for ticket in engine.replica.tickets.values()]
        lost = {1} if self._world.ledger.claims > 1 and self._world.plan.send.local else set()
        along = {1 for step in steps if isinstance(step, PrepareStep) and step.sends}
        return lost | along | {step.cycle for step in steps if isinstance(step, SendStep)}

    def _success_is_true(
        self, new: Acknowledgement, before: list[Acknowledgement]
    ) -> Iterator[str]:
        response = self._world.ledger.response
        if response is None:
            yield "a success is acknowledged before the response is recorded"
            return
        if response.cycle != new.cycle:
            yield f"cycle {new.cycle} is acknowledged, the response is that of {response.cycle}"
        named = response.message.reference
        if named is not None and new.reference is not None and named != new.reference:
            yield f"the response names {named}, the acknowledgement {new.reference}"
        was_failed = any(one.kind is FAILED and one.cycle == new.cycle for one in before)
        is_stated = response.outcome.forced or response.outcome.settled
        # Work that a failed acknowledgement does not undo is asked for again under its key.
        if was_failed and self._world.plan.undoes and not (response.outcome.late or is_stated):
            yield "a success follows a failed acknowledgement, and the response is not late"

    def _one_end(self) -> Iterator[str]:
        world = self._world
        known = [one for one in world.ledger.outcomes if one.effect is not Effect.UNKNOWN]
        ends = {outcome.status for outcome in known}
        if len(ends) > 1:
            yield f"the ledger was told several ends: {sorted(ends)}"
        if not world.plan.repeatable and any(n > 1 for n in world.provider.arrived.values()):
            yield "a request that may not be repeated has arrived more than once"
        stands = world.ledger.response
        outcome = world.protocol.state.outcome
        if world.protocol.state.is_reconciling:
            return
        if stands is not None and outcome and outcome.status is not OutcomeStatus.COMPLETED:
            yield f"a response is recorded, and the call is {outcome.status}"

    # At the end

    def _finally(self) -> Iterator[str]:
        world = self._world
        if not world.engine.is_closed:
            yield "the call is not over"
        if isinstance(world.ended, StepError):
            if world.provider.asked:
                yield "a refused call was sent"
            return
        outcome = world.outcome
        if outcome is None:
            yield "the call has ended without an outcome"
            return
        yield from self._outcome_is_true(outcome)
        yield from self._effect_is_true(outcome)
        yield from self._everything_sent_is_acknowledged(outcome)
        yield from self._nothing_heard_is_dropped()

    def _outcome_is_true(self, outcome: CallOutcome) -> Iterator[str]:
        world = self._world
        response = world.ledger.response
        is_completed = outcome.status is OutcomeStatus.COMPLETED
        if is_completed is (response is None):
            yield f"the call is {outcome.status}, and the recorded response is {response}"
        if not is_completed and (outcome.notice is None or outcome.reason is None):
            yield "the caller is left without the response and without a notice or a reason"
        if (outcome.cancelled is not None) is not (outcome.status is OutcomeStatus.CANCELLED):
            yield "who cancelled, and whether it was, do not agree"
        owed = len(world.protocol.state.pending_acknowledgements)
        if outcome.acknowledgement_owed is not (owed > 0):
            yield "the outcome does not tell what is owed"
        tried = world.tried
        # The engine does not report an attempt that an operator or a message has interrupted.
        is_exact = not world.engine.is_rough and not world.engine.is_cancelled
        if outcome.attempts > tried or (is_exact and outcome.attempts < tried):
            yield f"the outcome tells of {outcome.attempts} attempts, there were {tried}"
        if outcome.cycles < max(world.provider.works, default=0):
            yield f"the outcome tells of {outcome.cycles} cycles, there were more"
        if world.ledger.outcomes and world.ledger.outcomes[-1].status is not outcome.status:
            yield "the ledger's outcome is another one"
        if world.ledger.outcomes and world.ledger.stage is not Stage(outcome.status):
            yield f"the call is {outcome.status}, and the ledger has it {world.ledger.stage}"
        if world.ledger.outcomes and (
            world.ledger.outcomes[-1].acknowledgement_owed is not outcome.acknowledgement_owed
        ):
            yield "the ledger does not tell what is owed"
        if is_completed and response is not None:
            yield from self._response_is_true(outcome)

    def _effect_is_true(self, outcome: CallOutcome) -> Iterator[str]:
        world = self._world
        said = [one for one in world.received() if one.kind is MessageKind.RESPONSE]
        is_stated = outcome.settled is not None or outcome.forced is not None
        is_said = said or world.ledger.response is not None
        if outcome.effect is Effect.DONE and not is_said and not is_stated:
            yield "the effect is done, and nobody has said so"
        if outcome.effect is Effect.NONE and outcome.settled is None:
            for cycle in world.provider.works:
                if not self._is_definitive(cycle):
                    yield f"the effect is none, and the provider works on cycle {cycle}"
        if outcome.status is OutcomeStatus.COMPLETED:
            return
        if outcome.code is None or outcome.notice is None:
            yield "an end without success has no code or no notice"
        elif outcome.notice.kind != notice_kind(outcome.code, outcome.effect):
            yield f"{outcome.code} with effect {outcome.effect} shows {outcome.notice.kind}"
        if world.provider.works and world.plan.mode is not ResponseMode.SYNC:
            yield from self._nothing_was_overlooked()

    def _is_planned(self) -> bool:
        """Whether the call has a plan; without one it can tell the provider nothing."""
        tickets = self._world.engine.replica.tickets.values()
        is_continued = bool(self._world.engine.finished)
        return is_continued or any(isinstance(one.end, Prepared) for one in tickets)

    def _nothing_was_overlooked(self) -> Iterator[str]:
        """A call that sent something has looked at its inbox before it ended."""
        tickets = self._world.engine.replica.tickets.values()
        names_of = [one.options.name for one in tickets]
        if self._world.engine.finished:
            return
        if self._is_planned() and names.LOOK_INBOX not in names_of:
            yield "the call has ended without a look at the inbox"

    def _response_is_true(self, outcome: CallOutcome) -> Iterator[str]:
        world, response = self._world, self._world.ledger.response
        if response is None:
            return
        if outcome.response != response.message.data:
            yield "the outcome's response is not the recorded one"
        is_forced = response.message.event_key.startswith("operator:")
        is_stated = outcome.forced is not None or outcome.settled is not None
        if is_stated is not is_forced:
            yield "whether it was forced is not what was recorded"
        cycles = world.protocol.state.cycles._all
        is_given_up = any(one.number == response.cycle and one.has_given_up for one in cycles)
        if is_given_up and not is_forced and world.plan.late is not LatePolicy.ACCEPT:
            yield f"a late response was accepted, and the operation says {world.plan.late}"
        if outcome.notice is not None:
            yield "a completed call has a notice"
        if (outcome.timings.acknowledged_at is None) is not outcome.acknowledgement_owed:
            acknowledges = world.plan.acknowledge is not None
            if acknowledges and any(one.kind is SUCCESS for one in world.provider.accepted):
                yield "when it was acknowledged does not agree with what is owed"

    def _everything_sent_is_acknowledged(self, outcome: CallOutcome) -> Iterator[str]:
        """Every request that the provider may be working on is answered, or the answer is owed."""
        world, plan = self._world, self._world.plan.acknowledge
        taken = world.ledger.response.cycle if world.ledger.response else None
        pending = world.protocol.state.pending_acknowledgements
        owed = {(one.step.cycle, one.step.kind) for one in pending}
        for cycle in world.provider.works:
            kind = SUCCESS if cycle == taken else FAILED
            is_due = plan is not None and (plan.on_success if kind is SUCCESS else plan.on_failed)
            is_settled = (cycle, kind) in owed | world.ledger.written_off
            is_done = world.provider.has_accepted(cycle, kind) or is_settled
            if is_due and not is_done and self._is_planned():
                yield f"cycle {cycle} is neither acknowledged as {kind}, nor is that owed"
            is_followed = kind is FAILED and cycle < max(world.provider.works)
            if not is_due and is_followed and not self._is_definitive(cycle):
                yield f"cycle {cycle} may have had an effect that nobody knows of"
        if plan is None and world.provider.accepted:
            yield "something was acknowledged that the operation does not acknowledge"

    def _nothing_heard_is_dropped(self) -> Iterator[str]:
        world = self._world
        if world.protocol.state.messages:
            yield "messages were received and never handled"
        times = Counter(one.event_key for one in world.received())
        kinds: dict[str, MessageKind] = {}
        for one in world.received():
            kinds.setdefault(one.event_key, one.kind)
        recorded = world.ledger.response.message.event_key if world.ledger.response else None
        for key, received in times.items():
            applied = key == recorded or kinds[key] is not MessageKind.RESPONSE
            if received - applied > world.ledger.logged[key]:
                yield f"{key} was received {received} times, and not all of them are logged"
        held = {one.event_key for one in world.ledger.held}
        if world.plan.late is LatePolicy.HOLD or world.ledger.response is None:
            yield from self._late_ones_are_held(held)

    def _late_ones_are_held(self, held: set[str]) -> Iterator[str]:
        """A call without a response holds every response that it received too late."""
        world = self._world
        if world.ledger.response is not None or world.plan.late is LatePolicy.IGNORE:
            return
        first: dict[str, MessageKind] = {}
        for one in world.received():
            if first.setdefault(one.event_key, one.kind) is not MessageKind.RESPONSE:
                continue
            if one.event_key not in held | world.ledger.others:
                yield f"the answer {one.event_key} was not applied, and is not held"


def _sends(step: Wire) -> bool:
    """Whether a step may send the request."""
    return isinstance(step, SendStep) or (isinstance(step, PrepareStep) and step.sends)


def _sent(ticket: Ticket) -> object:
    """What became of the request that an activity has sent, or may have; None: it was another."""
    if isinstance(ticket.end, Prepared):
        return ticket.end.sent
    return ticket.end if ticket.options.name == names.SEND else None
