"""Regular expressions of integration files, which run in linear time (RE2)."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

MAX_PATTERN_LENGTH: Final = 1000
"""Characters."""


@cache
def compile_pattern(pattern: str) -> Any:
    """Compile a pattern.

    Raises:
        ValueError: RE2 does not support it, such as a backreference or a lookahead.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"a pattern has at most {MAX_PATTERN_LENGTH} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "invalid"
        raise ValueError(
            f"{pattern}: not a pattern that runs in linear time (RE2): {reason}"
        ) from None


def finds(pattern: str, text: str) -> bool:
    """Whether a pattern matches somewhere in a text."""
    # RE2 takes UTF-8 only; a lone surrogate is no character that a pattern could mean.
    readable = text.encode("utf-8", "replace").decode()
    return compile_pattern(pattern).search(readable) is not None
