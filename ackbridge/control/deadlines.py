"""Learned deadlines: from what was observed of an operation to how long its response is awaited.

The deadline is a quantile of the response times times a factor. Two things stand in the way of
just reading that quantile, and `survival` deals with both:

- A call that gave up has not seen how long its response would have taken. Counted as nothing, a
  provider that has become slower would look as fast as before, for ever. Counted as a response at
  the deadline, or beyond, one that drops requests would push the deadline up to the ceiling.
- Slow and never look alike until somebody waits longer. So some calls, the scouts, do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import LearnedDeadline
from ackbridge.stats.quantile_sketch import Sketch, bin_of, time_of
from ackbridge.stats.totals import Observed, Times

LONGEST_WINDOW: Final = timedelta(days=1)
"""What learning looks back on at the most: observations are not kept much longer."""

DOUBT: Final = 5
"""So many calls without an answer are assumed besides those seen: a single answer that came later
than all others could otherwise stand for every silence there is."""

HEARD: Final = 0.9
"""Silent calls count as listened to for as long as this share of the overdue answers took."""

WORTH_CHANGING: Final = 0.1
"""Each change becomes history; a smaller one, as a share of the deadline, is not made."""

FEW_SCOUTS: Final = 0.05
"""So many more or fewer scouts, as a share of the calls, are not worth a change either."""

MOST_SCOUTS: Final = 0.25
"""The share of scouts when many calls stay silent: somebody has to tell slow from dead."""

MOSTLY: Final = 0.5
"""When a larger share of calls stays silent, scouts wait up to the ceiling to find out."""


@dataclass(frozen=True)
class DeadlineRules:
    """What an operation says about its deadline.

    Attributes:
        initial: while nothing is learned; scouts wait at least so long.
        quantile, factor: the deadline is this quantile of the response times, times the factor.
        min_samples: until so many calls were seen in the window, what held before holds.
        window: how far back one looks.
        scouts: the share of calls that wait longer than the deadline.
    """

    initial: timedelta
    quantile: float
    factor: float
    min_samples: int
    window: timedelta
    floor: timedelta
    ceiling: timedelta
    scouts: float


@dataclass(frozen=True)
class Survival:
    """How response times are distributed, as far as one can see.

    Attributes:
        steps: times in seconds, ascending, each with the share of all calls answered by then.
        answered: the share of all calls that are answered at all.
    """

    steps: tuple[tuple[float, float], ...]
    answered: float

    def quantile(self, quantile: float) -> float:
        """The time, in seconds, by which this share of the answers there will be has come."""
        wanted = quantile * self.answered
        # The last step is all of the answered, but for rounding.
        return next((time for time, share in self.steps if share >= wanted), self.steps[-1][0])


def survival(answers: Sketch, silences: Sketch, overdue: Sketch) -> Survival | None:
    """Kaplan and Meier's estimate over bins, for calls of which some are never answered.

    A silence counts as having been listened to until the call gave up, or for as long as overdue
    answers are heard: where some are, others would have been. After that it tells nothing. What
    then remains unanswered at the longest time seen is taken to be never answered, which is sound
    as long as scouts listen longer.

    Args:
        answers: response times, overdue ones included.
        silences: for how long calls had waited that were never answered.
        overdue: those answers that came after their call's deadline.
    """
    answered, gone = dict(answers.bins()), _listened(silences, overdue)
    at_risk = sum(answered.values()) + sum(gone.values()) + DOUBT
    unanswered, steps = 1.0, []
    for number in sorted(answered.keys() | gone.keys()):
        if number in answered:
            unanswered *= 1 - answered[number] / at_risk
            steps.append((time_of(number), 1 - unanswered))
        at_risk -= answered.get(number, 0) + gone.get(number, 0)
    return Survival(tuple(steps), 1 - unanswered) if steps else None


def learn(
    rules: DeadlineRules, observed: Observed, before: LearnedDeadline | None
) -> LearnedDeadline | None:
    """What the deadline shall be; `before`, the very same, when it shall stay.

    Args:
        observed: of the window.
        before: what was learned before; None when nothing was.
    """
    answers, silences = observed.times[Times.ANSWER], observed.times[Times.SILENCE]
    samples = answers.count + silences.count
    seen = survival(answers, silences, observed.times[Times.OVERDUE])
    if seen is None or samples < rules.min_samples or answers.count <= DOUBT:
        return before
    slowest = seen.quantile(rules.quantile)
    deadline = _bounded(timedelta(seconds=slowest * rules.factor), rules)
    silent = silences.count / samples
    learned = LearnedDeadline(
        deadline=deadline,
        reason=_reason(rules, slowest, deadline, samples),
        samples=samples,
        scouts=_scouts(rules, silent),
        scout_deadline=_longer(rules, deadline, silent),
    )
    return before if before is not None and _is_much_like(before, learned) else learned


def learn_all(
    rules: Mapping[str, DeadlineRules],
    observed: Mapping[str, Observed],
    before: Mapping[str, LearnedDeadline],
    breaker: BreakerStatus,
) -> dict[str, LearnedDeadline]:
    """By operation, the deadlines that change; none while the breaker is not closed."""
    if breaker.state is not BreakerState.CLOSED:
        return {}
    changed = {}
    for operation, rule in rules.items():
        if operation not in observed:
            continue
        learned = learn(rule, observed[operation], before.get(operation))
        if learned is not None and learned is not before.get(operation):
            changed[operation] = learned
    return changed


def deadline_for(
    rules: DeadlineRules | None, learned: LearnedDeadline | None, initial: timedelta, lot: float
) -> tuple[timedelta, str]:
    """How long one call waits for its response, and why.

    Args:
        rules: None where nothing shall be learned.
        learned: what the control of the provider has published.
        lot: from 0 to 1 (exclusive), the call's own; the scouts are those below their share.
    """
    if rules is None or learned is None:
        return initial, f"{span(initial)} (configured initial value)"
    # The file may have been changed since.
    deadline = _bounded(learned.deadline, rules)
    if not rules.scouts or lot >= learned.scouts:
        return deadline, f"{span(deadline)}: {learned.reason}"
    longer = max(deadline, _bounded(learned.scout_deadline or deadline, rules))
    why = f"{learned.scouts:.0%} of calls wait longer than {span(deadline)}, to see slower answers"
    return longer, f"{span(longer)}: {why} ({learned.reason})"


def span(time: timedelta) -> str:
    """A time for people."""
    seconds = time.total_seconds()
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _listened(silences: Sketch, overdue: Sketch) -> dict[int, int]:
    longest = overdue.quantile(HEARD)
    until = bin_of(longest) if longest is not None else None
    listened: dict[int, int] = {}
    for number, count in silences.bins():
        heard = number if until is None else max(number, until)
        listened[heard] = listened.get(heard, 0) + count
    return listened


def _bounded(deadline: timedelta, rules: DeadlineRules) -> timedelta:
    return min(max(deadline, rules.floor), rules.ceiling)


def _reason(rules: DeadlineRules, slowest: float, deadline: timedelta, samples: int) -> str:
    wanted = timedelta(seconds=slowest)
    times = f"{span(wanted)} × {rules.factor:g}"  # noqa: RUF001 -- the sign that people write
    text = f"learned p{rules.quantile * 100:g} {times}, {samples} samples"
    if deadline == rules.floor:
        return f"{text}, but not below the floor"
    return f"{text}, but not above the ceiling" if deadline == rules.ceiling else text


def _scouts(rules: DeadlineRules, silent: float) -> float:
    """More of them the more is silent."""
    if not rules.scouts:
        return 0.0
    return max(rules.scouts, min(2 * silent, MOST_SCOUTS))


def _longer(rules: DeadlineRules, deadline: timedelta, silent: float) -> timedelta:
    """How long scouts wait: as long as everybody did before anything was learned.

    When most calls stay silent, even that may be too short to tell slow from dead.
    """
    if silent > MOSTLY:
        return rules.ceiling
    return _bounded(max(rules.initial, 2 * deadline), rules)


def _is_much_like(before: LearnedDeadline, after: LearnedDeadline) -> bool:
    """Whether a change would not be worth its history."""
    is_close = _is_close(before.deadline, after.deadline)
    if before.scout_deadline is None or after.scout_deadline is None:
        return is_close
    few_more = abs(after.scouts - before.scouts) <= FEW_SCOUTS
    return is_close and few_more and _is_close(before.scout_deadline, after.scout_deadline)


def _is_close(before: timedelta, after: timedelta) -> bool:
    return abs(after - before) <= WORTH_CHANGING * before
