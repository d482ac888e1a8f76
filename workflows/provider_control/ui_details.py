"""Markdown of a provider's control, for the current details in the Temporal UI."""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.breaker import BreakerStatus
    from ackbridge.contracts.control import ControlChange, ControlSnapshot, ControlStatus
    from workflows.hosting.markdown import bullets, document, one_line, timestamp

MAX_CHANGES_SHOWN = 20


def render(status: ControlStatus) -> str:
    snapshot = status.snapshot
    return document(
        f"**{snapshot.provider}**, version {snapshot.version} ({timestamp(snapshot.at)})",
        bullets(_items(status)),
        "**Changes**, the latest first" if status.changes else "",
        bullets(_change(change) for change in status.changes[:MAX_CHANGES_SHOWN]),
    )


def _change(change: ControlChange) -> str:
    """In a sentence, which wraps: the Temporal UI cuts off wide tables."""
    return (
        f"{timestamp(change.at)}: {one_line(change.subject)}: {one_line(change.before)}"
        f" → **{one_line(change.after)}**, by {one_line(change.by)}: {one_line(change.reason)}"
    )


def _items(status: ControlStatus) -> Iterator[str]:
    snapshot = status.snapshot
    yield f"breaker: {_breaker(snapshot.breaker)}"
    for name, breaker in sorted(snapshot.breakers.items()):
        if not breaker.is_unrestricted:
            yield f"breaker of `{name}`: {_breaker(breaker)}"
    limit = snapshot.limit
    limited = f", limited to {limit.per_second:g}/s by {one_line(limit.by)}" if limit else ""
    if snapshot.rate is not None or limit is not None:
        yield f"sends: **{snapshot.rate or 'unchanged'}**{limited}"
    for tenant, quota in sorted(snapshot.quotas.items()):
        whose = f"tenant `{one_line(tenant)}`" if tenant else "the provider"
        yield f"{whose} accepts: **{quota}** or so: {one_line(quota.reason)}"
    yield from _flags(snapshot)
    for name, learned in sorted(snapshot.deadlines.items()):
        seconds = learned.deadline.total_seconds()
        yield f"deadline of `{name}`: {seconds:g} s: {one_line(learned.reason)}"
    if status.recoveries:
        recovery = status.recoveries[0]
        batch = f"`{recovery.batch}`" if recovery.batch else "no call was parked"
        yield f"recovery from the outage since {timestamp(recovery.since)}: {batch}"
    if status.quarantined:
        calls = ", ".join(f"`{one_line(call)}`" for call in status.quarantined)
        yield f"in quarantine, because they fail again and again alone: {calls}"
    if status.last_error:
        yield f"last error: {one_line(status.last_error)}"


def _breaker(breaker: BreakerStatus) -> str:
    held = f", held by {one_line(breaker.forced_by)}" if breaker.forced_by else ""
    since = f"since {timestamp(breaker.since)}"
    return f"**{breaker.state}**{held} {since}: {one_line(breaker.reason)}"


def _flags(snapshot: ControlSnapshot) -> Iterator[str]:
    configured = snapshot.configured.flags
    for environment in sorted({*snapshot.flags, *configured}):
        overrides = snapshot.flags.get(environment, {})
        for operation in sorted({*overrides, *configured.get(environment, {})}):
            override = overrides.get(operation)
            value = override or snapshot.configured.flag(environment, operation)
            source = "integration file"
            if override:
                source = f"{one_line(override.by)}: {one_line(override.reason)}"
            subject = f"`{operation}`" if operation else "the provider"
            yield f"flag of {subject} in {one_line(environment)}: **{value}** ({source})"
    if not snapshot.flags and not configured:
        yield "flags: **on** everywhere (none is set)"
