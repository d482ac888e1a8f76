"""Reconciliation of the provider's and the ledger's records with the outcomes of the callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ackbridge.catalog.catalog import Catalog
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus

from .records import EVERY_ROW, RecordSources

SETTLE_TIMEOUT = 10.0
"""Seconds that the last duplicates have to arrive before they are counted."""


@dataclass(frozen=True)
class Check:
    what: str
    found: int
    expected: int
    matches: bool

    @classmethod
    def equal(cls, what: str, found: int, expected: int) -> Check:
        return cls(what, found, expected, found == expected)

    def row(self) -> tuple[str, ...]:
        return self.what, str(self.found), str(self.expected), "yes" if self.matches else "NO"


@dataclass(frozen=True)
class Reconciliation:
    """The records of one run: calls of an interrupted run may end in the meantime."""

    outcomes: Sequence[CallOutcome]
    plain: Collection[str]
    recorded: Sequence[str]
    owed: int
    works: Sequence[Mapping[str, Any]]
    duplicates: int  # copies of callbacks that the provider sent
    suppressed: int  # messages that the ledger logged as suppressed

    def checks(self, catalog: Catalog) -> Iterator[Check]:
        """All checks; the catalog tells which operations have acknowledgements."""
        completed = sorted(
            one.call_id for one in self.outcomes if one.status is OutcomeStatus.COMPLETED
        )
        plain = [one for one in self.works if one["call_id"] in self.plain]
        yield Check(
            "recorded exactly once",
            len(self.recorded),
            len(completed),
            sorted(self.recorded) == completed,
        )
        yield Check.equal("done once by the provider (first part)", len(plain), len(self.plain))
        yield from self._acknowledged(catalog, completed)
        yield Check.equal("acknowledgements still owed", self.owed, 0)
        yield Check.equal(
            "duplicates and confirmations, logged as suppressed",
            self.suppressed,
            self.duplicates + self._confirmations(),
        )

    def _confirmations(self) -> int:
        """Successes of work that was called off, each confirmed by a status request."""
        forced = {one.call_id for one in self.outcomes if one.forced}
        verdicts = (
            [one["verdict"] for one in work["acknowledgements"]]
            for work in self.works
            if work["call_id"] not in forced
        )
        return sum(both == ["failed", "success"] for both in verdicts)

    def _acknowledged(self, catalog: Catalog, completed: Sequence[str]) -> Iterator[Check]:
        """The last acknowledgement of each work agrees with the outcome of its call."""
        expected = sorted(one for one in completed if has_acknowledgement(catalog, one))
        works = [one for one in self.works if has_acknowledgement(catalog, one["call_id"])]
        succeeded = sorted(one["call_id"] for one in works if one["acknowledged"] == "success")
        failed = [one for one in works if one["acknowledged"] == "failed"]
        yield Check(
            "acknowledged as success, one work for each completed call",
            len(succeeded),
            len(expected),
            succeeded == expected,
        )
        yield Check.equal(
            "acknowledged as failed, every other work", len(failed), len(works) - len(expected)
        )


def has_acknowledgement(catalog: Catalog, call_id: str) -> bool:
    """Whether the operation of a call acknowledges responses."""
    provider, operation, _ = names.split_call_id(call_id)
    acknowledge = catalog.integration(provider).operations[operation].acknowledge
    return acknowledge is not None and acknowledge.success is not None


async def read_reconciliation(
    sources: RecordSources,
    outcomes: Sequence[CallOutcome],
    plain: Collection[str],
    call_ids: Collection[str],
    suppressed: int,
) -> Reconciliation:
    rows = [row for call_id in call_ids for row in await sources.ledger.calls.responses(call_id)]
    owed = await sources.ledger.calls.owed(limit=EVERY_ROW)
    return Reconciliation(
        outcomes=outcomes,
        plain=plain,
        recorded=[row.call_id for row in rows],
        owed=sum(row.call_id in call_ids for row in owed),
        works=[work for work in await sources.works() if work["call_id"] in call_ids],
        duplicates=(await sources.summary())["duplicates_sent"],
        suppressed=suppressed,
    )


async def wait_for_suppressed(sources: RecordSources, before: int) -> int:
    """How many messages the ledger suppressed since `before`, once all duplicates arrived."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        sent = (await sources.summary())["duplicates_sent"]
        suppressed = (await sources.ledger.counts())["suppressed"] - before
        if suppressed >= sent or time.monotonic() > deadline:
            return suppressed
        await asyncio.sleep(0.2)
