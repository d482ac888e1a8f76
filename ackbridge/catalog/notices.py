"""From the notices of an operation and a call's context to what a user reads. Pure."""

from __future__ import annotations

from ackbridge.contracts import Notice

from .expressions import ExpressionFailed
from .operation import NoticeText
from .templates import Context, TextTemplate

LONGEST_TITLE = 120
LONGEST_TEXT = 600
"""Characters of a message, and of an alternative; every call carries its notices."""


def render_notice(kind: str, text: NoticeText, context: Context) -> Notice | None:
    """One notice; None where it cannot be said, because a template has no usable value.

    Args:
        kind: `delayed`, `failed`, `refused` or `cancelled`.
        context: payload, metadata, call.
    """
    try:
        title = _bounded(text.title, context, LONGEST_TITLE)
        message = _bounded(text.message, context, LONGEST_TEXT)
        alternative = (
            _bounded(text.alternative, context, LONGEST_TEXT) if text.alternative else None
        )
    except ExpressionFailed:
        return None
    if not title or not message:
        return None
    return Notice(kind=kind, title=title, message=message, alternative=alternative or None)


def _bounded(template: TextTemplate, context: Context, longest: int) -> str:
    text = template.text(context).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
