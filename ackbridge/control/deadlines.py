"""Learned deadlines: how long to wait for an operation's response, from its response times. No I/O.

The deadline is a quantile of the response times times a factor. The quantile cannot be read from
the responses alone, and `survival` deals with both reasons:

- A call that timed out does not know how long its response would have taken. If it did not count,
  a provider that has become slower would look as fast as before, for ever. If it counted as a
  response at the deadline, or later, one that drops requests would push the deadline to the
  ceiling.
- Slow and missing responses look alike until some calls wait longer. So a sample of calls does: the
  exploration sample, `scouts` in integration files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import LearnedDeadline
from ackbridge.stats.counters import OperationStats, Timing
from ackbridge.stats.quantile_sketch import QuantileSketch, bin_of, time_of

LONGEST_WINDOW: Final = timedelta(days=1)
"""The longest learning window: statistics are not kept much longer."""

PRIOR_UNANSWERED: Final = 5
"""Unanswered calls assumed in addition: otherwise one response that came later than all others
would stand for all silences."""

OVERDUE_QUANTILE: Final = 0.9
"""Silences are censored at this quantile of the overdue responses, or later."""

MIN_CHANGE: Final = 0.1
"""A smaller change, as a share of the deadline, is not worth an entry in history."""

MIN_SAMPLE_CHANGE: Final = 0.05
"""Nor is a smaller change of the exploration sample, as a share of the calls."""

MAX_SAMPLE: Final = 0.25
"""The exploration sample, as a share of the calls, when many of them time out."""

MOSTLY_SILENT: Final = 0.5
"""The share of silences beyond which the exploration sample waits up to the ceiling."""


@dataclass(frozen=True)
class DeadlineRules:
    """How an operation's deadline is learned."""

    # The deadline until one is learned; the exploration sample waits at least this long.
    initial: timedelta
    # quantile, factor: the deadline is this quantile of the response times, times the factor.
    quantile: float
    factor: float
    min_samples: int  # with fewer calls in the window the deadline does not change
    window: timedelta  # the time span of the calls that count
    floor: timedelta
    ceiling: timedelta
    sample: float  # the share of calls that wait longer than the deadline

    def bounded(self, deadline: timedelta) -> timedelta:
        return min(max(deadline, self.floor), self.ceiling)


@dataclass(frozen=True)
class Survival:
    """The distribution of response times, as far as it is known."""

    # Times in seconds, ascending, each with the share of all calls answered by then.
    steps: tuple[tuple[float, float], ...]
    answered: float  # the share of all calls that are answered at all

    def quantile(self, quantile: float) -> float:
        """The time, in seconds, by which this share of all answered calls has been answered."""
        share_sought = quantile * self.answered
        # The last step is all of the answered calls, but for rounding.
        return next(
            (time for time, share in self.steps if share >= share_sought), self.steps[-1][0]
        )


def survival(
    answers: QuantileSketch, silences: QuantileSketch, overdue: QuantileSketch
) -> Survival | None:
    """The Kaplan-Meier estimate over bins, for calls of which some are never answered.

    A silence is censored when its call timed out, or at `OVERDUE_QUANTILE` of the overdue answers
    if that is later: where overdue answers arrive, others would have. Calls still unanswered at the
    longest time seen count as never answered, which is sound as long as the exploration sample
    waits longer. `answers` include the overdue ones.
    """
    answered, censored = dict(answers.bins()), _censored(silences, overdue)
    at_risk = sum(answered.values()) + sum(censored.values()) + PRIOR_UNANSWERED
    unanswered, steps = 1.0, []
    for number in sorted(answered.keys() | censored.keys()):
        if number in answered:
            unanswered *= 1 - answered[number] / at_risk
            steps.append((time_of(number), 1 - unanswered))
        at_risk -= answered.get(number, 0) + censored.get(number, 0)
    return Survival(tuple(steps), 1 - unanswered) if steps else None


