"""`python -m tests.chaos`: thousands of calls, every fault, and `kill -9` again and again.

Exit 0 when nothing was lost, applied twice, left unacknowledged or hung, and every other promise
was kept; exit 1 otherwise, with the calls, what the three records say about each, and where the
logs and the state are.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from ackbridge.errors import AckbridgeError
from ackbridge.local.foreground import interrupted_by_sigterm
from ackbridge.terminal import output
from ackbridge.workarounds.temporal_sdk import exit_process

from .report import Report
from .run import Options, run
from .workload import Lane


def main() -> int:
    """Run the command line."""
    asked = _read_arguments()
    options = _options(asked)
    # The engine is killed on purpose: the client need not warn of it every time.
    quiet = TelemetryConfig(logging=LoggingConfig(TelemetryFilter("ERROR", "ERROR")))
    Runtime.set_default(Runtime(telemetry=quiet))
    state = asked.state or Path(tempfile.mkdtemp(prefix="ackbridge-chaos-"))
    state.mkdir(parents=True, exist_ok=True)
    if any(state.iterdir()):
        print(f"{state} is not empty: a run needs a state of its own", file=sys.stderr)
        return 2
    output.console.print(f"seed {options.seed}: `--seed {options.seed}` draws the same again")
    report: Report | None = None
    is_kept = True
    try:
        report = _run(options, state)
        is_kept = report is None or not report.is_clean
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        is_kept = False
    finally:
        if is_kept or asked.state is not None:
            output.console.print(f"\nlogs, state and report: {state}", soft_wrap=True)
        else:
            shutil.rmtree(state)
    return 0 if report is not None and report.is_clean else 1


def _run(options: Options, state: Path) -> Report | None:
    """Run, and show and keep the report; None when the run broke off."""
    report: Report | None = None
    try:
        with interrupted_by_sigterm():
            report = run(options, state)
    except* AckbridgeError as broken:
        for error in broken.exceptions:
            print(f"\nthe run was aborted: {error}", file=sys.stderr)
    if report is not None:
        report.show()
        (state / "report.txt").write_text(report.text())
    return report


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--calls", type=int, help="how many (2000, if no time is given)")
    parser.add_argument("--seconds", type=float, help="how long calls are begun")
    parser.add_argument("--seed", type=int, help="of calls, faults and kills; drawn if not given")
    parser.add_argument("--rate", type=float, default=Options.rate, help="calls begun in a second")
    parser.add_argument("--workers", type=int, default=Options.workers)
    parser.add_argument(
        "--kill-every",
        type=int,
        default=Options.kill_every,
        help="calls between two kills, on the average",
    )
    parser.add_argument("--kills", type=int, help="how many at the most")
    parser.add_argument(
        "--faults", type=float, default=Options.faults, help="multiplies the provider's rates"
    )
    parser.add_argument(
        "--lane",
        type=Lane,
        choices=list(Lane),
        default=Options.lane,
        help="how calls are started",
    )
    parser.add_argument(
        "--queries",
        action="store_true",
        help="let callers ask by query: shows what the SDK does not bear (decision 7)",
    )
    parser.add_argument("--state", type=Path, help="an empty folder, which is kept")
    return parser.parse_args()


def _options(asked: argparse.Namespace) -> Options:
    calls = asked.calls
    if calls is None and asked.seconds is None:
        calls = 2000
    return Options(
        calls=calls,
        lasts=asked.seconds and timedelta(seconds=asked.seconds),
        seed=secrets.randbelow(1_000_000) if asked.seed is None else asked.seed,
        rate=asked.rate,
        workers=asked.workers,
        kill_every=asked.kill_every,
        kills=asked.kills,
        faults=asked.faults,
        lane=asked.lane,
        queries=asked.queries,
    )


if __name__ == "__main__":
    exit_process(main())
