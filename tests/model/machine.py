"""Random interleavings of everything that may happen to a call."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess, Resolve, WriteOff

from .invariants import InvariantError, Invariants
from .plans import setting
from .runtime import Signal, simulated_sdk
from .workers import AttemptResult
from .world import Setting, World

WHICH = st.integers(0, 3)
OPERATOR_REQUESTS = st.sampled_from(
    [
        *[Signal("reprocess", Reprocess(by="batch"))] * 4,
        Signal("cancel", Cancel(by="ann", reason="by mistake")),
        Signal("force_ack", ForceAck(by="bo", reason="seen")),
        Signal("force_ack", ForceAck(by="bo", reason="seen", response={"forced": True})),
        Signal("resolve", Resolve.model_validate({"by": "cy", "reason": "asked", "as": "done"})),
        Signal("resolve", Resolve.model_validate({"by": "cy", "reason": "asked", "as": "none"})),
        Signal("write_off", WriteOff(by="di", reason="closed", cycle=1)),
    ]
)
TURNS = st.sampled_from(
    ["ends", "ends", "arrives", "dies", "wears out", "provider", "ledger", "acknowledging"]
)
RESULTS = st.sampled_from(
    [AttemptResult.GOOD, AttemptResult.GOOD, AttemptResult.GOOD, *AttemptResult]
)
PACE = st.sampled_from(["at once", "at once", "early", "late"])
ROUTE = st.sampled_from(["signal", "signal", "signal", "soon", "later", "inbox"])
KINDS = st.sampled_from([MessageKind.RESPONSE, *MessageKind])
ANSWERS = st.sampled_from(["nothing", *MessageKind])


class CallMachine(RuleBasedStateMachine):
    """One call; every rule is something that may happen to it."""

    world: World
    watch: Invariants

    @initialize(given=setting(), status_reply=ANSWERS)
    def begin(self, given: Setting, status_reply: str) -> None:
        self._sdk = simulated_sdk()
        self._sdk.__enter__()
        self.world = World(given)
        self.world.status_reply = str(status_reply)
        self.watch = Invariants(self.world)

    @rule(strides=st.integers(1, 6))
    def nothing_goes_wrong(self, strides: int) -> None:
        for _ in range(strides):
            if not self.world.engine.is_closed:
                self.world.proceed()
                self.watch.check()

    @rule(which=WHICH, result=RESULTS, pace=PACE)
    def work(self, which: int, result: AttemptResult, pace: str) -> None:
        self.world.work(which, result, pace)

    @rule(
        about=WHICH,
        kind=KINDS,
        named=st.booleans(),
        retryable=st.booleans(),
        seconds=st.sampled_from([5, 40, 600]),
        key=st.sampled_from(["new"] * 5 + ["again", "changed", "another call's"]),
        route=ROUTE,
    )
    def provider_sends(
        self,
        about: int,
        kind: MessageKind,
        named: bool,
        retryable: bool,
        seconds: int,
        key: str,
        route: str,
    ) -> None:
        world = self.world
        # A provider cannot know the keys that we give to its answers.
        sent_by_provider = [
            one for key, one in world.sent_by_provider.items() if key.startswith("e")
        ]
        if key == "again" and sent_by_provider:
            message, cycle = sent_by_provider[about % len(sent_by_provider)]
            world.provider_sends(message, cycle, route)
            return
        event_key = f"e{len(world.sent_by_provider) + 1}"
        if key == "changed" and sent_by_provider:
            event_key = sent_by_provider[about % len(sent_by_provider)][0].event_key
        if key == "another call's":
            world.ledger.others.add(event_key)
        works = sorted(world.provider.works)
        cycle = works[about % len(works)] if works else None
        message = ProviderMessage(
            kind=kind,
            event_key=event_key,
            data={"event": event_key} if kind is MessageKind.RESPONSE else None,
            reason="it said so" if kind is MessageKind.FAILURE else None,
            retryable=retryable,
            extend_by=timedelta(seconds=seconds) if kind is MessageKind.EXTENSION else None,
            reference=world.provider.works[cycle] if cycle is not None and named else None,
            source=MessageSource.CALLBACK,
        )
        world.provider_sends(message, cycle, route)

    @rule(request=OPERATOR_REQUESTS, soon=st.booleans())
    def operator(self, request: Signal, soon: bool) -> None:
        self.world.signal(request, soon=soon)

    @rule(by=st.sampled_from([None, None, None, 1, 7, 45, 1000, 90000]))
    def time_passes(self, by: int | None) -> None:
        self.world.advance(None if by is None else timedelta(seconds=by))

    @rule(what=TURNS, which=WHICH, answers=ANSWERS)
    def something_turns(self, what: str, which: int, answers: str) -> None:
        world = self.world
        if what == "ends":
            world.finish(which)
        elif what == "arrives":
            world.deliver(which)
        elif what == "dies":
            world.crash()
        elif what == "wears out":
            world.suggest_continue_as_new()
        else:
            world.change(what, str(answers))

    @invariant()
    def holds(self) -> None:
        self.watch.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._finish()
        finally:
            self.world.engine.replica.close()
            self._sdk.__exit__(None, None, None)

    def _finish(self) -> None:
        try:
            self.world.settle(self.watch.check)
        except AssertionError as error:
            raise InvariantError("\n".join([str(error), "", *self.world.trace])) from error
        self.watch.check_end()
