"""Providers, and what operators set of them: flags, breakers, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query
from pydantic import Field
from starlette.responses import Response

from ackbridge.catalog.model import Integration
from ackbridge.client.control import ControlHandle
from ackbridge.client.limits import LimitView, read_limits
from ackbridge.contracts.breaker import BreakerState, BreakerStatus, ForceBreaker, SetLimit
from ackbridge.contracts.control import (
    CHANGED_SINCE,
    ENVIRONMENT_PATTERN,
    WHOLE_PROVIDER,
    ControlChange,
    ControlSnapshot,
    FlagOverride,
    FlagState,
    FlagValue,
    SetFlag,
)
from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import Name, Reason
from ackbridge.contracts.wire import StrictModel, Wire, parse_argument
from ackbridge.errors import AckbridgeError, EngineUnavailableError, InvalidRequestError

from .access import ApiParts, By, Parts
from .http import ETAG, StrictRoute, answer, conditional_tags
from .problems import CHANGED, NOT_FOUND, ProblemError, documented

router = APIRouter(tags=["providers"], route_class=StrictRoute)

ProviderName = Annotated[Name, Path(alias="provider")]
OperationName = Annotated[
    Name | None, Query(alias="operation", description="One operation; without: the provider.")
]
Environment = Annotated[
    str | None,
    Query(
        pattern=ENVIRONMENT_PATTERN,
        max_length=64,
        description="Whose flag; without: the environment of the API.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1024,
        description="The `ETag` of the setting as it was read: if it has changed, nothing is set.",
    ),
]

SETTING: Final[dict[int | str, dict[str, Any]]] = {
    200: ETAG,
    202: {"description": "No worker answers: it is stored, and takes effect when one runs."},
    **documented(NOT_FOUND, CHANGED),
}
READING: Final[dict[int | str, dict[str, Any]]] = {200: ETAG, **documented(NOT_FOUND)}


class OperationInfo(Wire):
    """An operation of a provider.

    Attributes:
        payload_schema: JSON Schema of the payload of its calls.
    """

    name: str
    payload_schema: Any = None


class ProviderInfo(Wire):
    """A provider, with what its control says.

    Attributes:
        breaker: the state of its breaker; None: its control does not answer.
        control_version: grows with every change of the control.
    """

    name: str
    operations: tuple[OperationInfo, ...]
    breaker: BreakerState | None = None
    control_version: int | None = None


class ProviderList(Wire):
    providers: tuple[ProviderInfo, ...]


class FlagView(Wire):
    """A flag.

    Attributes:
        operation: None: the whole provider.
        value: in effect.
        override: the operator's, in place of the integration file's.
    """

    environment: str
    operation: str | None
    value: FlagValue
    override: FlagOverride | None


class BreakerView(Wire):
    """A breaker; None as its status: it has always been closed."""

    operation: str | None
    status: BreakerStatus | None


class FlagBody(StrictModel):
    """A flag to set; `default` returns to the integration file."""

    state: FlagState | Literal["default"]
    percentage: float | None = Field(default=None, ge=0, le=100)
    reason: Reason


class BreakerBody(StrictModel):
    """A state to hold a breaker in; `auto` returns to the observed error rate."""

    state: BreakerState | Literal["auto"]
    reason: Reason


class LimitBody(StrictModel):
    """Sends per second, all workers together; null returns to the integration file."""

    per_second: float | None = Field(ge=0, le=100_000)
    reason: Reason


@router.get("/providers", response_model=ProviderList, operation_id="list_providers")
async def list_providers(parts: Parts, by: By) -> Response:
    """The providers of the API's integration files that the identity may see."""
    integrations = parts.catalog.integrations
    shown = [name for name in sorted(integrations) if by.may(Role.READ, name)]
    found = await asyncio.gather(*(_info(parts, integrations[name]) for name in shown))
    return answer(ProviderList(providers=tuple(found)))


@router.get(
    "/providers/{provider}",
    response_model=ProviderInfo,
    responses=documented(NOT_FOUND),
    operation_id="get_provider",
)
async def get_provider(provider: ProviderName, parts: Parts, by: By) -> Response:
    """One provider, and the payload schemas of its operations."""
    by.require(Role.READ, provider)
    known = parts.catalog.integrations.get(provider)
    if known is None:
        raise ProblemError(NOT_FOUND, f"there is no provider {provider!r}")
    return answer(await _info(parts, known))


async def _info(parts: ApiParts, integration: Integration) -> ProviderInfo:
    try:
        snapshot = await ControlHandle(parts.client, integration.provider).snapshot()
    except AckbridgeError:
        snapshot = None
    return ProviderInfo(
        name=integration.provider,
        operations=tuple(
            OperationInfo(
                name=name, payload_schema=one.payload_schema and one.payload_schema.source
            )
            for name, one in integration.operations.items()
        ),
        breaker=snapshot and snapshot.breaker.state,
        control_version=snapshot and snapshot.version,
    )


@router.get(
    "/providers/{provider}/flag",
    response_model=FlagView,
    responses=READING,
    operation_id="get_flag",
)
async def get_flag(
    provider: ProviderName,
    parts: Parts,
    by: By,
    operation: OperationName = None,
    environment: Environment = None,
) -> Response:
    """A flag; `ETag` identifies its value, for `If-Match`."""
    by.require(Role.READ, provider)
    snapshot = await _snapshot(parts, provider)
    return _flag(snapshot, environment or parts.environment, operation)


