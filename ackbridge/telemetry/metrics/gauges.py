"""The state of every provider for the whole fleet: read from the ledger and the controls."""

from __future__ import annotations

from dataclasses import dataclass, field

from ackbridge.catalog.catalog import Catalog, configured_flags
from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.control import WHOLE_PROVIDER, ControlSnapshot, FlagState, FlagValue
from ackbridge.control.snapshots import Snapshots
from ackbridge.ledger.ledger import Ledger

Key = tuple[str, str]
"""Provider and operation."""


@dataclass(frozen=True)
class FleetGauges:
    # parked, owed: calls and acknowledgements, of every operation in the catalog.
    parked: dict[Key, int] = field(default_factory=dict)
    owed: dict[Key, int] = field(default_factory=dict)
    # By provider; only those whose control is known.
    breakers: dict[str, BreakerState] = field(default_factory=dict)
    # Of every operation, and of the provider itself under "".
    flags: dict[Key, FlagValue] = field(default_factory=dict)
    deadlines: dict[Key, float] = field(default_factory=dict)  # in seconds; only learned ones


@dataclass(frozen=True)
class OutboxGauges:
    """What a relay knows of its outbox.

    Attributes:
        relayed: rows since the relay was started, by outcome.
        waiting: rows by state; empty while the database does not answer.
        lag: the age of the oldest pending row, in seconds.
    """

    relayed: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    lag: float | None = None


@dataclass(frozen=True)
class GaugeSource:
    """Reads the gauges: two queries of the ledger and one snapshot of the control per provider."""

    catalog: Catalog
    ledger: Ledger
    control: Snapshots
    environment: str

    async def read(self) -> FleetGauges:
        """Read the state of every provider; raises `LedgerUnavailableError`."""
        gauges = FleetGauges()
        for provider, integration in self.catalog.integrations.items():
            found = await self.ledger.stats.backlog(provider)
            snapshot = await self.control.snapshot(provider)
            for operation in integration.operations:
                waiting = found.get(operation)
                gauges.parked[provider, operation] = waiting.parked if waiting else 0
                gauges.owed[provider, operation] = waiting.owed if waiting else 0
            for operation in (WHOLE_PROVIDER, *integration.operations):
                gauges.flags[provider, operation] = self._flag(provider, operation, snapshot)
            if snapshot is not None:
                gauges.breakers[provider] = snapshot.breaker.state
                for operation, learned in snapshot.deadlines.items():
                    gauges.deadlines[provider, operation] = learned.deadline.total_seconds()
        return gauges

    def _flag(self, provider: str, operation: str, snapshot: ControlSnapshot | None) -> FlagValue:
        override = snapshot.override(self.environment, operation) if snapshot else None
        file = configured_flags(self.catalog.integration(provider))
        return override or file.flag(self.environment, operation)


def open_share(flag: FlagValue) -> float:
    """The share of calls, from 0 to 1, that a flag lets through, without the internal audience."""
    if flag.state is FlagState.PERCENTAGE:
        return (flag.percentage or 0) / 100
    return 1.0 if flag.state is FlagState.ON else 0.0
