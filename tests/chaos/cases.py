"""Calls in all records at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .records import CallerRecord, LedgerRecord, ProviderRecord, Run, RunState, Work


@dataclass(frozen=True)
class Operation:
    """What one has to know about an operation to judge its calls.

    Attributes:
        is_repeatable: whether a request that may have arrived may be sent again.
    """

    acknowledges: bool
    is_repeatable: bool = True


@dataclass(frozen=True)
class Case:
    """One call in all records.

    Attributes:
        runs: in the order of their start.
    """

    call_id: str
    operation: Operation
    caller: CallerRecord
    provider: ProviderRecord = field(default_factory=ProviderRecord)
    ledger: LedgerRecord = field(default_factory=LedgerRecord)
    runs: tuple[Run, ...] = ()

    @property
    def chain(self) -> tuple[Run, ...]:
        """The runs of the first execution chain; others follow it, or repeat its outcome."""
        conducting = [run for run in self.runs if run.state is not RunState.FOLLOWED]
        return tuple(run for run in conducting if run.chain == conducting[0].chain)

    @property
    def last(self) -> Run | None:
        """The run that stands for the call."""
        return self.chain[-1] if self.chain else None

    @property
    def is_open(self) -> bool:
        """Whether a workflow of it runs."""
        return any(run.state is RunState.OPEN for run in self.runs)

    @property
    def is_parked(self) -> bool:
        """Whether it waits, open, for an operator, a batch or a late answer."""
        return self.is_open and self.ledger.stage == "parked"

    @property
    def in_doubt(self) -> tuple[Work, ...]:
        """Works of a parked call of which no receipt has come: they are not given up.

        Reprocessing sends the same key again, and the end of the parking acknowledges.
        """
        receipts = frozenset[str]().union(*(run.receipts for run in self.runs))
        told_nothing = (work for work in self.provider.works if not work.verdicts)
        return tuple(w for w in told_nothing if self.is_parked and w.id not in receipts)

    @property
    def heard(self) -> frozenset[str]:
        """Every event key that came to it."""
        return frozenset[str]().union(*(run.heard for run in self.runs))


@dataclass(frozen=True)
class Totals:
    """What is counted over the whole run.

    Attributes:
        kills: by part.
        deaths: parts that ended by themselves, a line each.
        provider: the sandbox's own summary.
    """

    kills: Counter[str] = field(default_factory=Counter)
    deaths: tuple[str, ...] = ()
    provider: Mapping[str, Any] = field(default_factory=dict)
