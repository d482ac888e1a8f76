"""Every metric of ours: its name, its labels and where its value comes from.

All instruments are observable: they read the latest statistics of this process and the latest
gauges of the fleet, so that counting costs nothing extra on the path of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.control import WHOLE_PROVIDER, FlagState
from ackbridge.stats.counters import Count, OperationStats, Timing
from ackbridge.stats.scorecard import ANSWERED, NOT_ANSWERED

from .gauges import FleetGauges, Key, OutboxGauges, open_share

_SENDS: Final = "ackbridge.sends"
_CYCLES: Final = "ackbridge.cycles"
_STATUS_REQUESTS: Final = "ackbridge.status.requests"
_ACKNOWLEDGEMENTS: Final = "ackbridge.acknowledgements"
_PROBES: Final = "ackbridge.probes"
_LATE: Final = "ackbridge.answers.late"
_DUPLICATES: Final = "ackbridge.duplicates"
_IGNORED: Final = "ackbridge.callbacks.ignored"
_DROPPED: Final = "ackbridge.catch_up.dropped"
_REJECTED: Final = "ackbridge.callbacks.rejected"
_OURS: Final = "ackbridge.trouble.ours"
_CALLS: Final = "ackbridge.breaker.calls"

COUNTERS: Final[Mapping[Count, tuple[str, str]]] = {
    Count.RECEIPTS: (_SENDS, "receipt"),
    Count.REFUSED: (_SENDS, "refused"),
    Count.THROTTLED: (_SENDS, "throttled"),
    Count.UNANSWERED: (_SENDS, "unanswered"),
    Count.ANSWERS: (_CYCLES, "answer"),
    Count.FAILURES: (_CYCLES, "failure"),
    Count.SILENCES: (_CYCLES, "silence"),
    Count.LATE: (_LATE, ""),
    Count.DUPLICATES: (_DUPLICATES, ""),
    Count.IGNORED: (_IGNORED, ""),
    Count.LISTED_UNREADABLE: (_DROPPED, "unreadable"),
    Count.LISTED_UNAWAITED: (_DROPPED, "unawaited"),
    Count.FORGED: (_REJECTED, "forged"),
    Count.TURNED_AWAY: (_REJECTED, "turned_away"),
    Count.STATUS_ANSWERED: (_STATUS_REQUESTS, "answered"),
    Count.STATUS_UNANSWERED: (_STATUS_REQUESTS, "in_vain"),
    Count.ACKNOWLEDGED: (_ACKNOWLEDGEMENTS, "accepted"),
    Count.UNACKNOWLEDGED: (_ACKNOWLEDGEMENTS, "not_accepted"),
    Count.HEALTHY: (_PROBES, "healthy"),
    Count.UNHEALTHY: (_PROBES, "unhealthy"),
    Count.UNCLEAR: (_PROBES, "unclear"),
    Count.CALLS_ANSWERED: (_CALLS, "answered"),
    Count.CALLS_FAILED: (_CALLS, "failed"),
    Count.CALLS_RESPONDED: (_CALLS, "responded"),
    Count.CALLS_SILENT: (_CALLS, "silent"),
    Count.CALLS_HEARD: (_CALLS, "heard"),
    Count.CALLS_FAILED_OVERTAKEN: (_CALLS, "failed_overtaken"),
    Count.CALLS_SILENT_OVERTAKEN: (_CALLS, "silent_overtaken"),
    Count.OWN_ERRORS: (_OURS, ""),
}
"""The counter that exports each `Count`, and its `outcome` label; "" for none."""

_DESCRIPTIONS: Final = {
    _SENDS: "Attempts to send a request",
    _CYCLES: "Cycles that ended",
    _STATUS_REQUESTS: "Status requests, by whether the provider answered",
    _ACKNOWLEDGEMENTS: "Acknowledgements, by whether the provider accepted them",
    _PROBES: "Health requests",
    _LATE: "Responses after their deadline",
    _DUPLICATES: "Messages suppressed as duplicates",
    _IGNORED: "Events that the provider's file ignores",
    _DROPPED: "Events of the provider's list that catching up did not keep",
    _REJECTED: "Callbacks rejected before anything of them was kept",
    _OURS: "Errors on our side, such as an unavailable ledger",
    _CALLS: "Outcomes that the breaker counts, each at most once per call",
}

_OF_PROVIDERS: Final = (_PROBES, _REJECTED, _DROPPED)
"""Counters without an operation."""

HISTOGRAMS: Final[Mapping[Timing, tuple[str, str]]] = {
    Timing.RECEIPT: ("ackbridge.receipt.duration", "From an attempt to its receipt"),
    Timing.ANSWER: ("ackbridge.answer.duration", "From sending to the response"),
}
"""In seconds: name and description."""


@dataclass
class MetricSource:
    """What the instruments read, from any thread."""

    # What this process has counted since it started; replaced, never changed.
    totals: Mapping[Key, OperationStats] = field(default_factory=dict)
    # The state of the whole fleet; None while unknown, or if other processes export it.
    gauges: FleetGauges | None = None
    # Of a relay; empty in other processes.
    outbox: OutboxGauges = field(default_factory=OutboxGauges)


def create_instruments(meter: Meter, source: MetricSource) -> None:
    """Create every instrument except the histograms, which OpenTelemetry cannot observe."""

    def counter(name: str, description: str, read: Callable[[], Iterable[Observation]]) -> None:
        meter.create_observable_counter(name, [_callback(read)], description=description)

    def gauge(
        name: str, unit: str, description: str, read: Callable[[FleetGauges], Iterable[Observation]]
    ) -> None:
        def read_if_known() -> Iterable[Observation]:
            return read(source.gauges) if source.gauges is not None else ()

        callback = _callback(read_if_known)
        meter.create_observable_gauge(name, [callback], unit=unit, description=description)

    for name, description in _DESCRIPTIONS.items():
        counter(name, description, lambda name=name: _counts(source, name))  # type: ignore[misc]  # a default binds the loop variable
    counter("ackbridge.errors", "Errors of the provider", lambda: _errors(source))
    # What the uptime of the scorecard is made of.
    counter("ackbridge.exchanges", "By whether the provider answered", lambda: _exchanges(source))
    gauge("ackbridge.parked", "", "Parked calls", lambda now: _by_key(now.parked))
    gauge(
        "ackbridge.acknowledgements.owed",
        "",
        "Pending acknowledgements",
        lambda now: _by_key(now.owed),
    )
    gauge("ackbridge.breaker", "", "1 for the current state, 0 for others", _breakers)
    gauge("ackbridge.flag", "", "1 for the current state, 0 for others", _flags)
    gauge("ackbridge.flag.share", "1", "The share of calls that the flag lets through", _shares)
    gauge("ackbridge.deadline", "s", "The learned deadline", lambda now: _by_key(now.deadlines))
    _create_outbox_instruments(meter, source)


def _create_outbox_instruments(meter: Meter, source: MetricSource) -> None:
    def rows(counts: Mapping[str, int], label: str) -> Iterator[Observation]:
        for value, count in counts.items():
            yield Observation(count, {label: value})

    def lag() -> Iterator[Observation]:
        if source.outbox.lag is not None:
            yield Observation(source.outbox.lag)

    meter.create_observable_counter(
        "ackbridge.outbox.rows",
        [_callback(lambda: rows(source.outbox.relayed, "outcome"))],
        description="Rows of the outbox, by what became of them",
    )
    meter.create_observable_gauge(
        "ackbridge.outbox.waiting",
        [_callback(lambda: rows(source.outbox.waiting, "state"))],
        description="Rows of the outbox that wait: for a relay, or for an operator",
    )
    meter.create_observable_gauge(
        "ackbridge.outbox.lag",
        [_callback(lag)],
        unit="s",
        description="The age of the oldest row that waits for a relay",
    )


def labels(key: Key) -> dict[str, str]:
    provider, operation = key
    return {"provider": provider, "operation": operation}


def _callback(
    read: Callable[[], Iterable[Observation]],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: read()


def _counts(source: MetricSource, name: str) -> Iterator[Observation]:
    outcomes = {count: outcome for count, (counter, outcome) in COUNTERS.items() if counter == name}
    for key, totals in source.totals.items():
        # Zeros are exported where they can become more: some count for a provider as a whole.
        has_zeros = (name in _OF_PROVIDERS) is (key[1] == WHOLE_PROVIDER)
        for count, outcome in outcomes.items():
            if totals[count] or has_zeros:
                label = {"outcome": outcome} if outcome else {}
                yield Observation(totals[count], labels(key) | label)


def _errors(source: MetricSource) -> Iterator[Observation]:
    for key, totals in source.totals.items():
        yield Observation(totals.errors, labels(key))


def _exchanges(source: MetricSource) -> Iterator[Observation]:
    for key, totals in source.totals.items():
        for outcome, counts in (("answered", ANSWERED), ("unanswered", NOT_ANSWERED)):
            total = sum(totals[count] for count in counts)
            yield Observation(total, {**labels(key), "outcome": outcome})


def _by_key(values: Mapping[Key, float]) -> Iterator[Observation]:
    for key, value in values.items():
        yield Observation(value, labels(key))


def _breakers(now: FleetGauges) -> Iterator[Observation]:
    for provider, current in now.breakers.items():
        for state in BreakerState:
            yield Observation(int(state is current), {"provider": provider, "state": state.value})


def _flags(now: FleetGauges) -> Iterator[Observation]:
    for key, flag in now.flags.items():
        for state in FlagState:
            yield Observation(int(state is flag.state), {**labels(key), "state": state.value})


def _shares(now: FleetGauges) -> Iterator[Observation]:
    return _by_key({key: open_share(flag) for key, flag in now.flags.items()})
