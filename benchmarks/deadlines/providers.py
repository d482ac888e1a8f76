"""Providers made of distributions: how long each takes, when it changes, what it never answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist


@dataclass(frozen=True)
class LogNormal:
    """Response times in seconds, as most services have them: a hump and a long tail."""

    median: float
    sigma: float

    def draw(self, random: Random) -> float:
        """One response time."""
        return random.lognormvariate(math.log(self.median), self.sigma)

    def share(self, time: float) -> float:
        """How many are no longer than this."""
        if time <= 0:
            return 0.0
        return NormalDist(math.log(self.median), self.sigma).cdf(math.log(time))


@dataclass(frozen=True)
class Mixture:
    """Several kinds of work behind one address, each with its share of the calls."""

    parts: tuple[tuple[float, LogNormal], ...]

    def draw(self, random: Random) -> float:
        """One response time."""
        weights = [weight for weight, _ in self.parts]
        ((_, part),) = random.choices(self.parts, weights)
        return part.draw(random)

    def share(self, time: float) -> float:
        """How many are no longer than this."""
        return sum(weight * part.share(time) for weight, part in self.parts)


Distribution = LogNormal | Mixture


def quantile(distribution: Distribution, wanted: float) -> float:
    """The time within which this share is answered: what only an oracle knows."""
    low, high = 1e-4, 1e6
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if distribution.share(middle) < wanted else (low, middle)
    return high


@dataclass(frozen=True)
class Provider:
    """One provider.

    Attributes:
        name: what is special about it.
        at: its response times at a moment, in seconds from the beginning.
        dropped: the share of calls that it never answers, at a moment.
    """

    name: str
    at: Callable[[float], Distribution]
    dropped: Callable[[float], float] = lambda _: 0.0


HOUR = 3600.0

_USUAL = LogNormal(median=0.8, sigma=0.5)
_TWO_KINDS = Mixture(((0.9, LogNormal(0.6, 0.3)), (0.1, LogNormal(6.0, 0.3))))


def steady() -> Provider:
    """The same all day."""
    return Provider("log-normal", lambda _: _USUAL)


def bimodal() -> Provider:
    """One call in ten is ten times the work."""
    return Provider("bimodal", lambda _: _TWO_KINDS)


def step(times: float = 5.0, at: float = 2 * HOUR) -> Provider:
    """From one moment to the next so many times as slow."""
    slow = LogNormal(_USUAL.median * times, _USUAL.sigma)
    return Provider("step change", lambda now: slow if now >= at else _USUAL)


def drift(times: float = 4.0, within: float = 4 * HOUR) -> Provider:
    """A little slower every minute, so many times at the end."""
    return Provider(
        "slow drift",
        lambda now: LogNormal(_USUAL.median * (1 + (times - 1) * now / within), _USUAL.sigma),
    )


def dropping(share: float = 0.01) -> Provider:
    """Some calls are never answered."""
    return Provider(f"{share:.0%} silence", lambda _: _USUAL, lambda _: share)


def shipped() -> list[Provider]:
    """Those in the documentation."""
    return [steady(), bimodal(), step(), drift(), dropping()]
