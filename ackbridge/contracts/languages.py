"""Which of several languages somebody gets who has asked for one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

LANGUAGE_PATTERN: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
"""A language tag of BCP 47, such as `de`, `en-US` or `zh-Hant-TW`."""


def best_language(wanted: str | None, known: Iterable[str]) -> str | None:
    """The one of the known languages that comes nearest, by the lookup of RFC 4647.

    Args:
        wanted: a language tag: `de-CH-1996` finds `de-CH-1996`, else `de-CH`, else `de`.
        known: language tags; upper and lower case are the same.

    Returns:
        The known tag as it is written there; None when there is none, or none is wanted.
    """
    by_tag = {tag.lower(): tag for tag in known}
    parts = wanted.lower().split("-") if wanted else []
    while parts:
        if found := by_tag.get("-".join(parts)):
            return found
        parts.pop()
    return None
