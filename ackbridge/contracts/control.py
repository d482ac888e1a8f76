"""The control of one provider: what `ProviderControl` takes, keeps and publishes."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from .breaker import BreakerSetting, BreakerState
from .breaker_policy import LimitSetting, SendRate, Watch
from .limits import NAME_PATTERN, Actor, Reason
from .wire import StrictModel, Wire

CONTROL_MEMO: Final = "AckbridgeControl"
"""The memo key under which `ProviderControl` publishes its `ControlSnapshot`."""

WHOLE_PROVIDER: Final = ""
"""Stands for the provider itself where operations are named."""

MOST_CHANGES: Final = 100
"""So many of the latest changes a control remembers; its history has them all."""

ENVIRONMENT_PATTERN: Final = r"^[A-Za-z0-9_.-]+$"


class FlagState(StrEnum):
    OFF = "off"
    ON = "on"
    INTERNAL = "internal"
    PERCENTAGE = "percentage"


class FlagValue(Wire):
    """What a flag says.

    Attributes:
        percentage: of all keys, from 0 to 100; for the state `percentage`, and only there.
    """

    state: FlagState = FlagState.ON
    percentage: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _has_its_percentage(self) -> Self:
        if (self.state is FlagState.PERCENTAGE) is (self.percentage is None):
            raise ValueError("percentage: it belongs to the state percentage, and to no other")
        return self

    def __str__(self) -> str:
        return self.state if self.percentage is None else f"{self.percentage:g} %"


class FlagSetting(FlagValue):
    """An operator's word about a flag: what, who, why and when."""

    by: str
    reason: str
    at: AwareDatetime


Flags = dict[str, dict[str, FlagValue]]
"""By environment, and there by operation (`WHOLE_PROVIDER` for the provider's own)."""

FlagSettings = dict[str, dict[str, FlagSetting]]
"""The same, where an operator's word stands."""


class IntegrationFlags(Wire):
    """What the integration file says; the signal `configure`, given by workers that start.

    Attributes:
        flags: the file's flags; what is not named is on.
        operations: the names of all operations.
    """

    flags: Flags = Field(default_factory=dict)
    operations: tuple[str, ...] = ()

    def flag(self, environment: str, operation: str = WHOLE_PROVIDER) -> FlagValue:
        """What the file says of the provider, or of one of its operations."""
        return self.flags.get(environment, {}).get(operation, FlagValue())


class LearnedDeadline(Wire):
    """How long an operation's response is awaited, learned from the provider.

    Attributes:
        reason: one line for people: "learned p99 2.8 s x 1.5, 812 samples".
        samples: calls it was learned from.
        scouts: the share of calls that wait longer, so that slower answers are seen at all.
        scout_deadline: how long those wait; None: like everybody.
    """

    deadline: timedelta
    reason: str
    samples: int
    scouts: float = 0.0
    scout_deadline: timedelta | None = None


class ControlSnapshot(Wire):
    """The state of one provider as workers see it, under the memo key `CONTROL_MEMO`.

    Attributes:
        version: counts the changes; it never goes back.
        at: when it last changed.
        flags: by environment and operation, where an operator's word replaces the file's.
        configured: what the integration file says, as the last worker that started had it.
        deadlines: by operation.
        limit: an operator's word about how fast may be sent at all.
        rate: what the provider's send queue is set to; None: nothing yet.
    """

    provider: str
    version: int
    at: AwareDatetime
    flags: FlagSettings = Field(default_factory=dict)
    configured: IntegrationFlags = IntegrationFlags()
    breaker: BreakerSetting
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    limit: LimitSetting | None = None
    rate: SendRate | None = None

    @property
    def is_throttled(self) -> bool:
        """Whether every send has to go through the provider's queue, whose rate is bounded."""
        is_bounded = self.rate is not None and self.rate.per_second is not None
        return is_bounded or self.limit is not None or not self.breaker.is_calm

    def setting(self, environment: str, operation: str = WHOLE_PROVIDER) -> FlagSetting | None:
        """An operator's word about the provider, or about one of its operations."""
        return self.flags.get(environment, {}).get(operation)


