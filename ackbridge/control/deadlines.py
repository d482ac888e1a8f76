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
from datetime import datetime, timedelta
from typing import Final

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

EXTENSION: Final = 20
"""A provider may become so many times slower before its calls count as unanswered."""

MIN_SAMPLES_AGAIN: Final = 10
"""Calls after which an extended deadline is learned again, where `min_samples` is more."""

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
    # It stays `initial`, until an outage has shown that responses come later; it is learned then.
    is_fixed: bool = False

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


def is_learned(rules: DeadlineRules, known: LearnedDeadline | None) -> bool:
    """Whether an operation's deadline is learned, or is going to be.

    Args:
        known: what was learned so far, maybe by other rules.
    """
    return not rules.is_fixed or (known is not None and known.since is not None)


def learn(
    rules: DeadlineRules,
    stats: OperationStats,
    before: LearnedDeadline | None,
    now: datetime | None = None,
) -> LearnedDeadline | None:
    """The deadline learned from a window's statistics; `before` itself if it does not change.

    Args:
        now: an extended deadline stays until calls sent since then have had all of its time.
    """
    if not is_learned(rules, before):
        return before
    answers, silences = stats.times[Timing.ANSWER], stats.times[Timing.SILENCE]
    samples = answers.count + silences.count
    distribution = survival(answers, silences, stats.times[Timing.OVERDUE])
    is_extended = before is not None and before.usual is not None
    enough = min(rules.min_samples, MIN_SAMPLES_AGAIN) if is_extended else rules.min_samples
    too_few = samples < enough or answers.count <= PRIOR_UNANSWERED
    if distribution is None or too_few or (before is not None and _is_too_early(before, now)):
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
        since=before.since if before is not None else None,
    )
    if before is None or is_extended:
        return learned
    return before if _is_similar(before, learned) else learned


def learn_all(
    rules: Mapping[str, DeadlineRules],
    stats: Mapping[str, OperationStats],
    before: Mapping[str, LearnedDeadline],
    now: datetime | None = None,
) -> dict[str, LearnedDeadline]:
    """By operation, the deadlines that change."""
    learned = {
        name: learn(rule, stats[name], before.get(name), now)
        for name, rule in rules.items()
        if name in stats
    }
    return {name: new for name, new in learned.items() if new and new is not before.get(name)}


def can_extend(rules: DeadlineRules, before: LearnedDeadline | None) -> bool:
    """Whether a longer wait may show that a provider is slower, and not silent."""
    if before is None or before.usual is not None or not is_learned(rules, before):
        return False
    return rules.bounded(before.deadline) < rules.ceiling


def extend(
    rules: DeadlineRules, before: LearnedDeadline | None, now: datetime, *, to_ceiling: bool
) -> LearnedDeadline:
    """The deadline until it is learned anew, from calls sent from now on.

    Args:
        to_ceiling: the provider was silent even for an extended deadline, and answers again.
    """
    usual = rules.initial
    if before is not None and is_learned(rules, before):
        usual = before.usual or before.deadline
    deadline = rules.ceiling if to_ceiling else rules.bounded(EXTENSION * usual)
    why = "after an outage" if to_ceiling else "too many calls timed out"
    return LearnedDeadline(
        deadline=deadline,
        reason=f"extended from {format_span(usual)}, {why}; learned again from now on",
        samples=0,
        since=now,
        usual=usual,
    )


@dataclass(frozen=True)
class CallDeadline:
    """How long one call waits, and why.

    Attributes:
        delayed_after: when its caller is told that it takes longer; None: at the deadline.
    """

    deadline: timedelta
    reason: str
    delayed_after: timedelta | None = None


def deadline_for(
    rules: DeadlineRules,
    learned: LearnedDeadline | None,
    initial: timedelta,
    bucket: float,
) -> CallDeadline:
    """How long a call waits; its bucket (0 to below 1) decides if it is in the sample."""
    if learned is None or not is_learned(rules, learned):
        return CallDeadline(initial, f"{format_span(initial)} (configured initial value)")
    # The file's bounds may have changed since it was learned.
    deadline = rules.bounded(learned.deadline)
    told = rules.bounded(learned.usual) if learned.usual is not None else None
    if not rules.sample or bucket >= learned.scouts:
        return CallDeadline(deadline, f"{format_span(deadline)}: {learned.reason}", told)
    longer = max(deadline, rules.bounded(learned.scout_deadline or deadline))
    why = f"{learned.scouts:.0%} of calls wait longer than {format_span(deadline)}"
    reason = f"{format_span(longer)}: {why}, to measure slower responses ({learned.reason})"
    return CallDeadline(longer, reason, told or (deadline if deadline < longer else None))


def deadline_of_probe(usual: CallDeadline, ceiling: timedelta, breaker: str) -> CallDeadline:
    """How long a call waits that is sent while the breaker is not closed: up to the ceiling."""
    if usual.deadline >= ceiling:
        return usual
    reason = f"{format_span(ceiling)}: the ceiling, while the breaker is {breaker}"
    return CallDeadline(ceiling, reason, usual.delayed_after or usual.deadline)


def format_span(span: timedelta) -> str:
    """A time span in seconds, such as `2.8 s`."""
    seconds = span.total_seconds()
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _is_too_early(before: LearnedDeadline, now: datetime | None) -> bool:
    """Whether calls sent since it was extended may still be waiting: those known are the fast."""
    if now is None or before.usual is None or before.since is None:
        return False
    return now < before.since + before.deadline


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
