"""Every metric of ours: its name, its unit, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ackbridge.stats.counters import Count, Timing


@dataclass(frozen=True)
class Counter:
    """A counter, and the outcome under which one `Count` is added to it; "" for a single one."""

    name: str
    outcome: str
    description: str


_SENDS = "ackbridge.sends", "Attempts to send a request, by how the provider took them"
_CYCLES = "ackbridge.cycles", "Rounds of a call that ended, by how: an answer, a failure, silence"
_ASKED = "ackbridge.status.requests", "Status requests, by whether the provider answered"
_ACKNOWLEDGED = "ackbridge.acknowledgements", "Acknowledgements, by whether they were accepted"
PROBES: Final = "ackbridge.probes"
_PROBES = PROBES, "Health requests, by what they found"


def _counter(name_and_description: tuple[str, str], outcome: str) -> Counter:
    return Counter(name_and_description[0], outcome, name_and_description[1])


COUNTERS: Final[Mapping[Count, Counter]] = {
    Count.RECEIPTS: _counter(_SENDS, "receipt"),
    Count.REFUSED: _counter(_SENDS, "refused"),
    Count.THROTTLED: _counter(_SENDS, "throttled"),
    Count.UNANSWERED: _counter(_SENDS, "unanswered"),
    Count.ANSWERS: _counter(_CYCLES, "answer"),
    Count.FAILURES: _counter(_CYCLES, "failure"),
    Count.SILENCES: _counter(_CYCLES, "silence"),
    Count.LATE: Counter("ackbridge.answers.late", "", "Answers after their silence was counted"),
    Count.DUPLICATES: Counter("ackbridge.duplicates", "", "Messages suppressed as seen before"),
    Count.STATUS_ANSWERED: _counter(_ASKED, "answered"),
    Count.STATUS_UNANSWERED: _counter(_ASKED, "in_vain"),
    Count.ACKNOWLEDGED: _counter(_ACKNOWLEDGED, "accepted"),
    Count.UNACKNOWLEDGED: _counter(_ACKNOWLEDGED, "not_accepted"),
    Count.HEALTHY: _counter(_PROBES, "healthy"),
    Count.UNHEALTHY: _counter(_PROBES, "unhealthy"),
    Count.UNCLEAR: _counter(_PROBES, "unclear"),
    Count.OWN_ERRORS: Counter(
        "ackbridge.trouble.ours", "", "Trouble of our own, such as no ledger"
    ),
}
"""A `Count` that is not here is not told: a test sees to it that there is none."""


@dataclass(frozen=True)
class Histogram:
    """How long something took, in seconds."""

    name: str
    description: str


HISTOGRAMS: Final[Mapping[Timing, Histogram]] = {
    Timing.RECEIPT: Histogram("ackbridge.receipt.duration", "From an attempt to its receipt"),
    Timing.ANSWER: Histogram("ackbridge.answer.duration", "From sending to the last word"),
}

ERRORS: Final = "ackbridge.errors"
EXCHANGES: Final = "ackbridge.exchanges"
"""By whether the provider answered: what the scorecard's uptime is made of."""

PARKED: Final = "ackbridge.parked"
OWED: Final = "ackbridge.acknowledgements.owed"
BREAKER: Final = "ackbridge.breaker"
FLAG: Final = "ackbridge.flag"
FLAG_SHARE: Final = "ackbridge.flag.share"
DEADLINE: Final = "ackbridge.deadline"
