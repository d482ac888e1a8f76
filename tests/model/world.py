"""The world of one call: everything that may happen to it, as actions; and a trace of what did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.plan import Plan
from ackbridge.contracts.steps import SendStep
from ackbridge.contracts.wire import Wire
from workflows.call.protocol import CallProtocol

from .engine import Activity, Attempt, End, Engine
from .runtime import Resolved, Signal, Ticket
from .simulated_services import Ledger, Provider
from .workers import Luck, Workers

START = datetime(2026, 1, 1, tzinfo=UTC)

REQUEST = CallRequest(provider="acme", operation="order", key="k-1", payload={"amount": 5})


@dataclass(frozen=True)
class Facts:
    """What is drawn once for a whole example.

    Attributes:
        acknowledging: what the provider's acknowledgement API does at first, as in `Provider`.
        stays_down: it never comes back.
        is_batched: as in `Replica`.
        rides: whether the workers let a request ride along with its preparation, and an
            acknowledgement with the recording; those of an older version do not.
    """

    plan: Plan
    tells_reference: bool = True
    needs_reference: bool = False
    acknowledging: str = "accepts"
    stays_down: bool = False
    is_batched: bool = True
    rides: bool = True


class World:
    """One call, its engine, its workers, and the parties outside.

    Attributes:
        trace: what happened, one line each.
        in_flight: messages on their way.
        tried: attempts to send.
        told: every message the provider has said, by event key, with the cycle it is about.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.plan = facts.plan
        self.trace: list[str] = []
        self.provider = Provider(facts.tells_reference, facts.needs_reference)
        self.provider.acknowledging = facts.acknowledging
        self.ledger = Ledger()
        self.workers = Workers(self.provider, self.ledger, self.plan, lambda: self.engine.now)
        self.workers.says = self._answer
        self.workers.rides = facts.rides
        self.in_flight: list[ProviderMessage] = []
        self.told: dict[str, tuple[ProviderMessage, int | None]] = {}
        self.answering: str = "nothing"
        self.tried = 0
        self.engine = Engine(REQUEST, START, is_batched=facts.is_batched)
        self.engine.pump()

    # What can be looked at

    @property
    def protocol(self) -> CallProtocol:
        return self.engine.replica.protocol

    @property
    def ended(self) -> object:
        """How the call ended; None while it has not."""
        return self.engine.replica.ended if self.engine.is_closed else None

    @property
    def outcome(self) -> CallOutcome | None:
        return self.ended if isinstance(self.ended, CallOutcome) else None

    def waiting_for_work(self) -> list[Ticket | Activity]:
        """What a worker could take up now."""
        engine = self.engine
        local = [one for one in engine.replica.locals if one.number not in engine.locals]
        return [*local, *(one for one in engine.activities.values() if one.is_queued)]

    def heard(self) -> Iterator[ProviderMessage]:
        """Every message that was handed to the call, in history or in the task in hand."""
        for task in self.engine.tasks:
            resolved = [one for one in task.inputs if isinstance(one, Resolved)]
            for one in task.inputs:
                if isinstance(one, Signal) and isinstance(one.order, ProviderMessage):
                    yield one.order
            for done in (*resolved, *(result for _, result in task.results)):
                # A request that rode along with its preparation may have brought some.
                brought = getattr(done.end, "sent", None) or done.end
                yield from getattr(brought, "messages", ())
                message = getattr(done.end, "message", None)
                if isinstance(message, ProviderMessage):
                    yield message

    # What can happen

    def work(self, which: int, luck: Luck, pace: str = "at once") -> None:
        """A worker takes something up.

        Args:
            pace: `at once`; or `early` or `late`: it takes its time, and the effect comes at its
                beginning or its end.
        """
        waiting = self.waiting_for_work()
        if not waiting:
            return
        one = waiting[which % len(waiting)]
        if isinstance(one, Ticket):
            self._work_locally(one, luck, pace)
        else:
            self._work(one, luck, pace)

    def _work_locally(self, ticket: Ticket, luck: Luck, pace: str) -> None:
        options = ticket.options
        self._say(f"{options.name} #{ticket.number} (local): {luck}, {pace}", options.argument)
        if luck.kills:
            self._perform(options.argument, luck, 1)
            self.crash()
            return
        attempt = self._attempt(options.argument, luck, pace, 1, options.timeout)
        if pace == "at once":
            self.engine.end_local(ticket.number, attempt.finish())
        else:
            self.engine.locals[ticket.number] = attempt

    def _work(self, activity: Activity, luck: Luck, pace: str) -> None:
        engine, options = self.engine, activity.options
        what = f"{options.name} #{activity.number}, attempt {activity.attempt}: {luck}, {pace}"
        self._say(what, options.argument)
        attempt = self._attempt(options.argument, luck, pace, activity.attempt, options.timeout)
        engine.begin(activity, attempt)
        if luck.kills:
            end = attempt.finish()
            activity.running = Attempt(engine.now + options.timeout, lambda: end)
        elif pace == "at once":
            engine.end(activity)

    def _attempt(
        self, argument: Wire, luck: Luck, pace: str, number: int, timeout: timedelta
    ) -> Attempt:
        began = self.engine.now
        ends_at = began + timeout / 2
        if pace == "late":
            return Attempt(ends_at, lambda: self._perform(argument, luck, number, began))
        end = self._perform(argument, luck, number, began)
        return Attempt(ends_at, lambda: end)

    def _perform(
        self, argument: Wire, luck: Luck, number: int, began: datetime | None = None
    ) -> End:
        self.engine.is_rough |= luck.kills
        asked = len(self.provider.asked)
        end = self.workers.attempt(argument, luck, began or self.engine.now, number)
        self.tried += len(self.provider.asked) - asked or isinstance(argument, SendStep)
        return end

    def finish(self, which: int) -> None:
        """An attempt that took its time ends now."""
        engine = self.engine
        slow = [one for one in engine.activities.values() if one.running]
        running: list[Activity | int] = [*slow, *engine.locals]
        if not running:
            return
        one = running[which % len(running)]
        self._say(f"ends: #{one if isinstance(one, int) else one.number}")
        if isinstance(one, int):
            engine.end_local(one, engine.locals.pop(one).finish())
        else:
            engine.end(one)

    def speak(self, message: ProviderMessage, cycle: int | None, route: str) -> None:
        """The provider says something.

        Args:
            cycle: which of its works it is about, if any.
            route: `signal`, `soon` (with whatever comes next), `inbox` or `later`.
        """
        self._say(f"the provider says ({route}, about {cycle})", message)
        self.told.setdefault(message.event_key, (message, cycle))
        if route == "later":
            self.in_flight.append(message)
        elif route == "inbox" or self.engine.is_closed:
            self.ledger.inbox.append(message)
        else:
            self.tell(Signal("receive", message), soon=route == "soon")

    def deliver(self, which: int) -> None:
        """A message that was on its way arrives."""
        if self.in_flight:
            message = self.in_flight.pop(which % len(self.in_flight))
            self._say("arrives", message)
            self.tell(Signal("receive", message))

    def tell(self, signal: Signal, *, soon: bool = False) -> None:
        """Somebody tells the call something."""
        if not isinstance(signal.order, ProviderMessage):
            self._say(f"order {signal.name}", signal.order)
        if self.engine.is_closed:
            if isinstance(signal.order, ProviderMessage):
                self.ledger.inbox.append(signal.order)
            return
        self.engine.tell(signal)
        if not soon:
            self.engine.keep_alive()
            self.engine.pump()

    def advance(self, by: timedelta | None) -> None:
        """Time passes; None: until something happens by itself."""
        due = self.engine.next_due()
        if by is None and due is None:
            return
        until = self.engine.now + by if by is not None else due
        self._say(f"time passes: {by or 'to the next event'}")
        self.engine.advance(until or self.engine.now)

    def change(self, part: str, answering: str) -> None:
        """A party stops or starts working, and the provider answers questions otherwise."""
        self.answering = answering
        if part == "provider":
            self.provider.is_up = not self.provider.is_up
        elif part == "ledger":
            self.ledger.is_up = not self.ledger.is_up
        else:
            ways = ("accepts", "down", "refuses")
            self.provider.acknowledging = ways[(ways.index(self.provider.acknowledging) + 1) % 3]
        self._say(
            f"provider up: {self.provider.is_up}, ledger up: {self.ledger.is_up},"
            f" acknowledgement API {self.provider.acknowledging}, asked it says {answering}"
        )

    def wear_out(self) -> None:
        """The history is long, and somebody asks for the status."""
        self._say("the history is long")
        self.engine.is_worn = True
        self.engine.nudge()

    def crash(self) -> None:
        """The worker dies, and another one takes the call up."""
        self._say("the worker dies")
        self.engine.crash()

    def settle(self, check: Callable[[], None]) -> None:
        """Everything works again, nothing new happens, until nothing moves any more."""
        self._say("the world settles")
        self.provider.is_up = self.ledger.is_up = True
        self.provider.acknowledging = "down" if self.facts.stays_down else "accepts"
        while self.in_flight:
            self.deliver(0)
        self.engine.pump()
        for _ in range(5000):
            if self.engine.is_closed and not self.engine.orphans:
                return
            self.stride()
            check()
        raise AssertionError("the call does not come to an end")

    def stride(self) -> None:
        """The next thing that happens when nothing goes wrong."""
        if self.waiting_for_work():
            self.work(0, Luck.GOOD)
        elif self.engine.next_due() is not None:
            self.advance(None)
        else:
            raise AssertionError("the call hangs: nothing is under way, and no timer runs")

    def _answer(self, cycle: int, event_key: str) -> ProviderMessage | None:
        """What the provider answers when it is asked."""
        if self.answering == "nothing":
            return None
        kind = MessageKind(self.answering)
        message = ProviderMessage(
            kind=kind,
            event_key=f"{event_key}:{kind}",
            data={"asked": cycle} if kind is MessageKind.RESPONSE else None,
            retryable=True,
            extend_by=timedelta(seconds=40) if kind is MessageKind.EXTENSION else None,
            source=MessageSource.STATUS,
        )
        self.told.setdefault(message.event_key, (message, cycle))
        return message

    def _say(self, what: str, about: Wire | None = None) -> None:
        since = (self.engine.now - START).total_seconds() if self.trace else 0
        self.trace.append(f"{since:10.1f} s  {what}{_brief(about)}")


def _brief(about: Any) -> str:
    if about is None:
        return ""
    shown = ("cycle", "kind", "event_key", "reference", "retryable", "response", "stage", "reason")
    told = about.model_dump(mode="json", exclude_defaults=True)
    return " " + ", ".join(f"{name}={told[name]}" for name in shown if name in told)
