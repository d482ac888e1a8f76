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

from .checks import check
from .simulation import Options, OutageResult, simulate

SHOWN = 20


def main() -> int:
    """Run the command line."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ackbridge-outage-") as folder:
        result = asyncio.run(simulate(options, Path(folder), output.console.print))
    output.console.print(output.properties("\nAn outage", _figures(result)))
    wrong = check(result)
    for line in wrong[:SHOWN]:
        print(line, file=sys.stderr)
    if len(wrong) > SHOWN:
        print(f"… and {len(wrong) - SHOWN} more", file=sys.stderr)
    return 1 if wrong else 0


def _figures(result: OutageResult) -> dict[str, str | None]:
    waits = [wait.total_seconds() / 3600 for wait in result.parked_for.values()]
    outcomes = Counter(str(one.status) for one in result.outcomes.values())
    notices = [notice for notices in result.notices.values() for notice in notices]
    events = Counter(str(notice.body["type"]) for notice in notices)
    ends = [
        f"by {one.by}: {one.counts.completed} of {one.counts.signalled} completed"
        for one in result.batches
    ]
    return {
        "calls": str(len(result.requests)),
        "parked for": f"{min(waits):.1f} to {max(waits):.1f} hours",
        "requests in vain": str(result.failed_requests),
        "batches": "\n".join(ends),
        "outcomes": _list(outcomes),
        "late": str(sum(one.late for one in result.outcomes.values())),
        "works of the provider": str(sum(len(seen.works) for seen in result.seen.values())),
        "notices": _list(events),
        "notices that came again": str(result.repeated),
        "bad signatures": str(result.forged),
        "still parked": str(result.left),
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
