"""The control of one provider, independent of its host: flags, breaker, rate and deadlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.breaker import (
        BreakerState,
        BreakerStatus,
        BreakerWindow,
        ForceBreaker,
        LimitOverride,
        SendRate,
        SetLimit,
    )
    from ackbridge.contracts.control import (
        CHANGED_SINCE,
        MAX_CHANGES,
        MAX_RECOVERIES,
        WHOLE_PROVIDER,
        ControlChange,
        ControlDecision,
        ControlSnapshot,
        ControlStart,
        ControlState,
        ControlStatus,
        DrainResult,
        DrainStep,
        FlagOverride,
        IntegrationFlags,
        ObserveStep,
        SetFlag,
    )
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.quotas import QuotaStatus
    from ackbridge.contracts.wire import InvalidInputError
    from ackbridge.errors import unknown_name

AUTOMATIC: Final = "Ackbridge"
INTEGRATION_FILE: Final = "the integration file"
"""The authors of changes that no operator made."""

QUARANTINE_REASON: Final = "recoveries leave out calls that fail again and again alone"

MAX_ENVIRONMENTS: Final = 50
"""Environments with overridden flags; the snapshot has to stay small."""


class Control:
    """The state of one provider's control.

    Attributes:
        last_error: why the latest invalid signal was rejected, or the latest error of monitoring.
        interrupts: the number of changes so far that running monitoring has to know of.
    """

    def __init__(
        self,
        start: ControlStart,
        state: ControlState | None,
        clock: Callable[[], datetime],
        publish: Callable[[], None],
    ) -> None:
        """Start a control, or continue one from `state`; `publish` is called after each change."""
        self._now = clock
        self._publish = publish
        self.interrupts = 0
        self._restores = start if state is None and start.taken_over is not None else None
        if state is None:
            initial = ControlSnapshot.initial(start.provider, start.configured, clock())
            state = ControlState(snapshot=start.taken_over or initial)
        self.snapshot = state.snapshot
        self.last_error = state.last_error
        self._drains = state.drains
        self._recoveries = state.recoveries
        self._quarantined = state.quarantined
        self._changes = state.changes
        self._monitor = state.watch

    def begin(self) -> None:
        """Publish the state; log and update one that was restored from a terminated control."""
        if self._restores is not None:
            before = f"version {self.snapshot.version} of a terminated control"
            self._log(AUTOMATIC, "restarted", "control", before, "its state was restored")
            self.configure(self._restores.configured)
        self._publish()

    # Commands

    def validate_flag(self, command: SetFlag) -> None:
        """Raise InvalidInputError, naming the field, if the flag cannot be set."""
        self._validate_operation(command.operation)
        _require(command.expected, self.snapshot.flag_tag(command.environment, command.operation))
        flags = self.snapshot.flags
        if command.environment not in flags and len(flags) >= MAX_ENVIRONMENTS:
            raise InvalidInputError(
                f"environment: flags are already set in {MAX_ENVIRONMENTS} environments"
            )

    def _validate_operation(self, operation: str | None) -> None:
        known = self.snapshot.configured.operations
        if operation is not None and known and operation not in known:
            problem = unknown_name("operation", operation, known)
            raise InvalidInputError(f"{self.snapshot.provider}: {problem}")

    def set_flag(self, command: SetFlag) -> ControlChange:
        """Override a flag of the file, or remove the override; repeating it changes nothing.

        Raises:
            InvalidInputError: naming the field.
        """
        self.validate_flag(command)
        operation = command.operation or WHOLE_PROVIDER
        before = self._flag(command.environment, operation)
        overrides = dict(self.snapshot.flags.get(command.environment, {}))
        old = overrides.pop(operation, None)
        if command.value is not None:
            overrides[operation] = FlagOverride(
                **command.value.model_dump(), by=command.by, reason=command.reason, at=self._now()
            )
        is_new = not _is_same(old, overrides.get(operation))
        if is_new:
            flags = {**self.snapshot.flags, command.environment: overrides}
            self._update(flags={name: some for name, some in flags.items() if some})
        subject = f"flag of {command.operation or 'the provider'} in {command.environment}"
        after = self._flag(command.environment, operation)
        return self._log(command.by, command.reason, subject, before, after, is_new=is_new)

    def validate_breaker(self, command: ForceBreaker) -> None:
        """Raise InvalidInputError if the operation is not known, or the breaker has changed."""
        self._validate_operation(command.operation)
        _require(command.expected, self.snapshot.breaker_tag(command.operation))

    def force_breaker(self, command: ForceBreaker) -> ControlChange:
        """Force a breaker into a state, or release it.

        Raises:
            InvalidInputError: naming the field.
        """
        self.validate_breaker(command)
        name = command.operation or WHOLE_PROVIDER
        breaker = self._breaker(name)
        if command.state is None:
            is_new = breaker.forced_by is not None
            after = breaker.released(command.reason, self._now()) if is_new else breaker
        else:
            is_new = (breaker.state, breaker.forced_by, breaker.reason) != (
                command.state,
                command.by,
                command.reason,
            )
            after = breaker.forced(command.state, command.by, command.reason, self._now())
        if not is_new:
            same = _describe_breaker(breaker)
            return self._log(command.by, command.reason, _breaker_subject(name), same, same)
        self.interrupts += 1
        changed = {name: after}
        if name == WHOLE_PROVIDER and command.state is None and after.state is BreakerState.CLOSED:
            # What they saw while the provider was held closed must not close it off now.
            changed |= dict.fromkeys(self._open_operations(), after)
        for one in changed:
            self._forget_evidence(one)
        return self._set_breakers(changed, command.by)[0]

    def _open_operations(self) -> list[str]:
        """Those whose own breaker is not closed, and not forced."""
        return [
            name
            for name, breaker in self.snapshot.breakers.items()
            if breaker.state is not BreakerState.CLOSED and breaker.forced_by is None
        ]

    def _forget_evidence(self, name: str) -> None:
        """Let the monitoring of a breaker start over, without the evidence of before."""
        monitor = self._monitor
        if name == WHOLE_PROVIDER:
            self._monitor = monitor.model_copy(update={"evidence": BreakerWindow()})
        elif name in monitor.operations:
            blank = monitor.operations[name].model_copy(update={"evidence": BreakerWindow()})
            operations = {**monitor.operations, name: blank}
            self._monitor = monitor.model_copy(update={"operations": operations})

    def validate_limit(self, command: SetLimit) -> None:
        """Raise InvalidInputError if the limit has changed."""
        _require(command.expected, self.snapshot.limit_tag())

    def set_limit(self, command: SetLimit) -> ControlChange:
        """Limit the sends per second, or return to the integration file's limit.

        Raises:
            InvalidInputError: it has changed.
        """
        self.validate_limit(command)
        old = self.snapshot.limit
        new = None
        if command.per_second is not None:
            new = LimitOverride(
                per_second=command.per_second, by=command.by, reason=command.reason, at=self._now()
            )
        if new is None or not _is_same(old, new):
            self.interrupts += 1
            self._update(limit=new, limit_changed_at=self._now())
        before, after = _describe_limit(old), _describe_limit(new)
        return self._log(command.by, command.reason, "limit", before, after)

    def configure(self, configured: IntegrationFlags) -> None:
        """Take over the integration file's flags; overrides stay."""
        known = self.snapshot.configured
        if configured == known:
            return
        self._update(configured=configured)
        for environment in sorted({*known.flags, *configured.flags}):
            names = {*known.flags.get(environment, {}), *configured.flags.get(environment, {})}
            for operation in sorted(names):
                before = str(known.flag(environment, operation))
                after = str(configured.flag(environment, operation))
                subject = f"file's flag of {operation or 'the provider'} in {environment}"
                self._log(INTEGRATION_FILE, "a worker started", subject, before, after)

    # What monitoring finds

    def apply(self, decision: ControlDecision) -> None:
        """Apply a decision of monitoring; a forced breaker keeps its state."""
        self._monitor = decision.watch or self._monitor
        decided = dict(decision.breakers)
        if decision.breaker is not None:
            decided[WHOLE_PROVIDER] = decision.breaker
        is_forced = {name: self._breaker(name).forced_by is not None for name in decided}
        self._set_breakers(
            {name: one for name, one in decided.items() if not is_forced[name]}, AUTOMATIC
        )
        for operation, learned in decision.deadlines.items():
            old = self.snapshot.deadlines.get(operation)
            before = f"{old.deadline.total_seconds():g} s" if old else "the initial value"
            self._update(deadlines={**self.snapshot.deadlines, operation: learned})
            after = f"{learned.deadline.total_seconds():g} s"
            self._log(AUTOMATIC, learned.reason, f"deadline of {operation}", before, after)

        if decision.quotas is not None:
            before = _describe_quotas(self.snapshot.quotas)
            self._update(quotas=decision.quotas)
            reason = "; ".join(one.reason for one in decision.quotas.values()) or "nothing rejected"
            after = _describe_quotas(decision.quotas)
            self._log(AUTOMATIC, reason[:MAX_ERROR_LENGTH], "accepted rate", before, after)
        if decision.quarantined is not None:
            self._quarantine(decision.quarantined)
            self._publish()

    def rate_applied(self, rate: SendRate) -> None:
        self._update(rate=rate)

    def next_drain(self) -> DrainStep | None:
        """The recovery that has to be started now."""
        if not self._drains:
            return None
        return self._drains[0].model_copy(update={"previous": self._recoveries})

    def drained(self, step: DrainStep, result: DrainResult) -> None:
        self._drains = tuple(due for due in self._drains if due.version != step.version)
        if result.recovery is not None:
            self._recoveries = (result.recovery, *self._recoveries)[:MAX_RECOVERIES]
        self._quarantine(result.quarantined)
        self._publish()

    def _quarantine(self, calls: tuple[str, ...]) -> None:
        before, after = ", ".join(self._quarantined), ", ".join(calls)
        self._quarantined = calls
        self._log(
            AUTOMATIC, QUARANTINE_REASON, "calls in quarantine", before or "none", after or "none"
        )

    def reject(self, problem: str) -> None:
        """Show why something was rejected or failed."""
        self.last_error = problem
        self._publish()

    # Views

    def status(self) -> ControlStatus:
        return ControlStatus(
            snapshot=self.snapshot,
            changes=self._changes,
            last_error=self.last_error,
            recoveries=self._recoveries,
            quarantined=self._quarantined,
        )

    def state(self) -> ControlState:
        """Everything that the next run has to know."""
        return ControlState(
            snapshot=self.snapshot,
            changes=self._changes,
            last_error=self.last_error,
            watch=self._monitor,
            drains=self._drains,
            recoveries=self._recoveries,
            quarantined=self._quarantined,
        )

    def observe_step(self) -> ObserveStep:
        snapshot = self.snapshot
        return ObserveStep(
            provider=snapshot.provider,
            breaker=snapshot.breaker,
            breakers=snapshot.breakers,
            deadlines=snapshot.deadlines,
            limit=snapshot.limit,
            quotas=snapshot.quotas,
            limit_changed_at=snapshot.limit_changed_at,
            applied=snapshot.rate,
            watch=self._monitor,
            quarantined=self._quarantined,
        )

    def _breaker(self, name: str) -> BreakerStatus:
        """The breaker of an operation, or `WHOLE_PROVIDER`."""
        if name == WHOLE_PROVIDER:
            return self.snapshot.breaker
        return self.snapshot.breakers.get(name) or BreakerStatus.initial(self._now())

    def _set_breakers(self, after: Mapping[str, BreakerStatus], by: str) -> list[ControlChange]:
        """Set breakers by name, and plan to reprocess what was parked while they were not closed.

        Returns:
            One change for each.
        """
        before = {name: self._breaker(name) for name in after}
        was = self.snapshot
        breakers = {**was.breakers, **after}
        provider = breakers.pop(WHOLE_PROVIDER, was.breaker)
        if after:
            self._update(breaker=provider, breakers=breakers)
        self._plan_drain(was)
        return [
            self._log(
                by,
                one.reason,
                _breaker_subject(name),
                _describe_breaker(before[name]),
                _describe_breaker(one),
            )
            for name, one in after.items()
        ]

    def _plan_drain(self, was: ControlSnapshot) -> None:
        """Drain what an outage has parked of the operations that may be sent again by now."""
        now = self.snapshot
        known = {*now.configured.operations, *now.breakers}
        sent = {name for name in known if now.breaker_of(name).state is BreakerState.CLOSED}
        # What is closed off again waits for the next recovery.
        self._drains = tuple(
            due.model_copy(update={"operations": tuple(left)})
            for due in self._drains
            if (left := [name for name in due.operations if name in sent]) or not known
        )
        recovered = {
            name: was.breaker_of(name)
            for name in sorted(sent or {WHOLE_PROVIDER})
            if was.breaker_of(name).state is not BreakerState.CLOSED
        }
        if not recovered or (not sent and known):
            return
        outages = [*recovered.values(), *(was.breakers.get(name) for name in recovered)]
        began = [one.opened_at for one in outages if one is not None and one.opened_at is not None]
        drain = DrainStep(
            provider=now.provider,
            version=now.version,
            reason=now.breaker_of(next(iter(recovered))).reason,
            operations=tuple(name for name in recovered if name != WHOLE_PROVIDER),
            since=min(began, default=None),
        )
        self._drains = (*self._drains, drain)

    def _flag(self, environment: str, operation: str) -> str:
        override = self.snapshot.override(environment, operation)
        if override is not None:
            return str(override)
        return f"{self.snapshot.configured.flag(environment, operation)} (integration file)"

    def _update(self, **fields: object) -> None:
        version = self.snapshot.version + 1
        self.snapshot = self.snapshot.model_copy(
            update={**fields, "version": version, "at": self._now()}
        )
        self._publish()

    def _log(
        self,
        by: str,
        reason: str,
        subject: str,
        before: str,
        after: str,
        *,
        is_new: bool | None = None,
    ) -> ControlChange:
        """Add a change to the log; by default it is new if `before` and `after` differ."""
        change = ControlChange(
            at=self._now(), by=by, reason=reason, subject=subject, before=before, after=after
        )
        if before != after if is_new is None else is_new:
            self._changes = (change, *self._changes)[:MAX_CHANGES]
            self._publish()
        return change


def _require(expected: str | None, found: str) -> None:
    if expected not in (None, found):
        raise InvalidInputError(CHANGED_SINCE)


def _is_same(
    one: FlagOverride | LimitOverride | None, other: FlagOverride | LimitOverride | None
) -> bool:
    """Whether two overrides are equal but for their time."""
    if one is None or other is None:
        return one is other
    return one == other.model_copy(update={"at": one.at})


def _breaker_subject(name: str) -> str:
    return f"breaker of {name}" if name != WHOLE_PROVIDER else "breaker"


def _describe_breaker(breaker: BreakerStatus) -> str:
    if breaker.forced_by is not None:
        return f"{breaker.state}, held by {breaker.forced_by}"
    return breaker.state if breaker.step is None else f"{breaker.state}, step {breaker.step + 1}"


def _describe_limit(limit: LimitOverride | None) -> str:
    return "integration file" if limit is None else f"{limit.per_second:g}/s"


def _describe_quotas(quotas: Mapping[str, QuotaStatus]) -> str:
    return ", ".join(str(quotas[tenant]) for tenant in sorted(quotas)) or "no limit"
