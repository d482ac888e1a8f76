# ruff: noqa: ARG002 -- the signatures of `ControlProvider` are OpenFeature's
"""Whether calls may be sent now: the flags, by OpenFeature, and the provider's breaker.

A flag's key is `<provider>` or `<provider>.<operation>`, its value whether a call may be sent. The
evaluation context is the call: `targetingKey` (the key), `provider`, `operation`, `audience`,
`environment`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode, TypeMismatchError
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, FeatureProvider, Metadata

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.calls import CallRequest, OutcomeCode
from ackbridge.contracts.control import (
    WHOLE_PROVIDER,
    AdmissionState,
    ControlSnapshot,
    FlagEvaluation,
    FlagState,
    FlagValue,
    IntegrationFlags,
    WithoutControl,
)
from ackbridge.errors import ConfigurationError

from .snapshots import Snapshots

log = logging.getLogger("ackbridge.control")


@dataclass(frozen=True)
class Availability:
    """Whether a batch may reprocess the parked calls of a provider."""

    unavailable_until: str | None = None  # what it has to wait for; None: it may start
    disabled_operations: frozenset[str] = frozenset()  # operations whose calls it leaves alone
    failing_operations: frozenset[str] = frozenset()  # those among them whose breaker is not closed


class HalfOpenLimiter:
    """Which calls of one worker pass the breaker: all when closed, none when open, few half open.

    The rate of the provider's queue limits all workers together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self._clock = clock
        self._admitted_at: dict[str, float] = {}

    def admits(self, snapshot: ControlSnapshot, operation: str) -> bool:
        """Whether a call may be sent; half open, it is a probe."""
        breaker, own = snapshot.breaker_of(operation), snapshot.breakers.get(operation)
        if breaker.state is BreakerState.CLOSED:
            return True
        is_held_open = breaker.forced_by is None and own and own.state is BreakerState.OPEN
        if breaker.state is BreakerState.OPEN or is_held_open:
            return False
        name, every = f"{snapshot.provider}.{operation}", breaker.probe_every
        if breaker is snapshot.breaker:
            # The rate may be below one probe per interval, and is set after the breaker.
            rate = snapshot.rate.per_second if snapshot.rate else None
            name, every = snapshot.provider, timedelta(seconds=1 / rate) if rate else None
        if not breaker.trickle or every is None:
            return False
        now = self._clock()
        last = self._admitted_at.get(name)
        if last is not None and now - last < every.total_seconds():
            return False
        self._admitted_at[name] = now
        return True


RIDES: Final = 200
MIN_RIDES: Final = 10
"""How many requests may be in flight within workflow tasks of one worker, all providers together;
each has an equal share, but at least the minimum."""


