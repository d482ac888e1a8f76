"""What was observed of an operation: how often what happened, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from .quantile_sketch import Sketch


class Count(StrEnum):
    """What is counted. Stored by these names: they are only ever added.

    The provider's doing, about its sends (each attempt is one):

    Attributes:
        RECEIPTS: it has the request.
        REFUSED: it answered, and will not do it.
        THROTTLED: it answered 408, 425 or 429: later.
        UNANSWERED: it did not answer in time, could not be reached, or answered 5xx.

    About its responses (each cycle is one):

    Attributes:
        ANSWERS: the response came and was recorded, late ones included.
        FAILURES: it reported a failure.
        SILENCES: the deadline passed without either.
        LATE: answers that came after their silence had been counted.
        DUPLICATES: messages that were suppressed because their event had been seen.

    About what else it is told and asked:

    Attributes:
        ASKED, ASKED_IN_VAIN: status requests that it answered, and that it did not.
        ACKNOWLEDGED, UNACKNOWLEDGED: acknowledgements that it accepted, and that it did not.
        HEALTHY, UNHEALTHY, UNCLEAR: health requests: well, not well, an answer that says nothing.

    And ours:

    Attributes:
        OURS: our own trouble: the ledger away, a secret missing, a request that cannot be made.
    """

    RECEIPTS = "receipts"
    REFUSED = "refused"
    THROTTLED = "throttled"
    UNANSWERED = "unanswered"
    ANSWERS = "answers"
    FAILURES = "failures"
    SILENCES = "silences"
    LATE = "late"
    DUPLICATES = "duplicates"
    ASKED = "asked"
    ASKED_IN_VAIN = "asked_in_vain"
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNCLEAR = "unclear"
    OURS = "ours"


THEIR_TROUBLE = (
    Count.UNANSWERED,
    Count.THROTTLED,
    Count.FAILURES,
    Count.SILENCES,
    Count.ASKED_IN_VAIN,
    Count.UNACKNOWLEDGED,
    Count.UNHEALTHY,
)
"""What counts as an error of the provider. A refusal does not: the request may deserve it."""


class Times(StrEnum):
    """What is timed, in seconds. Stored by these names.

    Attributes:
        RECEIPT: from an attempt to its receipt.
        ANSWER: from the sending to the provider's last word (a response or a failure), late ones
            included; where it is not known which of several sendings was answered, not.
        OVERDUE: those among them that came after their call's deadline: late, or it was extended.
        SILENCE: for how long calls had waited when they gave up, but for those answered later.
    """

    RECEIPT = "receipt"
    ANSWER = "answer"
    OVERDUE = "overdue"
    SILENCE = "silence"


class Observed:
    """Counts and times of one operation; two of them add up."""

    __slots__ = ("counts", "times")

    def __init__(self) -> None:
        self.counts: dict[Count, int] = dict.fromkeys(Count, 0)
        self.times: dict[Times, Sketch] = {name: Sketch() for name in Times}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Observed):
            return NotImplemented
        return self.counts == other.counts and self.times == other.times

    __hash__ = None  # type: ignore[assignment]  # what changes cannot be a key

    def __repr__(self) -> str:
        return f"Observed({self.plain()})"

    def __getitem__(self, what: Count) -> int:
        return self.counts[what]

    def merge(self, other: Observed) -> None:
        """Add everything that was observed elsewhere."""
        for what, count in other.counts.items():
            self.counts[what] += count
        for name, sketch in other.times.items():
            self.times[name].merge(sketch)

    @property
    def sends(self) -> int:
        """Attempts of sends, whatever became of them, but for those we could not even make."""
        return sum(
            self.counts[what]
            for what in (Count.RECEIPTS, Count.REFUSED, Count.THROTTLED, Count.UNANSWERED)
        )

    @property
    def errors(self) -> int:
        """How often the provider was in trouble; ours is in `Count.OURS`."""
        return sum(self.counts[what] for what in THEIR_TROUBLE)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; what is nothing is left out."""
        times = {str(name): sketch.plain() for name, sketch in self.times.items()}
        return {
            "counts": {str(what): count for what, count in self.counts.items() if count},
            "times": {name: bins for name, bins in times.items() if bins},
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON; what a newer version counts as well is left out."""
        read = cls()
        for name, count in plain["counts"].items():
            if name in _COUNTS:
                read.counts[Count(name)] = count
        for name, bins in plain["times"].items():
            if name in _TIMES:
                read.times[Times(name)] = Sketch.read(bins)
        return read


_COUNTS = frozenset(str(what) for what in Count)
_TIMES = frozenset(str(name) for name in Times)
