"""The control of one provider, whatever hosts it: what it is told, what it keeps, what it shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        MOST_CHANGES,
        WHOLE_PROVIDER,
        BreakerSetting,
        BreakerState,
        Change,
        ControlMemory,
        ControlSnapshot,
        ControlStart,
        ControlStatus,
        Decision,
        FlagSetting,
        ForceBreaker,
        IntegrationFlags,
        Invalid,
        SetFlag,
    )

INTEGRATION_FILE = "the integration file"
"""Who changes what no operator has changed."""

MOST_ENVIRONMENTS = 50
"""Environments with an operator's word; the snapshot has to stay small."""


class Control:
    """Flags, breaker and learned deadlines of one provider.

    Attributes:
        snapshot: what workers see.
        last_error: the last thing that was wrong with something it was sent.
    """

    def __init__(
        self,
        start: ControlStart,
        memory: ControlMemory | None,
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
        self._changes: tuple[Change, ...] = ()
        if memory is not None:
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
            Invalid: naming the field.
        """
        known = self.snapshot.configured.operations
        if order.operation is not None and known and order.operation not in known:
            near = get_close_matches(order.operation, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            provider = self.snapshot.provider
            raise Invalid(f"operation: {provider} has no {order.operation!r}; {hint}")
        flags = self.snapshot.flags
        if order.environment not in flags and len(flags) >= MOST_ENVIRONMENTS:
            raise Invalid(f"environment: there are flags in {MOST_ENVIRONMENTS} of them already")

    def set_flag(self, order: SetFlag) -> Change:
        """Set a flag, or give it back to the integration file.

        Returns:
            From what to what; the same twice where nothing has changed.

        Raises:
            Invalid: naming the field.
        """
        self.check(order)
        operation = order.operation or WHOLE_PROVIDER
        before = self._say(order.environment, operation)
        words = dict(self.snapshot.flags.get(order.environment, {}))
        words.pop(operation, None)
        if order.value is not None:
            words[operation] = FlagSetting(
                **order.value.model_dump(), by=order.by, reason=order.reason, at=self._now()
            )
        flags = {**self.snapshot.flags, order.environment: words}
        self._renew(flags={name: kept for name, kept in flags.items() if kept})
        subject = f"flag of {order.operation or 'the provider'} in {order.environment}"
        after = self._say(order.environment, operation)
        return self._change(order.by, order.reason, subject, before, after)

    def force_breaker(self, order: ForceBreaker) -> Change:
        """Hold the breaker somewhere, or let it go."""
        breaker = self.snapshot.breaker
        before = _say_breaker(breaker)
        is_moved = order.state not in (None, breaker.state)
        breaker = BreakerSetting(
            state=order.state or breaker.state,
            since=self._now() if is_moved else breaker.since,
            reason=order.reason,
            forced_by=order.by if order.state else None,
        )
        self._renew(breaker=breaker)
        return self._change(order.by, order.reason, "breaker", before, _say_breaker(breaker))

    def decide(self, decision: Decision) -> None:
        """Take what the control loop has decided; a breaker that is held stays where it is."""
        breaker = decision.breaker
        if breaker is not None and self.snapshot.breaker.forced_by is None:
            before = _say_breaker(self.snapshot.breaker)
            self._renew(breaker=breaker)
            self._change("Ackbridge", breaker.reason, "breaker", before, _say_breaker(breaker))
        for operation, learned in decision.deadlines.items():
            known = self.snapshot.deadlines.get(operation)
            before = f"{known.deadline.total_seconds():g} s" if known else "the initial value"
            self._renew(deadlines={**self.snapshot.deadlines, operation: learned})
            after = f"{learned.deadline.total_seconds():g} s"
            self._change("Ackbridge", learned.reason, f"deadline of {operation}", before, after)

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

    def memory(self) -> ControlMemory:
        """For the run that continues this one."""
        return ControlMemory(
            snapshot=self.snapshot, changes=self._changes, last_error=self.last_error
        )

    def _say(self, environment: str, operation: str) -> str:
        word = self.snapshot.setting(environment, operation)
        if word is not None:
            return str(word)
        return f"{self.snapshot.configured.flag(environment, operation)} (integration file)"

    def _renew(self, **fields: object) -> None:
        version = self.snapshot.version + 1
        self.snapshot = self.snapshot.model_copy(
            update={**fields, "version": version, "at": self._now()}
        )
        self._publish()

    def _change(self, by: str, reason: str, subject: str, before: str, after: str) -> Change:
        change = Change(
            at=self._now(), by=by, reason=reason, subject=subject, before=before, after=after
        )
        if before != after:
            self._changes = (change, *self._changes)[:MOST_CHANGES]
            self._publish()
        return change


def _first(start: ControlStart, now: datetime) -> ControlSnapshot:
    breaker = BreakerSetting(state=BreakerState.CLOSED, since=now, reason="nothing observed yet")
    return ControlSnapshot(
        provider=start.provider, version=1, at=now, configured=start.configured, breaker=breaker
    )


def _say_breaker(breaker: BreakerSetting) -> str:
    return f"{breaker.state}, held by {breaker.forced_by}" if breaker.forced_by else breaker.state
