"""The report: figures that add up, and every finding with what the records say about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ackbridge.terminal import output

from . import evidence
from .cases import Case, Totals
from .finding_kinds import Kind
from .reconciliation import Finding
from .records import EventRecords, Run, RunState

SHOWN = 20
"""Findings on the screen; all are in the file beside the state."""


@dataclass(frozen=True)
class Report:
    """A run, judged."""

    seed: int
    took: timedelta
    cases: Sequence[Case]
    ledgered: EventRecords
    totals: Totals
    findings: Sequence[Finding]
    hosts: Sequence[Run] = ()

    @property
    def is_clean(self) -> bool:
        """Whether everything holds."""
        return not self.findings

    def counts(self) -> dict[str, str]:
        """The figures, by what they count."""
        cases, provider = self.cases, self.totals.provider
        wrong = Counter(finding.kind for finding in self.findings)
        kept = [case.ledger for case in cases]
        outcomes = [one.outcome for one in kept if one.outcome]
        events = [event for case in cases for event in case.provider.events]
        statuses = Counter(outcome["status"] for outcome in outcomes)
        refused = sum(case.caller.refusal is not None for case in cases)
        false = [event for event in events if not event.is_true]
        runs = [*(run for case in cases for run in case.runs if not run.is_hosted), *self.hosts]
        hosted = [run for case in cases for run in case.runs if run.is_hosted]
        return {
            "calls": str(len(cases)),
            "kills": f"{self.totals.kills.total()} ({_list(self.totals.kills)})",
            **{kind: str(wrong[kind]) for kind in Kind},
            "outcomes": _list(statuses + Counter(refused=refused)),
            "parked": str(sum(one.stage == "parked" for one in kept)),
            "parked without a receipt": str(sum(len(case.in_doubt) for case in cases)),
            "owed": str(sum(len(one.owed) for one in kept)),
            "late": str(sum(bool(outcome.get("late")) for outcome in outcomes)),
            "forced": str(sum(bool(outcome.get("forced")) for outcome in outcomes)),
            "in several cycles": str(sum(outcome.get("cycles", 0) > 1 for outcome in outcomes)),
            "steered": _list(Counter(o.partition(":")[0] for c in cases for o in c.caller.orders)),
            "effects at the provider": str(provider.get("effects", 0)),
            "requests, and their answers": _answers(self.totals),
            "duplicates sent on purpose": str(provider.get("duplicates_sent", 0)),
            "callbacks sent again": str(sum(event.sent - 1 for event in events)),
            "messages suppressed": str(self.ledgered.suppressions),
            "callbacks given up": str(provider.get("callbacks_given_up", 0)),
            "inbox": _list(Counter(self.ledgered.inbox.values())),
            "forged or malformed": f"{len(false)}, {sum(e.is_taken for e in false)} taken",
            "workflow tasks failed": _list(_task_failures(runs)),
            "runs": f"{len(runs)} ({_list(Counter(run.state for run in runs))})",
            **({"calls in hosts": _in_hosts(hosted)} if self.hosts else {}),
            "parts that died by themselves": str(len(self.totals.deaths)),
            "took": f"{self.took.total_seconds():.0f} s",
        }

    def show(self) -> None:
        """Print the table, and the findings under it."""
        table = output.table(f"\nChaos, seed {self.seed}", ("", ""), list(self.counts().items()))
        output.console.print(table)
        cases = {case.call_id: case for case in self.cases}
        for finding in self.findings[:SHOWN]:
            output.console.print(
                f"\n{finding.kind}: {finding.call_id}: {finding.what}", markup=False
            )
            for line in evidence.summarize(cases[finding.call_id]):
                output.console.print(f"  {line}", markup=False, soft_wrap=True)
        if len(self.findings) > SHOWN:
            output.console.print(f"\n… and {len(self.findings) - SHOWN} more")

    def text(self) -> str:
        """Everything about every finding, for the file."""
        cases = {case.call_id: case for case in self.cases}
        lines = [f"{name}: {value}" for name, value in self.counts().items()]
        for finding in self.findings:
            lines += ["", f"{finding.kind}: {finding.call_id}: {finding.what}"]
            lines += evidence.describe(cases[finding.call_id])
        return "\n".join([*lines, "", *self.totals.deaths]) + "\n"


def _list(counted: Counter[str] | Counter[RunState]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()) if count) or "0"


def _in_hosts(runs: Sequence[Run]) -> str:
    states = Counter("moved out" if r.state is RunState.CONTINUED else r.state for r in runs)
    return f"{len(runs)} in {len({run.id for run in runs})} ({_list(states)})"


def _answers(totals: Totals) -> str:
    provider = totals.provider
    return f"{provider.get('requests', 0)}: {_list(Counter(provider.get('answered', {})))}"


def _task_failures(runs: Sequence[Run]) -> Counter[str]:
    return Counter(failure.cause.lower() for run in runs for failure in run.task_failures)
