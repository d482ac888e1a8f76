"""`make outage`: an outage of hours, with thousands of real calls parked, drained and confirmed.

Exit 0 when every call has completed late, was done and acknowledged once by the provider, and its
subscriber has heard of the delay and of the end; exit 1 otherwise, with what is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ackbridge.terminal import output
from ackbridge.workarounds.temporal_sdk import exit_process

from .checking import check
from .playing import Options, Played, play

SHOWN = 20


def main() -> int:
    """Play as the command line says."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ackbridge-outage-") as folder:
        played = asyncio.run(play(options, Path(folder), output.console.print))
    output.console.print(output.properties("\nAn outage", _figures(played)))
    wrong = check(played)
    for line in wrong[:SHOWN]:
        print(line, file=sys.stderr)
    if len(wrong) > SHOWN:
        print(f"… and {len(wrong) - SHOWN} more", file=sys.stderr)
    return 1 if wrong else 0


def _figures(played: Played) -> dict[str, str | None]:
    waits = [wait.total_seconds() / 3600 for wait in played.parked_for.values()]
    outcomes = Counter(str(one.status) for one in played.outcomes.values())
    letters = [letter for letters in played.letters.values() for letter in letters]
    events = Counter(str(letter.body["type"]) for letter in letters)
    ends = [
        f"by {one.by}: {one.counts.completed} of {one.counts.signalled} completed"
        for one in played.batches
    ]
    return {
        "calls": str(len(played.requests)),
        "parked for": f"{min(waits):.1f} to {max(waits):.1f} hours",
        "requests in vain": str(played.sent_in_vain),
        "batches": "\n".join(ends),
        "outcomes": _list(outcomes),
        "late": str(sum(one.late for one in played.outcomes.values())),
        "works of the provider": str(sum(len(seen.works) for seen in played.seen.values())),
        "notices": _list(events),
        "notices that came again": str(played.repeated),
        "bad signatures": str(played.forged),
        "still parked": str(played.left),
    }


def _list(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.outage", description=__doc__)
    parser.add_argument("--calls", type=int, default=Options.calls)
    parser.add_argument("--hours", type=float, default=Options.hours, help="parked at the most")
    parser.add_argument("--rate", type=float, default=Options.rate, help="of the batch, per second")
    parser.add_argument("--concurrency", type=int, default=Options.concurrency)
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the times parked")
    asked = parser.parse_args()
    return Options(**vars(asked))


if __name__ == "__main__":
    exit_process(main())
