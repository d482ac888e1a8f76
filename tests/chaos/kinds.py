"""Under what a finding is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

from .cases import Case
from .records import Ledgered


class Kind(StrEnum):
    """What a finding is counted under; `broken` is for every other promise."""

    LOST = "lost"
    APPLIED_TWICE = "applied twice"
    UNACKNOWLEDGED = "unacknowledged"
    HUNG = "hung"
    BROKEN = "broken promises"


Check = Callable[[Case, Ledgered], Iterator[tuple[Kind, str]]]
"""Looks at one call, and says what must not be."""
