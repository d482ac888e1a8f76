"""One call, played step by step, with every invariant looked at on the way."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ackbridge.contracts.calls import CallOutcome, CallStatus
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.notices import DEFAULT_NOTICES
from ackbridge.contracts.plan import (
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    OnFailure,
    Plan,
    ResponseMode,
    SendPlan,
)
from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess

from .invariants import Invariants
from .runtime import Signal, simulated_sdk
from .workers import AttemptResult
from .world import Setting, World

RESPONSE, FAILURE, EXTENSION = MessageKind.RESPONSE, MessageKind.FAILURE, MessageKind.EXTENSION


def plan(**changes: Any) -> Plan:
    """Two cycles of 10 s, both acknowledgements, parking for an hour; sent in the workflow task."""
    planned = Plan(
        revision=REVISION,
        reprocess_attempts=100,
        mode=ResponseMode.CALLBACK,
        send=SendPlan(
            local=True,
            timeout=timedelta(seconds=5),
            attempts=2,
            within=timedelta(minutes=2),
            queue_within=timedelta(minutes=1),
        ),
        deadline=timedelta(seconds=10),
        deadline_reason="configured",
        ceiling=timedelta(minutes=1),
        acknowledge=AcknowledgePlan(
            timeout=timedelta(seconds=5),
            within=timedelta(minutes=30),
            on_success=True,
            on_failed=True,
        ),
        cycles=2,
        on_failure=OnFailure.PARK,
        late=LatePolicy.ACCEPT,
        parked_for=timedelta(hours=1),
        notices=DEFAULT_NOTICES,
    )
    return planned.model_copy(update=changes)


QUEUED = plan().send.model_copy(update={"local": False})
ONLY_SUCCESS = AcknowledgePlan(
    timeout=timedelta(seconds=5), within=timedelta(minutes=30), on_success=True, on_failed=False
)


class Scenario:
    """A world that is checked at every turn."""

    def __init__(self, setting: Setting) -> None:
        self.world = World(setting)
        self._watch = Invariants(self.world)

    @property
    def status(self) -> CallStatus:
        return self.world.protocol.state.status()

    @property
    def outcome(self) -> CallOutcome:
        """How the call ended."""
        assert self.world.outcome is not None
        return self.world.outcome

    @property
    def accepted(self) -> list[tuple[int, str]]:
        """(cycle, kind) of the acknowledgements that the provider has accepted."""
        return [(one.cycle, str(one.kind)) for one in self.world.provider.accepted]

    @property
    def sent(self) -> list[int]:
        """The cycle of every request that was sent."""
        return [cycle for cycle, _ in self.world.provider.asked]

    def work(
        self, result: AttemptResult = AttemptResult.GOOD, pace: str = "at once", which: int = 0
    ) -> None:
        self.world.work(which, result, pace)
        self._watch.check()

    def go(self, strides: int) -> None:
        """So many things happen as they should."""
        for _ in range(strides):
            self.world.proceed()
            self._watch.check()

    def provider_sends(
        self, kind: MessageKind, about: int | None = None, route: str = "signal", **fields: Any
    ) -> None:
        """The provider speaks, of one of its works by name or of none."""
        key = fields.pop("event_key", f"e{len(self.world.sent_by_provider) + 1}")
        if kind is EXTENSION:
            fields.setdefault("extend_by", timedelta(seconds=40))
        reference = None if about is None else f"r-{about}"
        message = ProviderMessage(
            kind=kind,
            event_key=key,
            reference=reference,
            data={"event": key} if kind is RESPONSE else None,
            source=MessageSource.CALLBACK,
            **fields,
        )
        self.world.provider_sends(message, about, route)
        self._watch.check()

    def operator(self, name: str, *, soon: bool = False) -> None:
        requests = {
            "cancel": Cancel(by="ann", reason="by mistake"),
            "force_ack": ForceAck(by="bo", reason="seen", response={"forced": True}),
            "reprocess": Reprocess(by="batch"),
        }
        self.world.signal(Signal(name, requests[name]), soon=soon)
        self._watch.check()

    def pass_time(self, seconds: float | None = None) -> None:
        """Let time pass, or something happen by itself."""
        self.world.advance(None if seconds is None else timedelta(seconds=seconds))
        self._watch.check()

    def crash(self) -> None:
        self.world.crash()
        self._watch.check()

    def end(self) -> None:
        """Let the world settle, and look at everything."""
        self.world.settle(self._watch.check)
        self._watch.check_end()


@contextmanager
def running(setting: Setting) -> Generator[Scenario, None, None]:
    """Start a scenario, and discard its call afterwards."""
    with simulated_sdk():
        scenario = Scenario(setting)
        try:
            yield scenario
        finally:
            scenario.world.engine.replica.close()


def setting_of(**changes: Any) -> Setting:
    """Of a world as usual, but for the plan's changes; every step of a call is one of its own."""
    return Setting(plan=plan(**changes), combines=False)
