"""Everything that the parts of one call's protocol share once there is a plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from temporalio import workflow

from workflows.hosting.host import Host

from .acknowledgements import Acknowledgements
from .cycles import Cycle, Cycles
from .messages import Messages
from .notifications import Notifications
from .operator_requests import OperatorRequests
from .progress import Progress

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallRequest, Stage
    from ackbridge.contracts.messages import ProviderMessage
    from ackbridge.contracts.plan import Plan


@dataclass(frozen=True)
class CallState:
    """One call with its plan: what it was asked, where it is, what it has heard and owes."""

    host: Host
    request: CallRequest
    plan: Plan
    progress: Progress
    hearing: Messages
    orders: OperatorRequests
    cycles: Cycles
    settlement: Acknowledgements
    telling: Notifications

    def enter(self, stage: Stage) -> None:
        """The call has got to another stage."""
        self.progress.enter(stage)
        self.show()

    def show(self) -> None:
        """Tell whoever looks."""
        self.host.show(self.progress.status(self.settlement.owed, self.hearing.duplicates))

    @property
    def is_revised(self) -> bool:
        """Whether the call was not planned by an older worker, and may do what that did not."""
        return self.plan.is_revised

    @property
    def is_roused(self) -> bool:
        """Whether there is something to deal with."""
        return bool(self.hearing) or self.orders.interrupt

    def heard_at(self, message: ProviderMessage, cycle: Cycle) -> datetime:
        """When a message about a cycle came, in the host's clock where the gateway's differs."""
        now, said = self.host.now(), message.received_at
        is_plausible = said is not None and (cycle.sent_at or now) <= said <= now
        return said if said is not None and is_plausible else now

    def spoken_of(self, message: ProviderMessage) -> Cycle:
        """The cycle a message is about; it may tell a reference that no receipt has told."""
        if message.event_key == self.orders.forced_key(self.request.call_id):
            return self.cycles.last_sent
        cycle = self.cycles.spoken_of(message)
        if message.reference is not None and cycle.was_sent and cycle.reference is None:
            cycle.reference = message.reference
            self.settlement.learn(cycle.number, message.reference)
        return cycle
