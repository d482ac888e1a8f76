"""The control of one provider: flags, breaker, learned deadlines, and its activities' steps."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from .breaker import BreakerState, BreakerStatus, LimitOverride, MonitorState, SendRate
from .calls import OutcomeCode
from .limits import Actor, Name, Reason
from .quotas import QuotaStatus
from .wire import StrictModel, Wire, digest

CONTROL_MEMO: Final = "AckbridgeControl"
"""The memo key under which `ProviderControl` publishes its `ControlSnapshot`."""

WHOLE_PROVIDER: Final = ""
"""The operation name of flags and statistics that belong to the provider as a whole."""

MAX_CHANGES: Final = 100
"""How many of the latest changes a control keeps; its history has them all."""

MAX_RECOVERIES: Final = 10
"""How many of the latest recoveries a control keeps, to take over those that are not finished."""

CONTROL_REVISION: Final = 1
"""The version of the commands of a control that starts now, as `Plan.revision` is of a call's.

1: the ledger has a copy of the snapshot.
"""

MAX_QUARANTINED: Final = 10
"""How many calls in quarantine a control names; `ackbridge queue` has all of them."""

CHANGED_SINCE: Final = "expected: it has changed since it was read"
"""Why a change is refused that expects another setting than there is."""

ENVIRONMENT_PATTERN: Final = r"^[A-Za-z0-9_.-]+$"


class FlagState(StrEnum):
    OFF = "off"
    ON = "on"
    INTERNAL = "internal"
    PERCENTAGE = "percentage"


def _check_percentage(state: object, percentage: float | None) -> None:
    if (state is FlagState.PERCENTAGE) is (percentage is None):
        raise ValueError("percentage: required for the state percentage, not allowed for others")


class FlagValue(Wire):
    """The value of a flag.

    Attributes:
        percentage: of all keys, from 0 to 100; only for the state `percentage`.
    """

    state: FlagState = FlagState.ON
    percentage: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _validate_percentage(self) -> Self:
        _check_percentage(self.state, self.percentage)
        return self

    def __str__(self) -> str:
        return self.state if self.percentage is None else f"{self.percentage:g} %"


class FlagOverride(FlagValue):
    """A flag value that an operator set in place of the integration file's."""

    by: str
    reason: str
    at: AwareDatetime


Flags = dict[str, dict[str, FlagValue]]
"""By environment, then by operation (`WHOLE_PROVIDER` for the provider's own)."""

FlagOverrides = dict[str, dict[str, FlagOverride]]
"""By environment, then by operation, as `Flags`."""


class IntegrationFlags(Wire):
    """The flags of an integration file; the signal `configure`, sent by workers that start.

    Attributes:
        flags: a flag that is not listed is on.
        operations: the names of all operations.
        bulk: those whose calls share workflows (`lane: bulk`).
    """

    flags: Flags = Field(default_factory=dict)
    operations: tuple[str, ...] = ()
    bulk: tuple[str, ...] = ()

    def flag(self, environment: str, operation: str = WHOLE_PROVIDER) -> FlagValue:
        """The configured flag of the provider, or of one of its operations."""
        return self.flags.get(environment, {}).get(operation, FlagValue())


class LearnedDeadline(Wire):
    """How long the response of an operation is awaited, learned from the provider.

    Attributes:
        reason: one line for operators: "learned p99 2.8 s x 1.5, 812 samples".
        samples: the number of calls it was learned from.
        scouts: the share of calls that wait longer, so that slower responses are measured.
        scout_deadline: how long those calls wait; None: no longer than others.
        since: calls sent before this are not learned from: the provider has changed since then.
        usual: the deadline before it was extended to tell a slow provider from a silent one, after
            which callers are told `delayed`; None: it is not extended.
    """

    deadline: timedelta
    reason: str
    samples: int
    scouts: float = 0.0
    scout_deadline: timedelta | None = None
    since: AwareDatetime | None = None
    usual: timedelta | None = None


