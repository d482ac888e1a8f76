"""A quantile sketch: times in bins whose bounds grow by a constant factor, so that sketches add up.

A value read from a sketch is within `ACCURACY` of the true one, whatever the distribution. The
scheme is DDSketch's (Masson, Rim, Lee: VLDB 2019); `docs/decisions/0013` says why it is our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

ACCURACY: Final = 0.02
"""The relative error of a time read from a sketch."""

SHORTEST: Final = 0.001
LONGEST: Final = 7 * 86400.0
"""Seconds. Times outside this range count as its bounds: a sketch has at most 512 bins."""

_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE: Final = 1 / math.log(_GAMMA)


def bin_of(seconds: float) -> int:
    """The bin of a time. Bins are stored: their bounds never change."""
    return math.ceil(math.log(min(max(seconds, SHORTEST), LONGEST)) * _SCALE)


def time_of(number: int) -> float:
    """The time, in seconds, that represents a bin."""
    return 2 * _GAMMA**number / (_GAMMA + 1)


@dataclass(slots=True)
class QuantileSketch:
    """How often each time was seen. A negative weight takes back what was added elsewhere."""

    _bins: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, weight: int = 1) -> None:
        """Add a time; the weight -1 takes it back."""
        number = bin_of(seconds)
        self._bins[number] = self._bins.get(number, 0) + weight

    def merge(self, other: Self) -> None:
        for number, count in other._bins.items():
            self._bins[number] = self._bins.get(number, 0) + count

    @property
    def count(self) -> int:
        return sum(count for _, count in self.bins())

    def bins(self) -> Iterator[tuple[int, int]]:
        """Bins and their counts, in ascending order.

        A bin of which more was taken back than added, because the rest has expired, is left out.
        """
        return (
            (number, self._bins[number]) for number in sorted(self._bins) if self._bins[number] > 0
        )

    def quantile(self, quantile: float) -> float | None:
        """The time, in seconds, at a quantile from 0 to 1; None for an empty sketch."""
        seen, rank = 0, max(1, math.ceil(quantile * self.count))
        for number, count in self.bins():
            seen += count
            if seen >= rank:
                return time_of(number)
        return None

    def to_json(self) -> dict[str, int]:
        return {str(number): count for number, count in self._bins.items() if count}

    @classmethod
    def from_json(cls, plain: Mapping[str, int]) -> Self:
        return cls({int(number): count for number, count in plain.items()})
