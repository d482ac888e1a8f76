"""What the demo shows, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ackbridge.local.foreground import DEFAULT_STATE, PREFERRED_PORTS
from ackbridge.local.ports import HOST
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

from . import narration
from .flag_switch import AT_FIRST, OPERATION, Switching
from .load import LoadTally
from .outage import BOOKINGS, RATE, SENDS, Outage
from .outcomes import Ending
from .reconciliation import Check
from .records import PROVIDER
from .short_deadlines import DeadlineChange

LISTED = 10
"""Troubles of the first part that are shown; the number of all is in its table."""

SHOWN = "silence"
"""The kind that is shown as an example of where to look."""


def what_happened(tallies: Sequence[LoadTally]) -> RenderableType:
    """The first part: many calls at once."""
    columns = ("calls", "made", "completed", "failed", "p50", "p99", "retries")
    return output.table("\nWhat happened", columns, [tally.row() for tally in tallies])


def switching(switched: Switching) -> RenderableType:
    """In the middle: what a flag does."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(style="dim", justify="right", min_width=12)
    lines.add_column(overflow="fold")
    changes = [
        f"{change.by}: {change.subject}: {change.before} → {change.after} ({change.reason})"
        for change in switched.changes
    ]
    of_flag = chain(changes, repeat("no answer"))
    lines.add_row("callers", Text(f"{AT_FIRST} bookings go through"))
    lines.add_row("flag", Text(next(of_flag)))
    lines.add_row(
        "callers",
        Text(
            f"{switched.passed} more go through; after"
            f" {switched.known_within.total_seconds():.1f} s the workers know, and the next"
            f" {len(switched.parked)} are parked: nothing of them is sent"
        ),
    )
    example = next(iter(switched.parked.values()), None)
    if example is not None and example.notice is not None:
        lines.add_row("user reads", Text(narration.quote(example.notice)))
    lines.add_row("flag", Text(next(of_flag)))
    lines.add_row(
        "Ackbridge",
        Text(
            f"a batch takes up the {len(switched.parked)} ({switched.batch}), which ask the flag"
            f" again and are sent: drained in {switched.drained_within.total_seconds():.1f} s"
        ),
    )
    lines.add_row("flag", Text(next(of_flag)))
    lines.add_row("look", Text(f"ackbridge flag {PROVIDER}; the workflow control.{PROVIDER}"))
    for trouble in switched.troubles:
        lines.add_row("NO", Text(trouble, style="bold red"))
    title = Text("\nA flag switched off in the middle", style="bold")
    title.append(f"  ({OPERATION})", style="not bold dim")
    return Group(title, lines)


def outage_begins() -> RenderableType:
    """What the outage is."""
    return Text(
        f"\nAn outage: the provider answers 503 to {BOOKINGS} bookings, {SENDS} times each. They"
        " are parked, and a batch takes them up again, as `ackbridge reprocess sandbox` does."
        " From here on an operator holds the breaker closed (`ackbridge breaker sandbox closed`):"
        " it would open, and keep back what is to be seen.\n"
    )


def outage_is_over(outage: Outage) -> RenderableType:
    """What became of the parked bookings."""
    done = outage.done
    if done is None:
        return Text("The batch has not ended.")
    counts, seconds = done.counts, (done.since - done.started_at).total_seconds()
    return Text(
        f"{counts.selected} bookings were parked ({', '.join(outage.reasons)}); the batch told each"
        f" of them once, no faster than {RATE:g} per second: {counts.completed} completed,"
        f" {counts.parked_again} parked again, {counts.failed} failed, in {seconds:.0f} s."
    )


def introduction(changes: Sequence[DeadlineChange], kinds: int) -> RenderableType:
    """What the second part is."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        where.setdefault((change.field, change.before, change.after), []).append(change.operation)
    shorter = [
        f"{field} is {after} instead of {before} ({', '.join(operations)})"
        for (field, before, after), operations in where.items()
    ]
    return Group(
        Text("\nOne call of each kind of end", style="bold"),
        Text(
            f"The provider now misbehaves on request, in {kinds} calls at the same time. To spare"
            " you the waiting, worker and gateway are started again with a copy of sandbox.yaml"
            f" made for this run, where {', and '.join(shorter)}. Every line is read from the"
            " provider's journal, the ledger, and the engine's histories. “…:2” is the second"
            " idempotency key of a call, <call id>:2.\n"
        ),
    )


def ending(number: int, ending: Ending) -> RenderableType:
    """An ending, as a heading and a few lines."""
    scene, records = ending.scene, ending.records
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(style="dim", justify="right", min_width=12)
    lines.add_column(overflow="fold")
    lines.add_row("provider", Text(narration.provider(records)))
    lines.add_row("Ackbridge", Text(narration.ackbridge(scene, records)))
    lines.add_row("end", Text(narration.end(scene)))
    labels = chain(["user reads"], repeat("and then"))
    for label, said in zip(labels, narration.user(scene), strict=False):
        lines.add_row(label, Text(said))
    for trouble in ending.troubles:
        lines.add_row("NO", Text(trouble, style="bold red"))
    title = Text(f"\n{number:>2}  {ending.kind.title}", style="bold")
    title.append(f"  ({ending.kind.operation})", style="not bold dim")
    return Group(title, lines)


def reconciliation(checks: Sequence[Check], early: int) -> RenderableType:
    """Both parts together."""
    rows = [check.row() for check in checks]
    rows.append(("callbacks that overtook their receipt", str(early), "", ""))
    return output.table("\nDoes it add up?", ("", "found", "expected", "adds up"), rows)


def troubles(lines: Sequence[str], endings: Sequence[Ending]) -> RenderableType:
    """Everything that is not as it should be."""
    wrong = [ending for ending in endings if ending.troubles]
    told = [f"failed: {line}" for line in lines[:LISTED]]
    told += [
        f"not as it should be: {one.call_id}: {trouble}"
        for one in wrong
        for trouble in one.troubles
    ]
    well = len(endings) - len(wrong)
    told.append(f"\n{well} of {len(endings)} kinds of ends are as they should be.")
    return Text("\n".join(told))


def verdict(lines: Sequence[str], endings: Sequence[Ending], checks: Sequence[Check]) -> ExitCode:
    """Whether everything is as it should be."""
    is_well = not lines and not any(ending.troubles for ending in endings)
    return (
        ExitCode.COMPLETED
        if is_well and all(check.adds_up for check in checks)
        else ExitCode.FAILED
    )


def where_to_look(endings: Sequence[Ending], state: Path) -> Text:
    """How to see one of the calls again; this stack is gone then."""
    call_id = next(one.call_id for one in endings if one.kind.name == SHOWN)
    up = "make up" if state == DEFAULT_STATE else f".venv/bin/ackbridge up --state {state}"
    ui = f"http://{HOST}:{PREFERRED_PORTS['ui']}"
    return Text(
        f"""
This stack ends now; every call stays in the engine's file. To look at one:

  {up}
  .venv/bin/ackbridge status {call_id}
  {ui}/namespaces/default/workflows/{call_id}
"""
    )
