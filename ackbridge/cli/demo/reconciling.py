"""Whether the provider's and the ledger's records add up to what the callers were told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ackbridge.catalog import Catalog
from ackbridge.contracts import CallOutcome, OutcomeStatus, names

from .records import Archive

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
class Books:
    """What is compared.

    Attributes:
        outcomes: of every call, as its caller has it.
        plain: the ids of calls for which the provider was asked for no faults.
        works: the provider's.
        duplicates: how many copies of its callbacks the provider has sent.
        more: how many rows the ledger has got more of, as `Ledger.counts` has them.
    """

    outcomes: Sequence[CallOutcome]
    plain: Collection[str]
    works: Sequence[Mapping[str, Any]]
    duplicates: int
    more: Mapping[str, int]

    def checks(self, catalog: Catalog) -> Iterator[Check]:
        """Every check.

        Args:
            catalog: says which operations are acknowledged.
        """
        completed = [one.call_id for one in self.outcomes if one.status is OutcomeStatus.COMPLETED]
        plain = [one for one in self.works if one["call_id"] in self.plain]
        yield Check.equal("recorded exactly once", self.more["responses"], len(completed))
        yield Check.equal("done once by the provider (first part)", len(plain), len(self.plain))
        yield from self._acknowledged(catalog, completed)
        yield Check.equal("acknowledgements still owed", self.more["acknowledgements_owed"], 0)
        yield Check.equal(
            "duplicates sent, and suppressed", self.more["suppressed"], self.duplicates
        )

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


async def settled_counts(archive: Archive, before: Mapping[str, int]) -> dict[str, int]:
    """How many rows the ledger has got more of, once all duplicates that were sent have come."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        sent = (await archive.summary())["duplicates_sent"]
        counts = await archive.ledger.counts()
        more = {name: count - before[name] for name, count in counts.items()}
        if more["suppressed"] >= sent or time.monotonic() > deadline:
            return more
        await asyncio.sleep(0.2)
