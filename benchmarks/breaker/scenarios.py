"""Providers that change: slower, faster, silent or broken for some time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.deadlines.providers import Distribution, LogNormal, Mixture

MINUTE = 60.0
HOUR = 3600.0

HOURS = 2
"""How long a scenario lasts; an hour of usual responses is known before."""

CEILING = 600.0
"""Seconds; the default of integration files."""

USUAL = LogNormal(median=0.8, sigma=0.5)


@dataclass(frozen=True)
class Condition:
    """How a provider behaves at a moment: response times, and the shares that fail."""

    responses: Distribution = USUAL
    silent: float = 0.0
    broken: float = 0.0

    def draw(self, random: Random) -> float | None:
        """The response time of a request; infinite for none, None for a 503."""
        if random.random() < self.broken:
            return None
        return math.inf if random.random() < self.silent else self.responses.draw(random)

    @property
    def answered(self) -> float:
        """The share of requests that are answered within the ceiling."""
        return (1 - self.broken) * (1 - self.silent) * self.responses.share(CEILING)


WELL = Condition()
BROKEN = Condition(broken=1.0)
SILENT = Condition(silent=1.0)

Behaviour = Callable[[float], Condition]


@dataclass(frozen=True)
class Scenario:
    """One provider.

    Attributes:
        at: its condition at a moment, in seconds from the beginning.
        late: whether responses after the deadline are accepted.
        endpoint: another operation with an eighth of the calls; None: all calls are of one.
    """

    name: str
    at: Behaviour
    late: bool = False
    endpoint: Behaviour | None = None

    def condition(self, operation: str, now: float) -> Condition:
        if operation == "endpoint" and self.endpoint is not None:
            return self.endpoint(now)
        return self.at(now)

    @property
    def outage(self) -> float:
        """For how many seconds fewer than half of the requests would be answered in time."""
        return float(
            sum(self.at(float(second)).answered < 0.5 for second in range(int(HOURS * HOUR)))
        )


def slower(factor: float) -> Condition:
    return Condition(LogNormal(USUAL.median * factor, USUAL.sigma))


def between(start: float, end: float, condition: Condition) -> Behaviour:
    """Another condition for some time."""
    return lambda now: condition if start <= now < end else WELL


def flapping(condition: Condition, down: float, up: float) -> Behaviour:
    """Down and up in turns, for an hour."""
    start = 10 * MINUTE

    def at(now: float) -> Condition:
        is_over = now < start or now >= start + HOUR
        return WELL if is_over or (now - start) % (down + up) >= down else condition

    return at


_START, _END = 10 * MINUTE, HOURS * HOUR
_BIMODAL = Condition(Mixture(((0.4, USUAL), (0.6, LogNormal(USUAL.median * 10, 0.3)))))


def shipped() -> list[Scenario]:
    """The scenarios of the documentation."""
    hour, to_the_end = _START + HOUR, _END
    late = between(_START, to_the_end, slower(10))
    part = between(_START, hour, Condition(silent=0.33))
    return [
        Scenario("2 times slower", between(_START, to_the_end, slower(2))),
        Scenario("5 times slower", between(_START, to_the_end, slower(5))),
        Scenario("20 times slower", between(_START, to_the_end, slower(20))),
        Scenario("10 times slower, late responses count", late, late=True),
        Scenario("5 times faster for an hour", between(_START, hour, slower(0.2))),
        Scenario("3 of 5 calls take 10 times as long", between(_START, to_the_end, _BIMODAL)),
        Scenario("a third never answered for an hour", part),
        Scenario("silent for 10 minutes", between(_START, _START + 10 * MINUTE, SILENT)),
        Scenario("silent for 2 minutes of every 6", flapping(SILENT, 2 * MINUTE, 4 * MINUTE)),
        Scenario("broken for a minute", between(_START, _START + MINUTE, BROKEN)),
        Scenario("broken for 20 minutes", between(_START, _START + 20 * MINUTE, BROKEN)),
        Scenario("broken for 1 minute of every 3", flapping(BROKEN, MINUTE, 2 * MINUTE)),
        Scenario(
            "one endpoint broken for an hour",
            lambda _: WELL,
            endpoint=between(_START, hour, BROKEN),
        ),
    ]
