"""Whether a call may be sent now: its flags, by OpenFeature, and its provider's breaker."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

from openfeature import api
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails
from openfeature.provider import FeatureProvider

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import (
    WHOLE_PROVIDER,
    AdmissionState,
    ControlSnapshot,
    FlagEvaluation,
    FlagValue,
    IntegrationFlags,
)

from .availability import closed_operations, why_closed
from .flags import Target, allows
from .half_open_limiter import HalfOpenLimiter
from .open_feature import ControlProvider, context_of
from .snapshots import Snapshots

log = logging.getLogger("ackbridge.control")

SWITCHED_OFF: Final = "switched_off"
BREAKER_OPEN: Final = "breaker_open"
"""Why a call that is kept back is parked, as operators find it."""


class Admission:
    """Asks the flags of a provider and of an operation; both have to let a call through."""

    def __init__(
        self,
        snapshots: Snapshots,
        environment: str,
        feature_provider: FeatureProvider | None = None,
    ) -> None:
        """Register with OpenFeature, under a domain of its own.

        Args:
            environment: whose flags are asked.
            feature_provider: who answers; None for provider control.
        """
        self._snapshots = snapshots
        self._environment = environment
        self._is_ours = feature_provider is None
        self._troubled: set[str] = set()
        self._turnstile = HalfOpenLimiter()
        self._domain = f"ackbridge.{uuid.uuid4().hex}"
        provider = feature_provider or ControlProvider(snapshots.latest)
        self._source = provider.get_metadata().name
        try:
            api.set_provider_and_wait(provider, self._domain)
        except Exception as error:
            # A foreign provider may raise anything; it goes on trying by itself.
            log.warning("flags: %s is not ready, the files hold: %s", self._source, error)
        self._client = api.get_client(self._domain)

    async def standing(self, request: CallRequest, configured: IntegrationFlags) -> AdmissionState:
        """How everything stands for a call, and why it may not be sent, if so.

        Args:
            configured: what the integration file says.
        """
        snapshot = await self._snapshots.snapshot(request.provider)
        target = Target.of(request, self._environment)
        used = []
        for operation in (WHOLE_PROVIDER, request.operation):
            asked = await self._ask(operation, target, configured)
            if asked is not None:
                used.append(asked)
        standing = AdmissionState(
            version=snapshot.version if snapshot else None,
            flags=tuple(used),
            breaker=snapshot.breaker.state if snapshot else None,
            throttled=snapshot is not None and snapshot.is_throttled,
        )
        kept_back = next((flag for flag in used if not flag.allowed), None)
        if kept_back is not None:
            return standing.model_copy(
                update={
                    "not_now": self._say(kept_back),
                    "parked_reason": SWITCHED_OFF,
                }
            )
        if snapshot is not None and not self._turnstile.admits(snapshot):
            state = snapshot.breaker.state.replace("_", " ")
            not_now = f"the breaker of {request.provider} is {state}: {_why(snapshot)}"
            return standing.model_copy(update={"not_now": not_now, "parked_reason": BREAKER_OPEN})
        return standing

    async def closed(
        self, provider: str, configured: IntegrationFlags
    ) -> tuple[str | None, frozenset[str]]:
        """Why a provider is closed to batches; and else, which of its operations are.

        Where somebody else answers for flags, each call is asked when it is taken up.

        Args:
            configured: what the integration file says.
        """
        snapshot = await self._snapshots.snapshot(provider)
        if not self._is_ours:
            return why_closed(snapshot, IntegrationFlags(), self._environment), frozenset()
        reason = why_closed(snapshot, configured, self._environment)
        return reason, closed_operations(snapshot, configured, self._environment)

    async def _ask(
        self, operation: str, target: Target, configured: IntegrationFlags
    ) -> FlagEvaluation | None:
        """What one flag says of a call; None where nobody has said anything of it."""
        key = f"{target.provider}.{operation}" if operation else target.provider
        written = configured.flags.get(self._environment, {}).get(operation)
        default = written or FlagValue()
        found = await self._evaluate(key, allows(default, target), target)
        if found.error_code or found.variant is None:
            self._notice(key, found)
            if written is None:
                return None
            said, source = str(written), "integration file"
        else:
            said, source = found.variant, self._who(found)
        return FlagEvaluation(key=key, allowed=found.value, said=said, source=source)

    async def _evaluate(
        self, key: str, default: bool, target: Target
    ) -> FlagEvaluationDetails[bool]:
        context = context_of(target)
        if self._is_ours:
            return self._client.get_boolean_details(key, default, context)
        # A foreign provider may ask its server, and block.
        return await asyncio.to_thread(self._client.get_boolean_details, key, default, context)

    def _who(self, found: FlagEvaluationDetails[bool]) -> str:
        if not self._is_ours:
            return self._source
        return f"{found.flag_metadata.get('by')}: {found.flag_metadata.get('reason')}"

    def _notice(self, key: str, found: FlagEvaluationDetails[bool]) -> None:
        """Say once that a flag cannot be asked; one that does not exist is nothing to say."""
        if found.error_code in (None, ErrorCode.FLAG_NOT_FOUND):
            self._troubled.discard(key)
        elif key not in self._troubled:
            self._troubled.add(key)
            log.warning(
                "flag %s: %s does not answer (%s), the file holds: %s",
                *(key, self._source, found.error_code, found.error_message),
            )

    def _say(self, flag: FlagEvaluation) -> str:
        state = flag.said if flag.said in ("off", "internal") else f"on for {flag.said} of keys"
        if state == "internal":
            state = "on for internal users only"
        if not self._is_ours and flag.source == self._source:
            state = f"off for this call ({flag.said})"
        return f"{flag.key} is switched {state} in {self._environment} ({flag.source})"


def _why(snapshot: ControlSnapshot) -> str:
    held = f", held by {snapshot.breaker.forced_by}" if snapshot.breaker.forced_by else ""
    return f"{snapshot.breaker.reason}{held}"