class RideLimiter:
    """Bounds how many requests of each provider are in flight within workflow tasks of this worker.

    Such a request, as part of a local activity, holds a slot. The worker has as many as all shares
    together, so that a slow provider uses up its own only. What is beyond the share of a provider
    goes through its queue, at nearly twice the cost.
    """

    def __init__(self, providers: int = 1) -> None:
        """Share the slots among this number of providers."""
        self.share = max(MIN_RIDES, RIDES // max(providers, 1))
        self._riding = Counter[str]()

    @contextmanager
    def ride(self, provider: str) -> Iterator[bool]:
        """Whether one more may ride; if so, it does until the end of the block."""
        may_ride = self._riding[provider] < self.share
        self._riding[provider] += may_ride
        try:
            yield may_ride
        finally:
            self._riding[provider] -= may_ride


class Admission:
    """Evaluates the flags of a provider and of an operation, and the breaker; all must allow."""

    def __init__(
        self,
        snapshots: Snapshots,
        environment: str,
        feature_provider: FeatureProvider | None = None,
    ) -> None:
        """Register with OpenFeature, under a domain of its own; by default for provider control."""
        self._snapshots = snapshots
        self._environment = environment
        self._is_own_provider = feature_provider is None
        self._failing: set[str] = set()
        self._limiter = HalfOpenLimiter()
        self._domain = f"ackbridge.{uuid.uuid4().hex}"
        provider = feature_provider or ControlProvider(snapshots.latest)
        self._source = provider.get_metadata().name
        try:
            api.set_provider_and_wait(provider, self._domain)
        except Exception as error:
            # A foreign provider may raise anything; it keeps trying to connect by itself.
            log.warning("flags: %s is not ready, using integration files: %s", self._source, error)
        self._client = api.get_client(self._domain)

    async def evaluate(
        self,
        request: CallRequest,
        configured: IntegrationFlags,
        without_control: WithoutControl = WithoutControl.SEND,
    ) -> AdmissionState:
        """Whether a call may be sent, and why not.

        Args:
            configured: the flags of the integration file.
            without_control: what happens to the call while the control cannot be read.
        """
        snapshot = await self._snapshots.snapshot(request.provider)
        target = FlagTarget.of(request, self._environment)
        flags = []
        for operation in (WHOLE_PROVIDER, request.operation):
            flag = await self._evaluate_flag(operation, target, configured)
            if flag is not None:
                flags.append(flag)
        state = AdmissionState(
            version=snapshot.version if snapshot else None,
            flags=tuple(flags),
            breaker=snapshot.breaker_of(request.operation).state if snapshot else None,
            throttled=snapshot is not None and snapshot.is_throttled,
            is_known=self._snapshots.is_known(request.provider),
        )
        not_now: tuple[str, OutcomeCode] | None = None
        denied_by = next((flag for flag in flags if not flag.allowed), None)
        if denied_by is not None:
            not_now = self._describe(denied_by), OutcomeCode.SWITCHED_OFF
        elif snapshot is not None and not self._limiter.admits(snapshot, request.operation):
            not_now = _describe_breaker(snapshot, request.operation), OutcomeCode.BREAKER_OPEN
        elif not state.is_known and without_control is WithoutControl.PARK:
            reason = f"the control of {request.provider} cannot be read: nothing is sent meanwhile"
            not_now = reason, OutcomeCode.NOT_SENT
        if not_now is None:
            return state
        return state.model_copy(update={"not_now": not_now[0], "parked_reason": not_now[1]})

    async def availability(self, provider: str, configured: IntegrationFlags) -> Availability:
        """Whether batches may reprocess a provider's parked calls.

        With a foreign feature provider only the breaker decides here; its flags are evaluated for
        each call.
        """
        snapshot = await self._snapshots.snapshot(provider)
        if not self._is_own_provider:
            configured = IntegrationFlags()
            snapshot = snapshot and snapshot.model_copy(update={"flags": {}})
        return availability(snapshot, configured, self._environment)

    async def _evaluate_flag(
        self, operation: str, target: FlagTarget, configured: IntegrationFlags
    ) -> FlagEvaluation | None:
        """The value of one flag for a call; None where it is set nowhere."""
        key = f"{target.provider}.{operation}" if operation else target.provider
        written = configured.flags.get(self._environment, {}).get(operation)
        default = allows(written or FlagValue(), target)
        details = await self._get_details(key, default, target)
        if details.error_code or details.variant is None:
            self._log_failure(key, details)
            if written is None:
                return None
            said, source = str(written), "integration file"
        else:
            said, source = details.variant, self._source
            if self._is_own_provider:
                metadata = details.flag_metadata
                source = f"{metadata.get('by')}: {metadata.get('reason')}"
        return FlagEvaluation(key=key, allowed=details.value, said=said, source=source)

    async def _get_details(
        self, key: str, default: bool, target: FlagTarget
    ) -> FlagEvaluationDetails[bool]:
        context = evaluation_context(target)
        if self._is_own_provider:
            return self._client.get_boolean_details(key, default, context)
        # A foreign provider may ask its server, and block.
        return await asyncio.to_thread(self._client.get_boolean_details, key, default, context)

    def _log_failure(self, key: str, details: FlagEvaluationDetails[bool]) -> None:
        """Log once that a flag cannot be evaluated; that it does not exist is no failure."""
        if details.error_code in (None, ErrorCode.FLAG_NOT_FOUND):
            self._failing.discard(key)
        elif key not in self._failing:
            self._failing.add(key)
            log.warning(
                "flag %s: %s does not answer (%s), using the integration file: %s",
                *(key, self._source, details.error_code, details.error_message),
            )

    def _describe(self, flag: FlagEvaluation) -> str:
        state = flag.said if flag.said in ("off", "internal") else f"on for {flag.said} of keys"
        if state == "internal":
            state = "on for internal users only"
        if not self._is_own_provider and flag.source == self._source:
            state = f"off for this call ({flag.said})"
        return f"{flag.key} is switched {state} in {self._environment} ({flag.source})"


def availability(
    snapshot: ControlSnapshot | None, configured: IntegrationFlags, environment: str
) -> Availability:
    """Whether batches may reprocess parked calls; without a snapshot the file decides."""
    names = set(configured.flags.get(environment, {}))
    if snapshot is not None:
        names |= set(snapshot.flags.get(environment, {}))
    overrides = {name: snapshot and snapshot.override(environment, name) for name in names}
    flags = {name: overrides[name] or configured.flag(environment, name) for name in names}
    off = {name for name, flag in flags.items() if flag.state is FlagState.OFF}
    until = None
    if snapshot is not None and snapshot.breaker.state is not BreakerState.CLOSED:
        state = snapshot.breaker.state.replace("_", "-")
        until = f"until the breaker closes, which is {state}: {snapshot.breaker.reason}"
    elif WHOLE_PROVIDER in off:
        until = f"until the provider is switched on in {environment}"
    closed_off = snapshot.failing_operations if snapshot is not None else frozenset()
    return Availability(until, frozenset(off - {WHOLE_PROVIDER}) | closed_off, closed_off)


def _describe_breaker(snapshot: ControlSnapshot, operation: str) -> str:
    breaker = snapshot.breaker_of(operation)
    is_own = breaker is not snapshot.breaker
    name = f"{snapshot.provider}.{operation}" if is_own else snapshot.provider
    held = f", held by {breaker.forced_by}" if breaker.forced_by else ""
    state = breaker.state.replace("_", " ")
    return f"the breaker of {name} is {state}: {breaker.reason}{held}"


INTERNAL: Final = "internal"
"""The audience of the calls that a flag in the state `internal` allows."""

CONTEXT_ATTRIBUTES: Final = ("provider", "operation", "audience", "environment")
"""The attributes of the evaluation context, besides the targeting key."""

_REASONS: Final = {
    FlagState.OFF: Reason.DISABLED,
    FlagState.ON: Reason.STATIC,
    FlagState.INTERNAL: Reason.TARGETING_MATCH,
    FlagState.PERCENTAGE: Reason.SPLIT,
}


@dataclass(frozen=True)
class FlagTarget:
    provider: str
    operation: str
    key: str
    audience: str | None
    environment: str

    @classmethod
    def of(cls, request: CallRequest, environment: str) -> FlagTarget:
        return cls(request.provider, request.operation, request.key, request.audience, environment)


def percentile(provider: str, key: str) -> float:
    """The position of a key among all keys of a provider, from 0 to below 100.

    It depends on nothing else: raising a percentage only adds keys, all operations of a provider
    agree about a key, and providers differ in which keys come first.
    """
    number = int.from_bytes(hashlib.sha256(f"{provider}\n{key}".encode()).digest()[:6])
    return number * 100 / 2**48


def allows(flag: FlagValue, target: FlagTarget) -> bool:
    if flag.state is FlagState.INTERNAL:
        return target.audience == INTERNAL
    if flag.percentage is not None:
        return percentile(target.provider, target.key) < flag.percentage
    return flag.state is FlagState.ON


def evaluation_context(target: FlagTarget) -> EvaluationContext:
    attributes = {name: getattr(target, name) or "" for name in CONTEXT_ATTRIBUTES}
    return EvaluationContext(targeting_key=target.key, attributes=attributes)


class ControlProvider(AbstractProvider):
    """Evaluates the flags that operators set, from the last snapshot of a control, without I/O."""

    def __init__(self, latest: Callable[[str], ControlSnapshot | None]) -> None:
        super().__init__()
        self._latest = latest

    def get_metadata(self) -> Metadata:
        return Metadata(name="AckbridgeControl")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether a call may be sent; the default where no operator has set the flag."""
        provider, _, operation = flag_key.partition(".")
        known = evaluation_context.attributes if evaluation_context else {}
        texts = {name: str(known.get(name) or "") for name in CONTEXT_ATTRIBUTES}
        key = (evaluation_context and evaluation_context.targeting_key) or ""
        target = FlagTarget(key=key, **texts)
        snapshot = self._latest(provider)
        override = snapshot.override(target.environment, operation) if snapshot else None
        if override is None:
            return FlagResolutionDetails(default_value, reason=Reason.DEFAULT)
        return FlagResolutionDetails(
            allows(override, target),
            reason=_REASONS[override.state],
            variant=str(override),
            flag_metadata={
                "by": override.by,
                "reason": override.reason,
                "at": override.at.isoformat(),
            },
        )

    def _refuse_type(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key}: flags of providers are boolean")

    resolve_string_details = _refuse_type
    resolve_integer_details = _refuse_type
    resolve_float_details = _refuse_type
    resolve_object_details = _refuse_type


def flagd() -> FeatureProvider:
    """flagd's OpenFeature provider, by its `FLAGD_*` variables; raises `ConfigurationError`."""
    try:
        # An optional dependency: it brings gRPC.
        from openfeature.contrib.provider.flagd import FlagdProvider
    except ImportError:
        raise ConfigurationError(
            "ACKBRIDGE_FLAGS: flagd is not installed: pip install 'ackbridge[flagd]'"
        ) from None
    try:
        return FlagdProvider()
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(f"FLAGD_*: {error}") from None
