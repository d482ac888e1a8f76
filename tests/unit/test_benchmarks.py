"""The benchmark's own arithmetic, and the check that fails it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from benchmarks.checks import Seen, faults, recorded_in_file, seen_by_provider
from benchmarks.environments import LOCKS
from benchmarks.groups import GROUPS, GROUPS_OF_LANES, MAKE_BENCH
from benchmarks.lanes import Lane
from benchmarks.measurement import Figures, Load, measure
from benchmarks.report import TARGETS, document, medians_of, ratios_of, targets_of

ONCE = {"a": 1, "b": 1}
LOAD = Load(rounds=1, warm_up=2, calls=5, in_flight=3, trickle=4, per_second=1000)


def work(call: str, *verdicts: str) -> dict[str, object]:
    """One work as the sandbox tells of it."""
    return {"call_id": call, "acknowledgements": [{"verdict": one} for one in verdicts]}


def test_medians_are_of_the_rounds_and_cpu_is_added_up_by_round() -> None:
    """The CPU time of a lane is the median of what all its processes used in each round."""
    figures = Figures(
        throughput=[10, 30, 20], cpu={"engine": [1, 5, 3], "worker": [2, 1, 9]}, events=[14, 14, 15]
    )
    assert medians_of(figures) == {"throughput": 20, "cpu": 6, "events": 14}


def test_rounds_are_added_to_each_other() -> None:
    """What a round measured is appended to what the rounds before it did."""
    both = Figures(throughput=[1], cpu={"worker": [2]}, memory={"worker": [3]})
    both.add(Figures(throughput=[4], cpu={"worker": [5]}, memory={"worker": [6]}))
    assert both == Figures(throughput=[1, 4], cpu={"worker": [2, 5]}, memory={"worker": [3, 6]})


def test_ratios_are_ours_over_theirs_where_both_were_measured() -> None:
    """A figure that only one lane has, and a lane that has only a history, have no ratio."""
    medians = {
        "ours": {"throughput": 80.0, "p50": 40.0, "events": 14.0},
        "dbos": {"throughput": 40.0, "p50": 50.0},
        "ours-limited": {"events": 19.0},
    }
    assert ratios_of(medians) == {"ours": {"dbos": {"throughput": 2.0, "p50": 0.8}}}


@pytest.mark.parametrize(("ours", "met"), [(79.9, [True, True, False]), (80.0, [True, True, True])])
def test_targets_compare_with_the_lanes_that_were_measured(ours: float, met: list[bool]) -> None:
    """A bound itself is met; a target whose other lane was not measured is not told."""
    medians = {
        "ours": {"throughput": ours},
        "floor": {"throughput": 90.0},
        "textbook-default": {"throughput": 19.0},
        "dbos-postgresql": {"throughput": 80.0 / 1.3},
    }
    assert [one["met"] for one in targets_of(medians)] == met


def test_targets_at_most_are_missed_from_above() -> None:
    """Fifteen events are more than fourteen."""
    told = targets_of({"ours": {"events": 15.0, "actions": 5.0}})
    assert [(one["measured"], one["met"]) for one in told] == [(15.0, False), (5.0, True)]


def test_calls_that_were_done_once_have_no_faults() -> None:
    """One work, one success and one row for each call."""
    seen = seen_by_provider([work("a", "success"), work("b", "success")])
    assert faults(["a", "b"], seen, ONCE) == []


@pytest.mark.parametrize(
    ("works", "recorded", "fault"),
    [
        ([work("a", "success")], ONCE, "1 done by the provider 0 times and not 1: b"),
        (
            [work("a", "success"), work("b", "success"), work("b")],
            ONCE,
            "1 done by the provider 2 times and not 1: b",
        ),
        (
            [work("a", "success"), work("b")],
            ONCE,
            "1 acknowledged as a success 0 times and not 1: b",
        ),
        (
            [work("a", "success", "success"), work("b", "success")],
            ONCE,
            "1 acknowledged as a success 2 times and not 1: a",
        ),
        (
            [work("a", "success", "failed"), work("b", "success")],
            ONCE,
            "1 acknowledged otherwise 1 times and not 0: a",
        ),
        (
            [work("a", "success"), work("b", "success")],
            {"a": 1},
            "1 recorded 0 times and not 1: b",
        ),
        (
            [work("a", "success"), work("b", "success")],
            {"a": 2, "b": 1},
            "1 recorded 2 times and not 1: a",
        ),
        (
            [work("a", "success"), work("b", "success")],
            {**ONCE, "c": 1},
            "1 recorded that nobody has started: c",
        ),
    ],
)
def test_a_wrong_count_is_a_fault(
    works: list[dict[str, object]], recorded: dict[str, int], fault: str
) -> None:
    """Whatever was not done exactly once is named, and makes the benchmark fail."""
    assert fault in faults(["a", "b"], seen_by_provider(works), recorded)


def test_a_call_started_twice_is_a_fault() -> None:
    """Two calls under one id would hide each other's loss."""
    assert faults(["a", "a"], Seen({"a": 1}, {"a": 1}, {}), {"a": 1}) == [
        "1 started 2 times and not 1: a"
    ]


def test_only_rows_with_a_response_are_recorded_calls(tmp_path: Path) -> None:
    """A call that was claimed and not answered does not count."""
    file = tmp_path / "records.db"
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, response TEXT)")
    database.executemany("INSERT INTO calls VALUES (?, ?)", [("a", "{}"), ("b", None)])
    database.commit()
    database.close()
    assert recorded_in_file(file) == {"a": 1}


async def test_a_round_makes_all_its_calls_and_no_more_at_once_than_it_may() -> None:
    """Warm-up, saturation and trickle add up, under keys that are never used twice."""
    running = most = 0

    async def run(key: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return key

    lane = Lane("test", run, {})
    figures = await measure(lane, LOAD, {}, ())
    assert len(set(lane.calls)) == len(lane.calls) == 2 + 5 + 4
    assert most <= LOAD.in_flight
    assert len(figures.throughput) == len(figures.p50) == len(figures.bystanders) == 1


async def test_a_call_that_fails_fails_the_round() -> None:
    """An error is no fast answer."""

    async def run(key: str) -> str:
        raise RuntimeError(key)

    with pytest.raises(ExceptionGroup):
        await measure(Lane("test", run, {}), LOAD, {}, ())


def test_a_document_has_what_is_wrong_and_everything_measured() -> None:
    """The file tells of the faults beside the figures."""
    figures = Figures(throughput=[1.0], cpu={"worker": [2.0]})
    written = document({"ours": figures}, LOAD, {"ours": ["1 recorded 0 times"]})
    assert written["wrong"] == {"ours": ["1 recorded 0 times"]}
    assert written["medians"] == {"ours": {"throughput": 1.0, "cpu": 2.0}}


def test_every_lane_has_a_group_and_every_target_its_lanes() -> None:
    """A target of a lane that does not exist would never be missed."""
    assert set(GROUPS_OF_LANES.values()) == set(GROUPS)
    spoken_of = {target.lane for target in TARGETS} | {t.other for t in TARGETS if t.other}
    assert spoken_of | set(MAKE_BENCH) <= set(GROUPS_OF_LANES)


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("**/*lock*")), ids=lambda lock: lock.name)
def test_locks_have_hashes_and_name_no_host(lock: Path) -> None:
    """A peer is installed from whatever registry its user has, and is the one that was tested."""
    text = lock.read_text()
    assert "sha256:" in text or "sha512-" in text
    assert "://" not in text
