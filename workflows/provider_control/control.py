"""The control of one provider, whatever hosts it: what it is told, what it keeps, what it shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.breaker import (
        BreakerState,
        BreakerStatus,
        ForceBreaker,
        LimitOverride,
        MonitorState,
        SendRate,
        SetLimit,
    )
    from ackbridge.contracts.control import (
        MAX_CHANGES,
        WHOLE_PROVIDER,
        ControlChange,
        ControlDecision,
        ControlSnapshot,
        ControlStart,
        ControlState,
        ControlStatus,
        FlagOverride,
        IntegrationFlags,
        ObserveStep,
        SetFlag,
    )
    from ackbridge.contracts.wire import InvalidInputError
    from ackbridge.errors import unknown_name

INTEGRATION_FILE = "the integration file"
"""Who changes what no operator has changed."""

MOST_ENVIRONMENTS = 50
"""Environments with an operator's word; the snapshot has to stay small."""


class Control:
    """Flags, breaker and learned deadlines of one provider.

    Attributes:
        snapshot: what workers see.
        last_error: the last thing that was wrong with something it was sent.
        orders: how many there were that a watch has to know of.
        is_drain_due: the breaker has closed, and nobody has taken up yet what is parked.
    """

    def __init__(
        self,
        start: ControlStart,
        memory: ControlState | None,
        clock: Callable[[], datetime],
        publish: Callable[[], None],
    ) -> None:
        """Take a control up.

        Args:
            memory: of the run that this one continues.
            clock: the host's clock.
            publish: called whenever there is something new to see.
        """
        self._now = clock
        self._publish = publish
        self.last_error: str | None = None
        self.orders = 0
        self.is_drain_due = False
        self._watch = MonitorState()
        self._changes: tuple[ControlChange, ...] = ()
        if memory is not None:
            self._watch = memory.watch
            self.is_drain_due = memory.is_drain_due
            self.snapshot = memory.snapshot
            self._changes = memory.changes
            self.last_error = memory.last_error
        else:
            self.snapshot = start.taken_over or _first(start, clock())

    def begin(self, start: ControlStart, *, is_continued: bool) -> None:
        """Show it; and see what the file says by now, where another control was taken over."""
        if start.taken_over is not None and not is_continued:
            before = f"version {start.taken_over.version} of a control that was ended"
            self._change("Ackbridge", "started again", "control", before, "all of it taken over")
            self.configure(start.configured)
        self._publish()

    # What it is told

    def check(self, order: SetFlag) -> None:
        """See whether a flag can be set so.

        Raises:
            InvalidInputError: naming the field.
        """
        known = self.snapshot.configured.operations
        if order.operation is not None and known and order.operation not in known:
            hint = unknown_name("operation", order.operation, known)
            raise InvalidInputError(f"{self.snapshot.provider}: {hint}")
        flags = self.snapshot.flags
        if order.environment not in flags and len(flags) >= MOST_ENVIRONMENTS:
            raise InvalidInputError(
                f"environment: there are flags in {MOST_ENVIRONMENTS} of them already"
            )

    def set_flag(self, order: SetFlag) -> ControlChange:
        """Set a flag, or give it back to the integration file.

        The same word again, by the same person for the same reason, is none.

        Returns:
            From what to what; the same twice where nothing has changed.

        Raises:
            InvalidInputError: naming the field.
        """
        self.check(order)
        operation = order.operation or WHOLE_PROVIDER
        before = self._say(order.environment, operation)
        words = dict(self.snapshot.flags.get(order.environment, {}))
        known = words.pop(operation, None)
        if order.value is not None:
            words[operation] = FlagOverride(
                **order.value.model_dump(), by=order.by, reason=order.reason, at=self._now()
            )
        is_news = not _same(known, words.get(operation))
        if is_news:
            flags = {**self.snapshot.flags, order.environment: words}
            self._renew(flags={name: kept for name, kept in flags.items() if kept})
        subject = f"flag of {order.operation or 'the provider'} in {order.environment}"
        after = self._say(order.environment, operation)
        return self._change(order.by, order.reason, subject, before, after, is_news=is_news)

    def force_breaker(self, order: ForceBreaker) -> ControlChange:
        """Hold the breaker somewhere, or let it go."""
        before = self.snapshot.breaker
        said = (before.state if before.forced_by else None, before.forced_by, before.reason)
        is_repeated = order.state is not None and said == (order.state, order.by, order.reason)
        if is_repeated or (order.state is None and before.forced_by is None):
            word = _say_breaker(before)
            return self._change(order.by, order.reason, "breaker", word, word, is_news=False)
        if order.state is not None:
            after = before.forced(order.state, order.by, order.reason, self._now())
        else:
            after = before.released(order.reason, self._now())
        self.orders += 1
        self._watch = MonitorState(marks=self._watch.marks, probed_at=self._watch.probed_at)
        return self._move(after, order.by, order.reason)

    def set_limit(self, order: SetLimit) -> ControlChange:
        """Bound the sends per second, or go back to what the integration file says."""
        before = self.snapshot.limit
        after = None
        if order.per_second is not None:
            after = LimitOverride(
                per_second=order.per_second, by=order.by, reason=order.reason, at=self._now()
            )
        words = _say_limit(before), _say_limit(after)
        if (
            after
            and before
            and (before.per_second, before.by, before.reason)
            == (
                after.per_second,
                after.by,
                after.reason,
            )
        ):
            return self._change(order.by, order.reason, "limit", *words, is_news=False)
        self.orders += 1
        self._renew(limit=after)
        return self._change(order.by, order.reason, "limit", *words)

    def decide(self, decision: ControlDecision) -> None:
        """Take what the control loop has decided; a breaker that is held stays where it is."""
        self._watch = decision.watch or self._watch
        breaker = decision.breaker
        if breaker is not None and self.snapshot.breaker.forced_by is None:
            self._move(breaker, "Ackbridge", breaker.reason)
        for operation, learned in decision.deadlines.items():
            known = self.snapshot.deadlines.get(operation)
            before = f"{known.deadline.total_seconds():g} s" if known else "the initial value"
            self._renew(deadlines={**self.snapshot.deadlines, operation: learned})
            after = f"{learned.deadline.total_seconds():g} s"
            self._change("Ackbridge", learned.reason, f"deadline of {operation}", before, after)

    def throttled(self, rate: SendRate) -> None:
        """The provider's send queue is set so."""
        self._renew(rate=rate)

    def drained(self) -> None:
        """What was parked is being taken up."""
        self.is_drain_due = False

    def configure(self, configured: IntegrationFlags) -> None:
        """Take what the integration file says now; an operator's word stands all the same."""
        known = self.snapshot.configured
        if configured == known:
            return
        self._renew(configured=configured)
        for environment in sorted({*known.flags, *configured.flags}):
            names = {*known.flags.get(environment, {}), *configured.flags.get(environment, {})}
            for operation in sorted(names):
                before = str(known.flag(environment, operation))
                after = str(configured.flag(environment, operation))
                subject = f"file's flag of {operation or 'the provider'} in {environment}"
                self._change(INTEGRATION_FILE, "a worker has started", subject, before, after)

    def reject(self, problem: str) -> None:
        """Keep what was wrong with something we were sent, for whoever looks."""
        self.last_error = problem
        self._publish()

    # What it is asked

    def status(self) -> ControlStatus:
        """All there is to know."""
        return ControlStatus(
            snapshot=self.snapshot, changes=self._changes, last_error=self.last_error
        )

    def memory(self) -> ControlState:
        """For the run that continues this one."""
        return ControlState(
            snapshot=self.snapshot,
            changes=self._changes,
            last_error=self.last_error,
            watch=self._watch,
            is_drain_due=self.is_drain_due,
        )

    def observation(self) -> ObserveStep:
        """What a watch has to know."""
        snapshot = self.snapshot
        return ObserveStep(
            provider=snapshot.provider,
            breaker=snapshot.breaker,
            deadlines=snapshot.deadlines,
            limit=snapshot.limit,
            applied=snapshot.rate,
            watch=self._watch,
        )

    def _move(self, breaker: BreakerStatus, by: str, reason: str) -> ControlChange:
        before = self.snapshot.breaker
        if breaker.state is not before.state:
            self.is_drain_due = breaker.state is BreakerState.CLOSED
        self._renew(breaker=breaker)
        return self._change(by, reason, "breaker", _say_breaker(before), _say_breaker(breaker))

    def _say(self, environment: str, operation: str) -> str:
        word = self.snapshot.override(environment, operation)
        if word is not None:
            return str(word)
        return f"{self.snapshot.configured.flag(environment, operation)} (integration file)"

    def _renew(self, **fields: object) -> None:
        version = self.snapshot.version + 1
        self.snapshot = self.snapshot.model_copy(
            update={**fields, "version": version, "at": self._now()}
        )
        self._publish()

    def _change(
        self,
        by: str,
        reason: str,
        subject: str,
        before: str,
        after: str,
        *,
        is_news: bool | None = None,
    ) -> ControlChange:
        """Log a change.

        Args:
            is_news: whether it is one; None: if something else is said of it now.
        """
        change = ControlChange(
            at=self._now(), by=by, reason=reason, subject=subject, before=before, after=after
        )
        if before != after if is_news is None else is_news:
            self._changes = (change, *self._changes)[:MAX_CHANGES]
            self._publish()
        return change


def _first(start: ControlStart, now: datetime) -> ControlSnapshot:
    return ControlSnapshot(
        provider=start.provider,
        version=1,
        at=now,
        configured=start.configured,
        breaker=BreakerStatus.initial(now),
    )


def _same(one: FlagOverride | None, other: FlagOverride | None) -> bool:
    """Whether two words are one, said again; when does not matter."""
    if one is None or other is None:
        return one is other
    return one == other.model_copy(update={"at": one.at})


def _say_breaker(breaker: BreakerStatus) -> str:
    if breaker.forced_by is not None:
        return f"{breaker.state}, held by {breaker.forced_by}"
    return breaker.state if breaker.step is None else f"{breaker.state}, step {breaker.step + 1}"


def _say_limit(limit: LimitOverride | None) -> str:
    return "integration file" if limit is None else f"{limit.per_second:g}/s"
