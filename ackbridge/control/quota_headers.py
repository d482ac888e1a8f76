"""Read what a provider's rate-limit headers say of its quota.

The usual ones: `RateLimit` and `RateLimit-Policy` of the IETF's draft, in its newer form
(`"default";r=50;t=30`) and its older one (`limit=100, remaining=50, reset=5`), and the fields
`Limit`, `Remaining` and `Reset` after `RateLimit-`, `X-RateLimit-` or `X-Rate-Limit-`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from ackbridge.contracts.quotas import QuotaStatement

_PREFIXES: Final = ("ratelimit", "x-ratelimit", "x-rate-limit")

USUAL: Final = frozenset({"ratelimit", *(f"{prefix}-remaining" for prefix in _PREFIXES)})
"""One of these is there wherever a quota is stated under the usual names; in lower case."""

MAX_RESET: Final = timedelta(days=31)

_PARAMETER = re.compile(
    r"(?:^|[;,\s])(limit|remaining|reset|[qrtw])\s*=\s*([0-9.]+)", re.IGNORECASE
)
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:[,;]|$)")

_UNIX_SECONDS = 1e8
_UNIX_MILLISECONDS = 1e11
"""A larger number is a time, not a number of seconds."""


def read_statement(
    headers: Mapping[str, str], now: datetime, names: tuple[str, str, str | None] | None = None
) -> QuotaStatement | None:
    """What the headers say; None where they say nothing, or nothing that can be used.

    Args:
        headers: by lower-case name.
        names: of the headers with what remains, the reset and the limit, where a file names them.
    """
    if names is not None:
        remaining, reset, limit = (headers.get(one.lower()) if one else None for one in names)
        return _statement(remaining, reset, limit, now)
    if (field := headers.get("ratelimit")) is not None:
        policies = _read_fields(headers.get("ratelimit-policy", ""))
        return _strictest(_read_fields(field), policies, now)
    for prefix in _PREFIXES:
        if (remaining := headers.get(f"{prefix}-remaining")) is not None:
            reset, limit = headers.get(f"{prefix}-reset"), headers.get(f"{prefix}-limit")
            return _statement(remaining, reset, limit, now)
    return None


def _read_fields(value: str) -> dict[str, dict[str, str]]:
    """The parameters of each quota of a structured field, by its name; the older form has one."""
    if re.match(r"\s*(limit|remaining|reset)\s*=", value, re.IGNORECASE):
        return {"": {name.lower(): text for name, text in _PARAMETER.findall(value)}}
    quotas = {}
    for part in value.split(","):
        name, _, parameters = part.strip().partition(";")
        found = {key.lower(): text for key, text in _PARAMETER.findall(f";{parameters}")}
        quotas[name.strip('" ')] = found
    return quotas


def _strictest(
    quotas: Mapping[str, Mapping[str, str]],
    policies: Mapping[str, Mapping[str, str]],
    now: datetime,
) -> QuotaStatement | None:
    """Of several quotas, the one that leaves the lowest rate."""
    statements = []
    for name, values in quotas.items():
        policy = policies.get(name, {})
        found = _statement(
            values.get("r", values.get("remaining")),
            values.get("t", values.get("reset", policy.get("w"))),
            values.get("limit", policy.get("q")),
            now,
        )
        if found is not None:
            statements.append(found)
    return min(statements, key=lambda one: one.remaining / _left(one), default=None)


def _left(statement: QuotaStatement) -> float:
    return max(1.0, (statement.resets_at - statement.at).total_seconds())


def _statement(
    remaining: str | None, reset: str | None, limit: str | None, now: datetime
) -> QuotaStatement | None:
    left, resets_at = _number(remaining), _read_reset(reset, now)
    if left is None or resets_at is None:
        return None
    return QuotaStatement(at=now, remaining=left, resets_at=resets_at, limit=_number(limit))


def _number(text: str | None) -> float | None:
    found = _NUMBER.match(text) if text else None
    value = float(found[1]) if found else math.inf
    return value if math.isfinite(value) else None


def _read_reset(text: str | None, now: datetime) -> datetime | None:
    """Seconds from now, a Unix time in seconds or milliseconds, or a date."""
    number = _number(text)
    if number is None:
        at = _read_date(text) if text else None
    elif number < _UNIX_SECONDS:
        at = now + min(timedelta(seconds=number), MAX_RESET)
    else:
        seconds = number / 1000 if number >= _UNIX_MILLISECONDS else number
        at = datetime.fromtimestamp(seconds, UTC) if seconds < _UNIX_MILLISECONDS else None
    if at is None or at <= now or at - now > MAX_RESET:
        return None
    return at


def _read_date(text: str) -> datetime | None:
    for parse in _PARSERS:
        try:
            at = parse(text.strip())
        except (ValueError, TypeError, OverflowError):
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None


_PARSERS: Final[Sequence[Callable[[str], datetime]]] = (
    parsedate_to_datetime,
    datetime.fromisoformat,
)