def learn(
    rules: DeadlineRules, stats: OperationStats, before: LearnedDeadline | None
) -> LearnedDeadline | None:
    """The deadline learned from a window's statistics; `before` itself if it does not change."""
    answers, silences = stats.times[Timing.ANSWER], stats.times[Timing.SILENCE]
    samples = answers.count + silences.count
    distribution = survival(answers, silences, stats.times[Timing.OVERDUE])
    too_few = samples < rules.min_samples or answers.count <= PRIOR_UNANSWERED
    if distribution is None or too_few:
        return before
    slowest = distribution.quantile(rules.quantile)
    deadline = rules.bounded(timedelta(seconds=slowest * rules.factor))
    silent = silences.count / samples
    learned = LearnedDeadline(
        deadline=deadline,
        reason=_reason(rules, slowest, deadline, samples),
        samples=samples,
        scouts=max(rules.sample, min(2 * silent, MAX_SAMPLE)) if rules.sample else 0.0,
        scout_deadline=_sample_deadline(rules, deadline, silent),
    )
    return before if before is not None and _is_similar(before, learned) else learned


def learn_all(
    rules: Mapping[str, DeadlineRules],
    stats: Mapping[str, OperationStats],
    before: Mapping[str, LearnedDeadline],
    breaker: BreakerStatus,
) -> dict[str, LearnedDeadline]:
    """By operation, the deadlines that change; none while the breaker is not closed."""
    if breaker.state is not BreakerState.CLOSED:
        return {}
    learned = {
        name: learn(rule, stats[name], before.get(name))
        for name, rule in rules.items()
        if name in stats
    }
    return {name: new for name, new in learned.items() if new and new is not before.get(name)}


def deadline_for(
    rules: DeadlineRules | None, learned: LearnedDeadline | None, initial: timedelta, bucket: float
) -> tuple[timedelta, str]:
    """How long a call waits, and why; its bucket (0 to below 1) decides if it is in the sample."""
    if rules is None or learned is None:
        return initial, f"{format_span(initial)} (configured initial value)"
    # The file's bounds may have changed since it was learned.
    deadline = rules.bounded(learned.deadline)
    if not rules.sample or bucket >= learned.scouts:
        return deadline, f"{format_span(deadline)}: {learned.reason}"
    longer = max(deadline, rules.bounded(learned.scout_deadline or deadline))
    why = f"{learned.scouts:.0%} of calls wait longer than {format_span(deadline)}"
    return longer, f"{format_span(longer)}: {why}, to measure slower responses ({learned.reason})"


def format_span(span: timedelta) -> str:
    """A time span in seconds, such as `2.8 s`."""
    seconds = span.total_seconds()
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _censored(silences: QuantileSketch, overdue: QuantileSketch) -> dict[int, int]:
    longest = overdue.quantile(OVERDUE_QUANTILE)
    earliest = bin_of(longest) if longest is not None else None
    censored: dict[int, int] = {}
    for number, count in silences.bins():
        at = number if earliest is None else max(number, earliest)
        censored[at] = censored.get(at, 0) + count
    return censored


def _reason(rules: DeadlineRules, slowest: float, deadline: timedelta, samples: int) -> str:
    times = f"{format_span(timedelta(seconds=slowest))} × {rules.factor:g}"  # noqa: RUF001 -- the multiplication sign
    text = f"learned p{rules.quantile * 100:g} {times}, {samples} samples"
    if deadline == rules.floor:
        return f"{text}, raised to the floor"
    return f"{text}, lowered to the ceiling" if deadline == rules.ceiling else text


def _sample_deadline(rules: DeadlineRules, deadline: timedelta, silent: float) -> timedelta:
    """How long the exploration sample waits: as long as all calls did before, or twice as long.

    When most calls are silent, even that may be too short to tell slow responses from missing ones.
    """
    if silent > MOSTLY_SILENT:
        return rules.ceiling
    return rules.bounded(max(rules.initial, 2 * deadline))


def _is_similar(before: LearnedDeadline, after: LearnedDeadline) -> bool:
    """Whether the change is too small for an entry in history."""
    is_close = _is_close(before.deadline, after.deadline)
    if before.scout_deadline is None or after.scout_deadline is None:
        return is_close
    is_sample_close = abs(after.scouts - before.scouts) <= MIN_SAMPLE_CHANGE
    return is_close and is_sample_close and _is_close(before.scout_deadline, after.scout_deadline)


def _is_close(before: timedelta, after: timedelta) -> bool:
    return abs(after - before) <= MIN_CHANGE * before
