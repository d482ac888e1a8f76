"""Whether the work was done: each call received, acknowledged and recorded exactly once."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

CALLS = "SELECT key FROM calls WHERE response IS NOT NULL"
"""Recorded calls in the database of a lane that is not ours."""
SHOWN = 3
"""Calls that are named of those with the same fault."""


@dataclass(frozen=True)
class Seen:
    """What the provider received, by call id.

    Attributes:
        works: how often it did the work.
        acknowledged: of its responses, how many were acknowledged as a success, once each.
        wrongly: how many acknowledgements there were that were none of these.
    """

    works: Mapping[str, int]
    acknowledged: Mapping[str, int]
    wrongly: Mapping[str, int]


def seen_by_provider(works: Iterable[Mapping[str, Any]]) -> Seen:
    """Count the works that the sandbox returns at `/_works`."""
    done: Counter[str] = Counter()
    acknowledged: Counter[str] = Counter()
    wrongly: Counter[str] = Counter()
    for work in works:
        call = str(work["call_id"])
        verdicts = [one["verdict"] for one in work["acknowledgements"]]
        done[call] += 1
        acknowledged[call] += verdicts.count("success")
        wrongly[call] += len(verdicts) - verdicts.count("success")
    return Seen(done, acknowledged, wrongly)


def faults(calls: Sequence[str], seen: Seen, recorded: Mapping[str, int]) -> list[str]:
    """What is wrong with the calls of one lane, one sentence each; empty if nothing is."""
    found = []
    counts = Counter(calls)
    for what, counted, wanted in (
        ("started", counts, 1),
        ("done by the provider", seen.works, 1),
        ("acknowledged as a success", seen.acknowledged, 1),
        ("acknowledged otherwise", seen.wrongly, 0),
        ("recorded", recorded, 1),
    ):
        wrong: defaultdict[int, list[str]] = defaultdict(list)
        for call in counts:
            if counted.get(call, 0) != wanted:
                wrong[counted.get(call, 0)].append(call)
        for times, those in sorted(wrong.items()):
            named = ", ".join(those[:SHOWN])
            found.append(f"{len(those)} {what} {times} times and not {wanted}: {named}")
    strange = [call for call in recorded if call not in counts]
    if strange:
        named = ", ".join(strange[:SHOWN])
        found.append(f"{len(strange)} recorded that nobody has started: {named}")
    return found


def recorded_in_file(file: Path, query: str = CALLS) -> Counter[str]:
    """How often each call is recorded in an SQLite database."""
    database = sqlite3.connect(file)
    try:
        return Counter(str(row[0]) for row in database.execute(query))
    finally:
        database.close()


def recorded_in_postgresql(url: str) -> Counter[str]:
    """How often each call is recorded in a PostgreSQL database."""
    with psycopg.connect(url) as connection:
        return Counter(str(row[0]) for row in connection.execute(CALLS.encode()))


def read_works(body: bytes) -> list[dict[str, Any]]:
    """The body of the sandbox's `/_works`."""
    works: list[dict[str, Any]] = json.loads(body)
    return works
