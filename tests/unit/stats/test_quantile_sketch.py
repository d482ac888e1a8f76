"""Quantile sketches: their accuracy, and that merging loses nothing."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from ackbridge.stats.quantile_sketch import ACCURACY, LONGEST, SHORTEST, QuantileSketch

times = st.lists(st.floats(min_value=SHORTEST, max_value=LONGEST), min_size=1, max_size=200)


def sketch_of(seen: list[float]) -> QuantileSketch:
    """A sketch of these times."""
    sketch = QuantileSketch()
    for one in seen:
        sketch.add(one)
    return sketch


@given(times, st.floats(min_value=0.01, max_value=1))
def test_a_quantile_is_about_the_true_one(seen: list[float], quantile: float) -> None:
    """Within two per cent of the value of that rank, for any times."""
    true = sorted(seen)[max(1, math.ceil(quantile * len(seen))) - 1]
    read = sketch_of(seen).quantile(quantile)
    assert read is not None
    assert abs(read - true) <= true * (ACCURACY + 1e-9)


@given(times, times)
def test_sketches_add_up(one: list[float], other: list[float]) -> None:
    """A merged sketch equals one of all times."""
    merged = sketch_of(one)
    merged.merge(sketch_of(other))
    assert sketch_of(one + other) == merged
    assert merged.count == len(one) + len(other)


@given(times)
def test_a_sketch_survives_json(seen: list[float]) -> None:
    """It is read as it was written."""
    sketch = sketch_of(seen)
    assert sketch == QuantileSketch.from_json(json.loads(json.dumps(sketch.to_json())))


def test_what_is_taken_back_is_gone() -> None:
    """Even if it was added in another sketch, before or after."""
    earlier, later = sketch_of([4.0, 4.0, 1.0]), QuantileSketch()
    later.add(4.0, -1)
    later.merge(earlier)
    assert later.count == 2


def test_what_is_taken_back_after_its_expiry_is_ignored() -> None:
    """A silence whose bucket has expired does not become a negative count."""
    sketch = QuantileSketch()
    sketch.add(4.0, -1)
    sketch.add(1.0)
    assert sketch.count == 1
    assert [count for _, count in sketch.bins()] == [1]


def test_no_time_is_too_short_or_too_long() -> None:
    """The number of bins is bounded."""
    sketch = sketch_of([-1.0, 0.0, 1e-9, 1e12])
    assert sketch.count == 4
    assert len(sketch.to_json()) == 2


def test_an_empty_sketch_has_no_quantile() -> None:
    """Not even an approximate one."""
    assert QuantileSketch().quantile(0.99) is None