@router.put(
    "/providers/{provider}/flag",
    response_model=FlagView,
    responses=SETTING,
    operation_id="set_flag",
)
async def set_flag(
    provider: ProviderName,
    body: FlagBody,
    parts: Parts,
    by: By,
    operation: OperationName = None,
    environment: Environment = None,
    if_match: IfMatch = None,
) -> Response:
    """Set a flag for all calls that are prepared about a second later; calls in flight finish."""
    by.require(Role.CONFIGURE, provider)
    where = environment or parts.environment
    snapshot = await _snapshot(parts, provider)
    fields = {
        **dict(body),
        "operation": operation,
        "environment": where,
        "by": by.by,
        "expected": _expected(if_match, snapshot.flag_tag(where, operation)),
    }
    command = parse_argument(SetFlag, (fields,))
    control = ControlHandle(parts.client, provider)
    code = await _set(lambda: control.set_flag(command))
    return _flag(await _snapshot(parts, provider), where, operation, code)


def _flag(
    snapshot: ControlSnapshot, environment: str, operation: str | None, status: int = 200
) -> Response:
    name = operation or WHOLE_PROVIDER
    override = snapshot.override(environment, name)
    view = FlagView(
        environment=environment,
        operation=operation,
        value=FlagValue(state=override.state, percentage=override.percentage)
        if override
        else snapshot.configured.flag(environment, name),
        override=override,
    )
    return _setting(view, snapshot.flag_tag(environment, operation), status)


@router.get(
    "/providers/{provider}/breaker",
    response_model=BreakerView,
    responses=READING,
    operation_id="get_breaker",
)
async def get_breaker(
    provider: ProviderName, parts: Parts, by: By, operation: OperationName = None
) -> Response:
    """A breaker; `ETag` identifies its status, for `If-Match`."""
    by.require(Role.READ, provider)
    return _breaker(await _snapshot(parts, provider), operation)


@router.put(
    "/providers/{provider}/breaker",
    response_model=BreakerView,
    responses=SETTING,
    operation_id="force_breaker",
)
async def force_breaker(
    provider: ProviderName,
    body: BreakerBody,
    parts: Parts,
    by: By,
    operation: OperationName = None,
    if_match: IfMatch = None,
) -> Response:
    """Hold a breaker in a state, until `auto`."""
    by.require(Role.CONFIGURE, provider)
    snapshot = await _snapshot(parts, provider)
    fields = {
        "state": None if body.state == "auto" else body.state,
        "operation": operation,
        "by": by.by,
        "reason": body.reason,
        "expected": _expected(if_match, snapshot.breaker_tag(operation)),
    }
    command = parse_argument(ForceBreaker, (fields,))
    control = ControlHandle(parts.client, provider)
    code = await _set(lambda: control.force_breaker(command))
    return _breaker(await _snapshot(parts, provider), operation, code)


def _breaker(snapshot: ControlSnapshot, operation: str | None, status: int = 200) -> Response:
    found = snapshot.breaker if operation is None else snapshot.breakers.get(operation)
    view = BreakerView(operation=operation, status=found)
    return _setting(view, snapshot.breaker_tag(operation), status)


@router.get(
    "/providers/{provider}/limit",
    response_model=LimitView,
    responses=READING,
    operation_id="get_limit",
)
async def get_limit(provider: ProviderName, parts: Parts, by: By) -> Response:
    """How fast the provider is sent requests; `ETag` identifies an operator's limit alone."""
    by.require(Role.READ, provider)
    return await _limit(parts, await _snapshot(parts, provider))


@router.put(
    "/providers/{provider}/limit",
    response_model=LimitView,
    responses=SETTING,
    operation_id="set_limit",
)
async def set_limit(
    provider: ProviderName, body: LimitBody, parts: Parts, by: By, if_match: IfMatch = None
) -> Response:
    """Limit the sends of all workers together; acknowledgements are not limited."""
    by.require(Role.CONFIGURE, provider)
    snapshot = await _snapshot(parts, provider)
    expected = _expected(if_match, snapshot.limit_tag())
    fields = {**dict(body), "by": by.by, "expected": expected}
    command = parse_argument(SetLimit, (fields,))
    control = ControlHandle(parts.client, provider)
    code = await _set(lambda: control.set_limit(command))
    return await _limit(parts, await _snapshot(parts, provider), code)


async def _limit(parts: ApiParts, snapshot: ControlSnapshot, status: int = 200) -> Response:
    view = await read_limits(snapshot, parts.ledger, parts.clock)
    return _setting(view, snapshot.limit_tag(), status)


async def _snapshot(parts: ApiParts, provider: str) -> ControlSnapshot:
    snapshot = await ControlHandle(parts.client, provider).snapshot()
    if snapshot is None:
        raise EngineUnavailableError(f"{provider}: its control has just started; try again")
    return snapshot


def _expected(if_match: str | None, tag: str) -> str | None:
    """What the control compares once more, when it sets: another request may come first."""
    if if_match is None or if_match.strip() == "*":
        return None
    if f'"{tag}"' not in conditional_tags(if_match):
        raise ProblemError(CHANGED, "the setting has changed since it was read")
    return tag


async def _set(change: Callable[[], Awaitable[ControlChange | None]]) -> int:
    """Set something; returns 200, or 202 while no worker can confirm it."""
    try:
        return 200 if await change() else 202
    except InvalidRequestError as error:
        if str(error) == CHANGED_SINCE:
            raise ProblemError(CHANGED, "the setting has changed since it was read") from None
        raise


def _setting(view: Wire, tag: str, status: int) -> Response:
    return answer(view, status=status, headers={"ETag": f'"{tag}"'})
