"""The instruments: each reads the last picture of what is counted and known anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.control import WHOLE_PROVIDER, FlagState
from ackbridge.stats.counters import Count, OperationStats
from ackbridge.stats.scorecard import ANSWERED, NOT_ANSWERED

from .gauges import FleetGauges, Key, share
from .names import (
    BREAKER,
    COUNTERS,
    DEADLINE,
    ERRORS,
    EXCHANGES,
    FLAG,
    FLAG_SHARE,
    OWED,
    PARKED,
    PROBES,
    Counter,
)


@dataclass
class Source:
    """What the instruments read, from whatever thread.

    Attributes:
        totals: what this process has observed since it began; replaced, never changed.
        facts: how things stand, for all processes together; None where others tell that.
    """

    totals: Mapping[Key, OperationStats] = field(default_factory=dict)
    facts: FleetGauges | None = None


Read = Callable[[], Iterable[Observation]]


def instrument(meter: Meter, source: Source) -> None:
    """Create every instrument; they only ever read `source`."""
    by_name: dict[str, dict[Count, Counter]] = {}
    for count, counter in COUNTERS.items():
        by_name.setdefault(counter.name, {})[count] = counter
    for name, counters in by_name.items():
        (description, *_) = (counter.description for counter in counters.values())
        read = _callback(_reading(source, counters))
        meter.create_observable_counter(name, [read], description=description)
    errors = _callback(lambda: _errors(source))
    meter.create_observable_counter(ERRORS, [errors], description="Trouble of the provider's")
    exchanges = _callback(lambda: _exchanges(source))
    meter.create_observable_counter(EXCHANGES, [exchanges], description="Whether it answered")
    gauges: tuple[tuple[str, str, str, Callable[[FleetGauges], Iterable[Observation]]], ...] = (
        (PARKED, "", "Calls that are parked", _parked),
        (OWED, "", "Acknowledgements owed", _owed),
        (BREAKER, "", "1 for the state the breaker is in, 0 for others", _breakers),
        (FLAG, "", "1 for the state the flag is in, 0 for others", _flags),
        (FLAG_SHARE, "1", "The share of calls that the flag lets through", _shares),
        (DEADLINE, "s", "The learned deadline", _deadlines),
    )
    for name, unit, description, observe in gauges:
        callback = _callback(_known(source, observe))
        meter.create_observable_gauge(name, [callback], unit=unit, description=description)


def labels(key: Key) -> dict[str, str]:
    """The labels of an operation."""
    provider, operation = key
    return {"provider": provider, "operation": operation}


def _callback(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: read()


def _known(source: Source, observe: Callable[[FleetGauges], Iterable[Observation]]) -> Read:
    return lambda: observe(source.facts) if source.facts is not None else ()


def _reading(source: Source, counters: Mapping[Count, Counter]) -> Read:
    def read() -> Iterator[Observation]:
        for key, observed in source.totals.items():
            for count, counter in counters.items():
                if observed[count] or _is_at_home(counter, key):
                    outcome = {"outcome": counter.outcome} if counter.outcome else {}
                    yield Observation(observed[count], labels(key) | outcome)

    return read


def _is_at_home(counter: Counter, key: Key) -> bool:
    """Whether it is worth telling that this was never seen: health is a provider's as a whole."""
    return (counter.name == PROBES) is (key[1] == WHOLE_PROVIDER)


def _errors(source: Source) -> Iterator[Observation]:
    for key, observed in source.totals.items():
        yield Observation(observed.errors, labels(key))


def _exchanges(source: Source) -> Iterator[Observation]:
    for key, observed in source.totals.items():
        for outcome, counts in (("answered", ANSWERED), ("unanswered", NOT_ANSWERED)):
            together = sum(observed[count] for count in counts)
            yield Observation(together, {**labels(key), "outcome": outcome})


def _parked(facts: FleetGauges) -> Iterator[Observation]:
    for key, count in facts.parked.items():
        yield Observation(count, labels(key))


def _owed(facts: FleetGauges) -> Iterator[Observation]:
    for key, count in facts.owed.items():
        yield Observation(count, labels(key))


def _breakers(facts: FleetGauges) -> Iterator[Observation]:
    for provider, current in facts.breakers.items():
        for state in BreakerState:
            yield Observation(int(state is current), {"provider": provider, "state": state.value})


def _flags(facts: FleetGauges) -> Iterator[Observation]:
    for key, flag in facts.flags.items():
        for state in FlagState:
            yield Observation(int(state is flag.state), {**labels(key), "state": state.value})


def _shares(facts: FleetGauges) -> Iterator[Observation]:
    for key, flag in facts.flags.items():
        yield Observation(share(flag), labels(key))


def _deadlines(facts: FleetGauges) -> Iterator[Observation]:
    for key, seconds in facts.deadlines.items():
        yield Observation(seconds, labels(key))