class FlagUsed(Wire):
    """What one flag said of one call.

    Attributes:
        key: `<provider>` or `<provider>.<operation>`.
        said: what it says: `off`, `25 %`.
        source: `integration file`, or who has said so and why.
    """

    key: str
    allowed: bool
    said: str
    source: str


class AdmissionState(Wire):
    """How a provider's flags and breaker stood when a call asked whether it may be sent.

    Attributes:
        version: of the control's snapshot; None where none was known.
        flags: of the provider and of the operation, where anybody has said anything.
        not_now: why it may not be sent, if so.
        parked_reason: under which name operators find it when it is parked for that.
        throttled: every send has to go through the provider's queue, whose rate is bounded.
    """

    version: int | None = None
    flags: tuple[FlagUsed, ...] = ()
    breaker: BreakerState | None = None
    not_now: str | None = None
    parked_reason: str | None = None
    throttled: bool = False

    def __str__(self) -> str:
        flags = "; ".join(f"{flag.key} {flag.said} ({flag.source})" for flag in self.flags)
        version = f", control version {self.version}" if self.version is not None else ""
        return f"{flags or 'on'}; breaker {self.breaker or 'unknown'}{version}"


class Change(Wire):
    """One change of a control: who, when, why, from what to what.

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
    """The one argument that a worker starts `ProviderControl` with.

    Attributes:
        taken_over: the last snapshot of a control that was terminated.
    """

    provider: str = Field(pattern=NAME_PATTERN, max_length=64)
    configured: IntegrationFlags = IntegrationFlags()
    taken_over: ControlSnapshot | None = None


class ControlMemory(Wire):
    """A control, whole: the second argument of a run that continues another one."""

    snapshot: ControlSnapshot
    changes: tuple[Change, ...] = ()
    last_error: str | None = None
    watch: Watch = Watch()
    is_drain_due: bool = False


class ControlStatus(Wire):
    """The answer of the query `status`.

    Attributes:
        changes: the latest, the newest first.
        last_error: the last thing that was wrong with something it was sent.
    """

    snapshot: ControlSnapshot
    changes: tuple[Change, ...] = ()
    last_error: str | None = None


class SetFlag(StrictModel):
    """The update (and the signal) `set_flag`.

    Attributes:
        operation: None for the whole provider.
        environment: whose flag; workers say theirs with ACKBRIDGE_ENVIRONMENT.
        state: `default` goes back to what the integration file says.
        percentage: of all keys, for the state `percentage`.
    """

    operation: str | None = Field(default=None, pattern=NAME_PATTERN, max_length=64)
    environment: str = Field(pattern=ENVIRONMENT_PATTERN, max_length=64)
    state: FlagState | Literal["default"]
    percentage: float | None = Field(default=None, ge=0, le=100)
    by: Actor
    reason: Reason

    @model_validator(mode="after")
    def _has_its_percentage(self) -> Self:
        if (self.state is FlagState.PERCENTAGE) is (self.percentage is None):
            raise ValueError("percentage: it belongs to the state percentage, and to no other")
        return self

    @property
    def value(self) -> FlagValue | None:
        """What the flag shall say; None: what the integration file says."""
        if self.state == "default":
            return None
        return FlagValue(state=self.state, percentage=self.percentage)


class Decision(Wire):
    """What the control loop has decided; only what changes.

    Attributes:
        breaker: where the breaker goes; not heeded while somebody holds it.
        deadlines: by operation, those that are new.
        rate: what the send queue shall be set to.
        watch: where the next watch goes on.
    """

    breaker: BreakerSetting | None = None
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    rate: SendRate | None = None
    watch: Watch | None = None
