"""What workers have reported lately, in counts alone: read every few seconds by whoever watches."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ackbridge.ledger.database.tables import observations
from ackbridge.stats.counters import FINE
from ackbridge.stats.totals import Count

Reported = tuple[datetime, dict[Count, int]]
"""When a report's time began, and what was counted in it."""


def reported(connection: sa.Connection, provider: str, since: datetime) -> list[Reported]:
    """The reports of all workers and operations; see `Ledger.reported`."""
    key = {"whose": provider, "since": FINE.begin(since)}
    return [
        (begin, {Count(name): count for name, count in counts.items() if name in _KNOWN})
        for begin, counts in connection.execute(_READ, key)
        if counts
    ]


_KNOWN = frozenset(str(what) for what in Count)

# The times beside the counts are many times longer, and nobody looks at them here.
_READ = sa.select(observations.c.begun_at, observations.c.observed["counts"]).where(
    observations.c.provider == sa.bindparam("whose"),
    observations.c.width == int(FINE.width.total_seconds()),
    observations.c.begun_at >= sa.bindparam("since"),
)
