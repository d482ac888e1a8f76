"""Markdown for the current details of workflows in the Temporal UI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Notice

MAX_TEXT = 120
"""Characters of a text shown; the history has it in full."""


def document(*blocks: str) -> str:
    """Join blocks by blank lines; empty blocks are left out."""
    return "\n\n".join(block for block in blocks if block)


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; empty without rows. Pass free text through `one_line`."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    if not body:
        return ""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *body])


def quote_notice(notice: Notice | None) -> str:
    """What the caller's user is shown, as a quotation."""
    if notice is None:
        return ""
    lines = [f"**{notice.title}** {notice.message}"]
    if notice.expected_at:
        lines.append(f"Expected by {timestamp(notice.expected_at)}.")
    if notice.alternative:
        lines.append(notice.alternative)
    return "\n".join(f"> {line}" for line in lines)


def one_line(text: str, length: int = MAX_TEXT) -> str:
    """Free text, shortened and escaped so that it stays in its line or table cell."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= length else f"{text[: length - 1]}…"


def timestamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
