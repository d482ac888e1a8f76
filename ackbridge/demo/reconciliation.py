"""Whether the provider's and the ledger's records add up to what the callers were told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ackbridge.catalog.catalog import Catalog
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus

from .records import EVERY_ROW, Archive

SETTLED_WITHIN = 10.0
"""Seconds the last duplicates have to arrive before they are counted."""


@dataclass(frozen=True)
class Check:
    """One line of the reconciliation."""

    what: str
    found: int
    expected: int
    adds_up: bool

    @classmethod
    def equal(cls, what: str, found: int, expected: int) -> Check:
        """Two numbers that have to be the same."""
        return cls(what, found, expected, found == expected)

    def row(self) -> tuple[str, ...]:
        """For the table."""
        return self.what, str(self.found), str(self.expected), "yes" if self.adds_up else "NO"


@dataclass(frozen=True)
class Reconciliation:
    """What is compared, of the calls of one run: those of an interrupted one may end meanwhile.

    Attributes:
        outcomes: of every call, as its caller has it.
        plain: the ids of calls for which the provider was asked for no faults.
        recorded: for each answer in the ledger, the id of its call.
        owed: acknowledgements that the ledger has as owed.
        works: the provider's.
        duplicates: copies of callbacks that the provider has sent.
        suppressed: messages that the ledger has logged as changing nothing.
    """

    outcomes: Sequence[CallOutcome]
    plain: Collection[str]
    recorded: Sequence[str]
    owed: int
    works: Sequence[Mapping[str, Any]]
    duplicates: int
    suppressed: int

    def checks(self, catalog: Catalog) -> Iterator[Check]:
        """Every check.

        Args:
            catalog: says which operations are acknowledged.
        """
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
        yield Check.equal("duplicates sent, and suppressed", self.suppressed, self.duplicates)

    def _acknowledged(self, catalog: Catalog, completed: Sequence[str]) -> Iterator[Check]:
        """The provider's last word about each of its works is ours about the call."""
        expected = sorted(one for one in completed if is_acknowledged(catalog, one))
        works = [one for one in self.works if is_acknowledged(catalog, one["call_id"])]
        kept = sorted(one["call_id"] for one in works if one["acknowledged"] == "success")
        given_up = [one for one in works if one["acknowledged"] == "failed"]
        yield Check(
            "acknowledged as success, one work for each completed call",
            len(kept),
            len(expected),
            kept == expected,
        )
        yield Check.equal(
            "acknowledged as failed, every other work", len(given_up), len(works) - len(expected)
        )


def is_acknowledged(catalog: Catalog, call_id: str) -> bool:
    """Whether the provider of a call wants to be told what became of its answer."""
    provider, operation, _ = names.split_call_id(call_id)
    return catalog.integration(provider).operations[operation].acknowledge is not None


async def open_books(
    archive: Archive,
    outcomes: Sequence[CallOutcome],
    plain: Collection[str],
    call_ids: Collection[str],
    suppressed: int,
) -> Reconciliation:
    """Read from the provider and the ledger what there is on these calls.

    Args:
        outcomes, plain, suppressed: as in `Reconciliation`.
    """
    rows = [row for call_id in call_ids for row in await archive.ledger.calls.responses(call_id)]
    debts = await archive.ledger.calls.owed(limit=EVERY_ROW)
    return Reconciliation(
        outcomes=outcomes,
        plain=plain,
        recorded=[row.call_id for row in rows],
        owed=sum(debt.call_id in call_ids for debt in debts),
        works=[work for work in await archive.works() if work["call_id"] in call_ids],
        duplicates=(await archive.summary())["duplicates_sent"],
        suppressed=suppressed,
    )


async def suppressed_since(archive: Archive, before: int) -> int:
    """How many messages the ledger has suppressed, once all duplicates sent have come.

    Args:
        before: how many it had before the provider was started.
    """
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        sent = (await archive.summary())["duplicates_sent"]
        suppressed = (await archive.ledger.counts())["suppressed"] - before
        if suppressed >= sent or time.monotonic() > deadline:
            return suppressed
        await asyncio.sleep(0.2)
