"""From the notices of an operation and a call's context to what a user reads. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ackbridge.contracts.calls import Notice

from .expressions import ExpressionError
from .notice_texts import NoticeTexts
from .templates import Context, TextTemplate

LONGEST_TITLE = 120
LONGEST_TEXT = 600
"""Characters of a message, and of an alternative; every call carries its notices."""

Clean = Callable[[str], str]
"""Takes out of a value what must not be shown."""


def render_notice(
    kind: str,
    texts: NoticeTexts,
    context: Context,
    language: str | None = None,
    clean: Clean | None = None,
) -> Notice | None:
    """One notice; None where it cannot be said, because a template has no usable value.

    Args:
        kind: one of `NOTICE_KINDS`.
        context: payload, metadata, call.
        language: which the user reads, a language tag.
        clean: what every value goes through before it is put into the text.
    """
    text = texts.choose(language)
    try:
        title = _bounded(text.title, context, LONGEST_TITLE, clean)
        message = _bounded(text.message, context, LONGEST_TEXT, clean)
        alternative = (
            _bounded(text.alternative, context, LONGEST_TEXT, clean) if text.alternative else None
        )
    except ExpressionError:
        return None
    if not title or not message:
        return None
    return Notice(kind=kind, title=title, message=message, alternative=alternative or None)


def _bounded(template: TextTemplate, context: Context, longest: int, clean: Clean | None) -> str:
    text = template.text(context, clean).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
