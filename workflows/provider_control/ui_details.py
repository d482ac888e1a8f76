"""A provider's control as a story, for the current details in the Temporal UI (Markdown)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.control import ControlSnapshot, ControlStatus

MOST_TOLD = 20
"""Changes in the current details."""

LONGEST_TOLD = 120
"""Characters of a reason there; the history has it whole."""


def tell_control(status: ControlStatus) -> str:
    """Say how everything of the provider stands, and what was changed last, by whom and why."""
    snapshot = status.snapshot
    breaker = snapshot.breaker
    held = f", held by {_plain(breaker.forced_by)}" if breaker.forced_by else ""
    lines = [
        f"**{snapshot.provider}**, version {snapshot.version} ({_clock(snapshot.at)})",
        "",
        f"- breaker: **{breaker.state}**{held} since {_clock(breaker.since)}:"
        f" {_plain(breaker.reason)}",
        *_sends(snapshot),
        *_flags(snapshot),
        *(
            f"- deadline of `{name}`: {learned.deadline.total_seconds():g} s:"
            f" {_plain(learned.reason)}"
            for name, learned in sorted(snapshot.deadlines.items())
        ),
    ]
    if status.last_error:
        lines.append(f"- last trouble: {_plain(status.last_error)}")
    if status.changes:
        lines += ["", "| when | who | what | from | to | why |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {_clock(one.at)} | {_plain(one.by)} | {_plain(one.subject)} | {_plain(one.before)}"
        f" | **{_plain(one.after)}** | {_plain(one.reason)} |"
        for one in status.changes[:MOST_TOLD]
    ]
    return "\n".join(lines)


def _sends(snapshot: ControlSnapshot) -> Iterator[str]:
    limit = snapshot.limit
    word = f", bounded to {limit.per_second:g}/s by {_plain(limit.by)}" if limit else ""
    if snapshot.rate is not None or limit is not None:
        yield f"- sends: **{snapshot.rate or 'as they were'}**{word}"


def _flags(snapshot: ControlSnapshot) -> Iterator[str]:
    configured = snapshot.configured.flags
    for environment in sorted({*snapshot.flags, *configured}):
        words = snapshot.flags.get(environment, {})
        for operation in sorted({*words, *configured.get(environment, {})}):
            word = words.get(operation)
            value = word or snapshot.configured.flag(environment, operation)
            source = f"{_plain(word.by)}: {_plain(word.reason)}" if word else "integration file"
            of = f"`{operation}`" if operation else "the provider"
            yield f"- flag of {of} in {_plain(environment)}: **{value}** ({source})"
    if not snapshot.flags and not configured:
        yield "- flags: **on** everywhere (nobody has said anything else)"


def _plain(text: str) -> str:
    """What people have written, so that it stays in its cell."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_TOLD else f"{text[: LONGEST_TOLD - 1]}…"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
