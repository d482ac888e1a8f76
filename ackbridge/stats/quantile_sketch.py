"""Quantile sketches: response times in bins that grow by a factor, so that sketches can be added.

A value read from a sketch is within `ACCURACY` of the true one, whatever the distribution. The
scheme is DDSketch's (Masson, Rim, Lee: VLDB 2019); `docs/decisions/0013` says why it is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, Self

ACCURACY: Final = 0.02
"""How far a time read from a sketch may be from the true one, as a share of it."""

SHORTEST: Final = 0.001
LONGEST: Final = 7 * 86400.0
"""Seconds. What is shorter or longer counts as this: a sketch has 512 bins at the most."""

_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE: Final = 1 / math.log(_GAMMA)


def bin_of(seconds: float) -> int:
    """The bin that a time falls into; bins are the same in every sketch, for ever."""
    return math.ceil(math.log(min(max(seconds, SHORTEST), LONGEST)) * _SCALE)


def time_of(number: int) -> float:
    """The time, in seconds, that stands for a bin."""
    return 2 * _GAMMA**number / (_GAMMA + 1)


class Sketch:
    """How often which time was seen. A weight below zero takes back what was added elsewhere."""

    __slots__ = ("_bins",)

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self._bins: dict[int, int] = dict(bins or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._bins == other._bins

    __hash__ = None  # type: ignore[assignment]  # what changes cannot be a key

    def __repr__(self) -> str:
        return f"Sketch({self._bins})"

    def add(self, seconds: float, weight: int = 1) -> None:
        """Add a time; or take it back, with the weight -1."""
        number = bin_of(seconds)
        self._bins[number] = self._bins.get(number, 0) + weight

    def merge(self, other: Self) -> None:
        """Add everything that another sketch has seen."""
        for number, count in other._bins.items():
            self._bins[number] = self._bins.get(number, 0) + count

    @property
    def count(self) -> int:
        """How many times it has seen, what was taken back left out."""
        return sum(count for _, count in self.bins())

    def bins(self) -> Iterator[tuple[int, int]]:
        """Bins and their counts, the shortest times first.

        What was taken back and has never been seen here (it has been pruned) counts as nothing.
        """
        return (
            (number, self._bins[number]) for number in sorted(self._bins) if self._bins[number] > 0
        )

    def quantile(self, quantile: float) -> float | None:
        """The time, in seconds, within which this share was seen; None of an empty sketch."""
        seen, rank = 0, max(1, math.ceil(quantile * self.count))
        for number, count in self.bins():
            seen += count
            if seen >= rank:
                return time_of(number)
        return None

    def plain(self) -> dict[str, int]:
        """As JSON has it."""
        return {str(number): count for number, count in self._bins.items() if count}

    @classmethod
    def read(cls, plain: Mapping[str, int]) -> Self:
        """From JSON."""
        return cls({int(number): count for number, count in plain.items()})
