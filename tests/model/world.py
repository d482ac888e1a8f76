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
from .workers import AttemptResult, Workers

START = datetime(2026, 1, 1, tzinfo=UTC)

REQUEST = CallRequest(provider="acme", operation="order", key="k-1", payload={"amount": 5})


@dataclass(frozen=True)
class Setting:
    """What is drawn once for a whole example.

    Attributes:
        acknowledging: what the provider's acknowledgement API does at first, as in `Provider`.
        stays_down: it never comes back.
        is_batched, is_hosted: as in `Replica`; the next run has a workflow of its own.
        combines: whether workers send with `prepare` and acknowledge with `record`.
    """

    plan: Plan
    tells_reference: bool = True
    needs_reference: bool = False
    acknowledging: str = "accepts"
    stays_down: bool = False
    is_batched: bool = True
    is_hosted: bool = False
    combines: bool = True


class World:
    """One call, its engine, its workers, and the parties outside.

    Attributes:
        trace: what happened, one line each.
        in_flight: messages on their way.
        tried: attempts to send.
        sent_by_provider: all its messages by event key, with the cycle each is about.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.plan = setting.plan
        self.trace: list[str] = []
        self.provider = Provider(setting.tells_reference, setting.needs_reference)
        self.provider.acknowledging = setting.acknowledging
        self.ledger = Ledger()
        self.workers = Workers(self.provider, self.ledger, self.plan, lambda: self.engine.now)
        self.workers.status_answer = self._reply_to_status
        self.workers.combines = setting.combines
        self.in_flight: list[ProviderMessage] = []
        self.sent_by_provider: dict[str, tuple[ProviderMessage, int | None]] = {}
        self.status_reply: str = "nothing"
        self.tried = 0
        self.engine = Engine(
            REQUEST, START, is_batched=setting.is_batched, is_hosted=setting.is_hosted
        )
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

    def received(self) -> Iterator[ProviderMessage]:
        """Every message that was handed to the call, in history or in the task in hand."""
        for task in self.engine.tasks:
            resolved = [one for one in task.inputs if isinstance(one, Resolved)]
            for one in task.inputs:
                if isinstance(one, Signal) and isinstance(one.argument, ProviderMessage):
                    yield one.argument
            for done in (*resolved, *(result for _, result in task.results)):
                # A request that rode along with its preparation may have brought some.
                brought = getattr(done.end, "sent", None) or done.end
                yield from getattr(brought, "messages", ())
                message = getattr(done.end, "message", None)
                if isinstance(message, ProviderMessage):
                    yield message

    # What can happen

    def work(self, which: int, result: AttemptResult, pace: str = "at once") -> None:
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
            self._work_locally(one, result, pace)
        else:
            self._work(one, result, pace)

    def _work_locally(self, ticket: Ticket, result: AttemptResult, pace: str) -> None:
        options = ticket.options
        self._log(f"{options.name} #{ticket.number} (local): {result}, {pace}", options.argument)
        if result.kills:
            self._perform(options.argument, result, 1)
            self.crash()
            return
        attempt = self._attempt(options.argument, result, pace, 1, options.timeout)
        if pace == "at once":
            self.engine.end_local(ticket.number, attempt.finish())
        else:
            self.engine.locals[ticket.number] = attempt

    def _work(self, activity: Activity, result: AttemptResult, pace: str) -> None:
        engine, options = self.engine, activity.options
        what = f"{options.name} #{activity.number}, attempt {activity.attempt}: {result}, {pace}"
        self._log(what, options.argument)
        attempt = self._attempt(options.argument, result, pace, activity.attempt, options.timeout)
        engine.begin(activity, attempt)
        if result.kills:
            end = attempt.finish()
            activity.running = Attempt(engine.now + options.timeout, lambda: end)
        elif pace == "at once":
            engine.end(activity)

    def _attempt(
        self, argument: Wire, result: AttemptResult, pace: str, number: int, timeout: timedelta
    ) -> Attempt:
        began = self.engine.now
        ends_at = began + timeout / 2
        if pace == "late":
            return Attempt(ends_at, lambda: self._perform(argument, result, number, began))
        end = self._perform(argument, result, number, began)
        return Attempt(ends_at, lambda: end)

    def _perform(
        self, argument: Wire, result: AttemptResult, number: int, began: datetime | None = None
    ) -> End:
        self.engine.is_rough |= result.kills
        asked = len(self.provider.asked)
        end = self.workers.attempt(argument, result, began or self.engine.now, number)
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
        self._log(f"ends: #{one if isinstance(one, int) else one.number}")
        if isinstance(one, int):
            engine.end_local(one, engine.locals.pop(one).finish())
        else:
            engine.end(one)

    def provider_sends(self, message: ProviderMessage, cycle: int | None, route: str) -> None:
        """The provider sends a message.

        Args:
            cycle: which of its works it is about, if any.
            route: `signal`, `soon` (with whatever comes next), `inbox` or `later`.
        """
        self._log(f"the provider sends ({route}, about {cycle})", message)
        self.sent_by_provider.setdefault(message.event_key, (message, cycle))
        if route == "later":
            self.in_flight.append(message)
        elif route == "inbox" or self.engine.is_closed:
            self.ledger.inbox.append(message)
        else:
            self.signal(Signal("receive", message), soon=route == "soon")

    def deliver(self, which: int) -> None:
        """A message that was on its way arrives."""
        if self.in_flight:
            message = self.in_flight.pop(which % len(self.in_flight))
            self._log("arrives", message)
            self.signal(Signal("receive", message))

    def signal(self, signal: Signal, *, soon: bool = False) -> None:
        """Signal the call."""
        if not isinstance(signal.argument, ProviderMessage):
            self._log(f"operator: {signal.name}", signal.argument)
        if self.engine.is_closed:
            if isinstance(signal.argument, ProviderMessage):
                self.ledger.inbox.append(signal.argument)
            return
        self.engine.signal(signal)
        if not soon:
            self.engine.heartbeat_task()
            self.engine.pump()

    def advance(self, by: timedelta | None) -> None:
        """Time passes; None: until something happens by itself."""
        due = self.engine.next_due()
        if by is None and due is None:
            return
        until = self.engine.now + by if by is not None else due
        self._log(f"time passes: {by or 'to the next event'}")
        self.engine.advance(until or self.engine.now)

    def change(self, part: str, status_reply: str) -> None:
        """A party stops or starts working, and the provider answers questions otherwise."""
        self.status_reply = status_reply
        if part == "provider":
            self.provider.is_up = not self.provider.is_up
        elif part == "ledger":
            self.ledger.is_up = not self.ledger.is_up
        else:
            ways = ("accepts", "down", "refuses")
            self.provider.acknowledging = ways[(ways.index(self.provider.acknowledging) + 1) % 3]
        self._log(
            f"provider up: {self.provider.is_up}, ledger up: {self.ledger.is_up},"
            f" acknowledgement API {self.provider.acknowledging}, status: {status_reply}"
        )

    def suggest_continue_as_new(self) -> None:
        """The history is long, and somebody asks for the status."""
        self._log("the history is long")
        self.engine.suggests_continue_as_new = True
        self.engine.open_task()

    def crash(self) -> None:
        """The worker dies, and another one takes the call up."""
        self._log("the worker dies")
        self.engine.crash()

    def settle(self, check: Callable[[], None]) -> None:
        """Everything works again, nothing new happens, until nothing moves any more."""
        self._log("the world settles")
        self.provider.is_up = self.ledger.is_up = True
        self.provider.acknowledging = "down" if self.setting.stays_down else "accepts"
        while self.in_flight:
            self.deliver(0)
        self.engine.pump()
        for _ in range(5000):
            if self.engine.is_closed and not self.engine.orphans:
                return
            self.proceed()
            check()
        raise AssertionError("the call does not come to an end")

    def proceed(self) -> None:
        """The next thing that happens when nothing goes wrong."""
        if self.waiting_for_work():
            self.work(0, AttemptResult.GOOD)
        elif self.engine.next_due() is not None:
            self.advance(None)
        else:
            raise AssertionError("the call hangs: nothing is under way, and no timer runs")

    def _reply_to_status(self, cycle: int, event_key: str) -> ProviderMessage | None:
        """What the provider answers when it is asked."""
        if self.status_reply == "nothing":
            return None
        kind = MessageKind(self.status_reply)
        message = ProviderMessage(
            kind=kind,
            event_key=f"{event_key}:{kind}",
            data={"asked": cycle} if kind is MessageKind.RESPONSE else None,
            retryable=True,
            extend_by=timedelta(seconds=40) if kind is MessageKind.EXTENSION else None,
            source=MessageSource.STATUS,
        )
        self.sent_by_provider.setdefault(message.event_key, (message, cycle))
        return message

    def _log(self, what: str, about: Wire | None = None) -> None:
        since = (self.engine.now - START).total_seconds() if self.trace else 0
        self.trace.append(f"{since:10.1f} s  {what}{_brief(about)}")


def _brief(about: Any) -> str:
    if about is None:
        return ""
    shown = ("cycle", "kind", "event_key", "reference", "retryable", "response", "stage", "reason")
    fields = about.model_dump(mode="json", exclude_defaults=True)
    return " " + ", ".join(f"{name}={fields[name]}" for name in shown if name in fields)
