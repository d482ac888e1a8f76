"""The categories of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

from .cases import Case
from .records import EventRecords


class Kind(StrEnum):
    """The category of a finding; `broken` covers all other guarantees."""

    LOST = "lost"
    APPLIED_TWICE = "applied twice"
    UNACKNOWLEDGED = "unacknowledged"
    UNTRUE = "untrue"
    HUNG = "hung"
    BROKEN = "broken promises"


Check = Callable[[Case, EventRecords], Iterator[tuple[Kind, str]]]
"""Checks one call; yields what must not be."""