class ControlSnapshot(Wire):
    """The state of one provider as workers read it, from the memo `CONTROL_MEMO`.

    Attributes:
        version: the number of changes so far; it only grows.
        at: the time of the last change.
        flags: by environment and operation, where an operator overrides the integration file.
        configured: the flags of the integration file, from the worker that started last.
        breaker: of the provider as a whole, which opens when most of its operations fail.
        breakers: by operation; one that is not listed is closed.
        deadlines: by operation.
        limit: the rate limit set by an operator.
        rate: the dispatch rate of the provider's send queue; None: not set yet.
        quotas: by tenant (`WHOLE_QUOTA`: the provider), what it turned out to accept when this was
            published; the ledger has the rates of now.
        limit_changed_at: when an operator set or removed `limit`; what was learned before is over.
    """

    provider: str
    version: int
    at: AwareDatetime
    flags: FlagOverrides = Field(default_factory=dict)
    configured: IntegrationFlags = IntegrationFlags()
    breaker: BreakerStatus
    breakers: dict[str, BreakerStatus] = Field(default_factory=dict)
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    limit: LimitOverride | None = None
    rate: SendRate | None = None
    quotas: dict[str, QuotaStatus] = Field(default_factory=dict)
    limit_changed_at: AwareDatetime | None = None

    def breaker_of(self, operation: str) -> BreakerStatus:
        """The breaker that decides about an operation: the provider's if it is not closed, or an
        operator has forced it."""
        if self.breaker.state is not BreakerState.CLOSED or self.breaker.forced_by is not None:
            return self.breaker
        return self.breakers.get(operation, self.breaker)

    @classmethod
    def initial(cls, provider: str, configured: IntegrationFlags, at: datetime) -> Self:
        """The state of a control that starts."""
        return cls(
            provider=provider,
            version=1,
            at=at,
            configured=configured,
            breaker=BreakerStatus.initial(at),
        )

    @property
    def failing_operations(self) -> frozenset[str]:
        """Operations whose own breaker decides, and is not closed."""
        failing = {
            name for name, one in self.breakers.items() if one.state is not BreakerState.CLOSED
        }
        return frozenset() if self.breaker.forced_by is not None else frozenset(failing)

    def judges(self, operation: str, sent_at: datetime) -> bool:
        """Whether the failure of a request sent at this time counts for the breakers."""
        known = (self.breaker, self.breakers.get(operation, self.breaker))
        return all(one.judged_from is None or sent_at >= one.judged_from for one in known)

    @property
    def is_throttled(self) -> bool:
        """Whether every send must go through the provider's queue, whose rate is limited."""
        is_limited = (self.rate is not None and self.rate.per_second is not None) or self.quotas
        return bool(is_limited) or self.limit is not None or not self.breaker.is_unrestricted

    def override(self, environment: str, operation: str = WHOLE_PROVIDER) -> FlagOverride | None:
        """The operator's flag of the provider, or of one of its operations."""
        return self.flags.get(environment, {}).get(operation)

    def flag_tag(self, environment: str, operation: str | None) -> str:
        """Identifies the value of a flag, for `SetFlag.expected`."""
        name = operation or WHOLE_PROVIDER
        override = self.override(environment, name)
        return _tag(override, self.configured.flag(environment, name))

    def breaker_tag(self, operation: str | None) -> str:
        """Identifies the status of a breaker, for `ForceBreaker.expected`."""
        return _tag(self.breaker if operation is None else self.breakers.get(operation))

    def limit_tag(self) -> str:
        """Identifies the limit that an operator has set, for `SetLimit.expected`."""
        return _tag(self.limit)


def _tag(*settings: Wire | None) -> str:
    # Without defaults, so that a field that is added later changes no tag.
    plain = [one and one.model_dump(mode="json", exclude_defaults=True) for one in settings]
    return digest(plain)[:32]


class WithoutControl(StrEnum):
    """What becomes of new calls while the control of their provider cannot be read."""

    SEND = "send"
    PARK = "park"


class FlagEvaluation(Wire):
    """The value of one flag for one call.

    Attributes:
        key: `<provider>` or `<provider>.<operation>`.
        said: the value: `off`, `25 %`.
        source: `integration file`, or which operator set it and why.
    """

    key: str
    allowed: bool
    said: str
    source: str


class AdmissionState(Wire):
    """Whether a call may be sent, and the flags and breaker state that decided it.

    Attributes:
        version: of the control's snapshot; None without a snapshot.
        flags: the flags of the provider and of the operation that are set anywhere.
        not_now: why the call may not be sent; None: it may.
        parked_reason: the reason under which a call that may not be sent is parked.
        throttled: every send must go through the provider's queue, whose rate is limited.
        is_known: whether the control could be read; otherwise the last known state is used, or the
            integration file.
    """

    version: int | None = None
    flags: tuple[FlagEvaluation, ...] = ()
    breaker: BreakerState | None = None
    not_now: str | None = None
    parked_reason: str | None = None
    throttled: bool = False
    is_known: bool = True

    @property
    def awaits_control(self) -> bool:
        """Whether a call is held back only because the control could not be read."""
        return not self.is_known and self.parked_reason == OutcomeCode.NOT_SENT

    def __str__(self) -> str:
        flags = "; ".join(f"{flag.key} {flag.said} ({flag.source})" for flag in self.flags)
        version = f", control version {self.version}" if self.version is not None else ""
        return f"{flags or 'on'}; breaker {self.breaker or 'unknown'}{version}"


class ControlChange(Wire):
    """One change of a control.

    Attributes:
        subject: what was changed: `flag of create_order in prod`, `breaker`.
    """

    at: AwareDatetime
    by: str
    reason: str
    subject: str
    before: str
    after: str


class ControlStart(Wire):
    """The one argument with which a worker starts `ProviderControl`.

    Attributes:
        taken_over: the last snapshot of a control that was terminated.
        revision: `CONTROL_REVISION` of whoever starts this run; it decides about its commands.
    """

    provider: Name
    configured: IntegrationFlags = IntegrationFlags()
    taken_over: ControlSnapshot | None = None
    revision: int = 0


class Recovery(Wire):
    """The recovery from an outage of a provider, or of some of its operations.

    Attributes:
        operations: whose calls it reprocesses; empty: all of the provider.
        since: when the outage began: calls that were parked before are not reprocessed.
        batch: the batch that reprocesses the calls; None: there were none.
    """

    operations: tuple[str, ...] = ()
    since: AwareDatetime
    batch: str | None = None


