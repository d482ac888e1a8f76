"""The two parties outside the call: a provider and a ledger. Each keeps its own record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.steps import (
    AcknowledgementKind,
    AcknowledgeStep,
    ConcludeStep,
    Recorded,
    RecordStep,
)


@dataclass
class Acknowledgement:
    """One that the provider has accepted, in the order in which they arrived.

    Attributes:
        is_known: the call has learned that it was accepted.
    """

    at: datetime
    cycle: int
    kind: AcknowledgementKind
    reference: str | None
    is_known: bool


@dataclass
class Provider:
    """Does each work once per key, and sends any message about it at any time.

    Attributes:
        works: by cycle, its own reference of the work it has taken.
        refused: cycles whose key it has refused.
        arrived: how often the request of each cycle has arrived and was taken.
        failed: cycles it has said to have failed, or was understood to.
        asked: of every request that was sent to it, whether it arrived or not, the cycle, and how
            many acknowledgements it had accepted by then.
        accepted: acknowledgements it has accepted.
        is_up: whether its API answers.
        acknowledging: what its acknowledgement API does: `accepts`, `down` or `refuses`.
        tells_reference: whether its receipt names the work.
        needs_reference: whether an acknowledgement is addressed by it.
    """

    tells_reference: bool = True
    needs_reference: bool = False
    is_up: bool = True
    acknowledging: str = "accepts"
    works: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    arrived: Counter[int] = field(default_factory=Counter)
    asked: list[tuple[int, int]] = field(default_factory=list)
    accepted: list[Acknowledgement] = field(default_factory=list)

    def take(self, cycle: int) -> str:
        """Take a request, or find that it has been taken before; its reference."""
        self.arrived[cycle] += 1
        return self.works.setdefault(cycle, f"r-{cycle}")

    def hear(self, at: datetime, step: AcknowledgeStep, *, is_known: bool) -> None:
        """Accept an acknowledgement."""
        self.accepted.append(Acknowledgement(at, step.cycle, step.kind, step.reference, is_known))

    def has_accepted(self, cycle: int, kind: AcknowledgementKind) -> bool:
        return any((one.cycle, one.kind) == (cycle, kind) for one in self.accepted)


@dataclass
class Ledger:
    """One call's rows, and the events of others.

    Attributes:
        response: the one that stands, with the cycle it belongs to.
        others: event keys that belong to other calls.
        logged: suppressed messages by event key.
        held: late messages kept whole.
        inbox: messages the engine could not be given.
        owed: acknowledgements it knows to be owed.
        written_off: those that an operator has written off.
        outcomes: every outcome that was written.
        claims: how often the call was prepared.
    """

    is_up: bool = True
    claims: int = 0
    stage: Stage | None = None
    response: RecordStep | None = None
    others: set[str] = field(default_factory=set)
    logged: Counter[str] = field(default_factory=Counter)
    held: list[ProviderMessage] = field(default_factory=list)
    inbox: list[ProviderMessage] = field(default_factory=list)
    owed: set[tuple[int, AcknowledgementKind]] = field(default_factory=set)
    written_off: set[tuple[int, AcknowledgementKind]] = field(default_factory=set)
    outcomes: list[CallOutcome] = field(default_factory=list)

    def claim(self) -> bool:
        """Claim the call; whether it was claimed before."""
        self.claims += 1
        return self.claims > 1

    def record(self, step: RecordStep) -> Recorded:
        """Write the response once; the same again changes nothing."""
        key = step.message.event_key
        if self.response is not None:
            if self.response.message.event_key == key:
                return Recorded(accepted=True)
            self.logged[key] += 1
            return Recorded(accepted=False, reason="the call has another response")
        if key in self.others:
            self.logged[key] += 1
            return Recorded(accepted=False, reason="the event was applied to another call already")
        self.response = step
        self.outcomes.append(step.outcome.model_copy(update={"response": step.message.data}))
        self.stage = Stage.ACKNOWLEDGING if step.outcome.acknowledgement_owed else Stage.COMPLETED
        return Recorded(accepted=True)

    def acknowledged(self, at: datetime, step: AcknowledgeStep) -> None:
        """The provider has accepted."""
        self.owed.discard((step.cycle, step.kind))
        if step.outcome is not None:
            timings = step.outcome.timings.model_copy(update={"acknowledged_at": at})
            paid = {"acknowledgement_owed": False, "timings": timings}
            self.outcomes.append(step.outcome.model_copy(update=paid))
            self.stage = Stage(OutcomeStatus(step.outcome.status))

    def conclude(self, step: ConcludeStep) -> None:
        """Keep where the call stands."""
        self.stage = step.stage
        self.logged.update(one.event_key for one in step.suppressed)
        self.written_off.update((one.cycle, one.kind) for one in step.written_off)
        self.held.extend(one for one in step.held if one not in self.held)
        if step.outcome is not None:
            self.outcomes.append(step.outcome)