class DrainStep(Wire):
    """The argument of `drain`: reprocess what was parked while a provider was unavailable.

    Attributes:
        version: of the snapshot in which the breaker closed; a repeated step starts nothing twice.
        operations: those whose calls may be sent again; empty: all of the provider.
        since: when the outage began; None: unknown.
        previous: the latest recoveries; if one is not over, this one takes its calls over.
    """

    provider: str
    version: int
    reason: str
    operations: tuple[str, ...] = ()
    since: AwareDatetime | None = None
    previous: tuple[Recovery, ...] = ()


class ControlState(Wire):
    """The whole state of a control: the second argument of a run that continues another one.

    Attributes:
        drains: recoveries whose parked calls have yet to be reprocessed.
        recoveries: the latest that were started, at most `MAX_RECOVERIES`.
        quarantined: see `ControlDecision`.
    """

    snapshot: ControlSnapshot
    changes: tuple[ControlChange, ...] = ()
    last_error: str | None = None
    watch: MonitorState = MonitorState()
    drains: tuple[DrainStep, ...] = ()
    recoveries: tuple[Recovery, ...] = ()
    quarantined: tuple[str, ...] = ()


class ControlStatus(Wire):
    """The answer of the query `status`.

    Attributes:
        changes: the latest, newest first.
        last_error: why the last invalid signal or update was rejected.
        recoveries: the latest, newest first.
        quarantined: parked calls that recoveries leave out.
    """

    snapshot: ControlSnapshot
    changes: tuple[ControlChange, ...] = ()
    last_error: str | None = None
    recoveries: tuple[Recovery, ...] = ()
    quarantined: tuple[str, ...] = ()


class SetFlag(StrictModel):
    """The update (and the signal) `set_flag`.

    Attributes:
        operation: None for the whole provider.
        environment: the environment of the flag; workers have theirs from ACKBRIDGE_ENVIRONMENT.
        state: `default` returns to the flag of the integration file.
        percentage: of all keys, for the state `percentage`.
        expected: `ControlSnapshot.flag_tag` as it was read; refused if it has changed since.
    """

    operation: Name | None = None
    environment: str = Field(pattern=ENVIRONMENT_PATTERN, max_length=64)
    state: FlagState | Literal["default"]
    percentage: float | None = Field(default=None, ge=0, le=100)
    by: Actor
    reason: Reason
    expected: str | None = None

    @model_validator(mode="after")
    def _validate_percentage(self) -> Self:
        _check_percentage(self.state, self.percentage)
        return self

    @property
    def value(self) -> FlagValue | None:
        """The new value; None: the flag of the integration file."""
        if self.state == "default":
            return None
        return FlagValue(state=self.state, percentage=self.percentage)


class ObserveStep(Wire):
    """The argument of `observe`: monitor a provider until there is something to decide.

    Attributes:
        breakers: by operation; one that is not listed is closed.
        deadlines: the learned deadlines, by operation.
        limit: the rate limit set by an operator.
        applied: the dispatch rate of its send queue; None: unknown.
        quotas: as published; `limit_changed_at`: as of the snapshot.
        quarantined: the calls in quarantine as they are shown; None: they are not watched.
    """

    provider: str
    breaker: BreakerStatus
    breakers: dict[str, BreakerStatus] = Field(default_factory=dict)
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    limit: LimitOverride | None = None
    applied: SendRate | None = None
    watch: MonitorState = MonitorState()
    quotas: dict[str, QuotaStatus] = Field(default_factory=dict)
    limit_changed_at: AwareDatetime | None = None
    quarantined: tuple[str, ...] | None = None


class ControlDecision(Wire):
    """The result of `observe`; only what changes.

    Attributes:
        breaker: its next status; ignored while an operator forces the breaker.
        breakers: by operation, those that change.
        deadlines: by operation, those that change.
        rate: the new dispatch rate of the send queue.
        watch: where the next monitoring resumes.
        quotas: by tenant, all that are limited now; None: as published.
        quarantined: the ids of the calls in quarantine, at most `MAX_QUARANTINED`; None: as shown.
    """

    breaker: BreakerStatus | None = None
    breakers: dict[str, BreakerStatus] = Field(default_factory=dict)
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    rate: SendRate | None = None
    watch: MonitorState | None = None
    quotas: dict[str, QuotaStatus] | None = None
    quarantined: tuple[str, ...] | None = None


class ThrottleStep(Wire):
    """The argument of `throttle`: set the dispatch rate of a provider's send queue.

    Attributes:
        reason: stored by the engine with the queue's configuration.
    """

    provider: str
    rate: SendRate
    reason: str


class DrainResult(Wire):
    """The result of `drain`.

    Attributes:
        recovery: what was started; None: nothing, because the beginning of the outage is not known.
        quarantined: the ids of parked calls that recoveries leave out, at most `MAX_QUARANTINED`.
    """

    recovery: Recovery | None = None
    quarantined: tuple[str, ...] = ()
