"""`make costs`: measure what a call costs, and print the cost model.

It runs calls through the whole stack, with the ledger on PostgreSQL, and reads the engine's
histories, the database's statistics and the processes' CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts import names
from ackbridge.local.stack import Stack
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process
from tests.support.postgres import PostgreSQL, postgresql

from .bulk_lane import ManyCalls
from .cost_model import Assumptions, Cost, tables
from .engine_lanes import call_lanes, lanes_stack
from .history import cost_in_history, cost_in_hosts, history_size
from .lanes import Lane
from .measurement import saturate
from .processes import cpu_seconds, postmaster

LANES = ("ours", "ours-limited", "bulk")
RATES = {"delay_ms": 20}
SAMPLES = 10
"""Calls whose histories are read."""
STATISTICS_AFTER = 12.0
"""Seconds after which PostgreSQL's processes have reported what they did."""
IN_FLIGHT = 100
WARM_UP = 30


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What the database and the processes have done so far.

    Attributes:
        rows, size: of each table, and of all with their indexes, in bytes.
        writes, commits, wal: rows written, transactions, and bytes of the log.
        cpu: seconds by role.
    """

    rows: Mapping[str, int]
    size: int
    writes: int
    commits: int
    wal: int
    cpu: Mapping[str, float]


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--calls", type=int, default=500, help="of each lane")
    parser.add_argument("--lanes", default=",".join(LANES))
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/costs.json"))
    options = parser.parse_args()
    costs = asyncio.run(_run(options.lanes.split(","), options.calls))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([dataclasses.asdict(cost) for cost in costs], indent=2))
    print(tables(costs, Assumptions()))
    return 0


async def _run(lanes: Sequence[str], calls: int) -> list[Cost]:
    with postgresql() as server, tempfile.TemporaryDirectory() as folder:
        async with _stack(Path(folder), server) as (stack, url):
            client = await connect(stack.environment)
            known = {lane.name: lane for lane in call_lanes(stack, client, Path(folder))}
            many = ManyCalls(AckbridgeClient(client))
            known["bulk"] = Lane("bulk", many.run, {}, host_type=names.BULK_CALLS)
            async with many.running():
                return [
                    await _measure(known[name], client, stack, server, url, calls) for name in lanes
                ]


@asynccontextmanager
async def _stack(folder: Path, server: PostgreSQL) -> AsyncIterator[tuple[Stack, str]]:
    url = server.new_database()
    stack = lanes_stack(folder, RATES, {"ACKBRIDGE_LEDGER_URL": url})
    try:
        await asyncio.to_thread(stack.start)
        yield stack, url
    finally:
        await asyncio.to_thread(stack.stop)


async def _measure(
    lane: Lane, client: Client, stack: Stack, server: PostgreSQL, url: str, calls: int
) -> Cost:
    print(f"{lane.name}: {calls} calls", file=sys.stderr)
    await saturate(lane, WARM_UP, IN_FLIGHT)
    roles = {
        **{part: (stack.pid(part),) for part in ("engine", "worker", "gateway")},
        "postgresql": (postmaster(server.url),),
    }
    before = await _snapshot(url, roles)
    lane.calls.clear()
    began = datetime.now(UTC)
    await saturate(lane, calls, IN_FLIGHT)
    # The CPU time ends here: later on only background work goes on.
    used = {role: cpu_seconds(pids) for role, pids in roles.items()}
    after = await _snapshot(url, roles)
    if lane.host_type is None:
        events, actions, size = await _histories(client, lane)
    else:
        hosted = await cost_in_hosts(client, lane.host_type, began)
        events, actions, size = (total / calls for total in hosted)
    grown = {table: (rows - before.rows[table]) / calls for table, rows in after.rows.items()}
    return Cost(
        lane.name,
        events=events,
        actions=actions,
        history_bytes=size,
        rows={table: rows for table, rows in grown.items() if rows > 0.01},
        row_bytes=(after.size - before.size) / calls,
        writes=(after.writes - before.writes) / calls,
        commits=(after.commits - before.commits) / calls,
        wal_bytes=(after.wal - before.wal) / calls,
        cpu={role: (used[role] - before.cpu[role]) * 1000 / calls for role in roles},
    )


async def _histories(client: Client, lane: Lane) -> tuple[float, float, float]:
    """(events, actions, bytes) of a call's history, as medians.

    Of calls one after the other: under load a callback that overtakes the receipt saves a timer and
    a workflow task.
    """
    found: list[tuple[int, int, int]] = []
    for _ in range(SAMPLES):
        handle = client.get_workflow_handle(await lane.once())
        found.append((*await cost_in_history(handle), await history_size(handle)))
    events, actions, sizes = zip(*found, strict=True)
    return statistics.median(events), statistics.median(actions), statistics.median(sizes)


async def _snapshot(url: str, roles: Mapping[str, Sequence[int]]) -> Snapshot:
    await asyncio.sleep(STATISTICS_AFTER)
    with psycopg.connect(url) as connection:
        tables_known = [
            str(name)
            for (name,) in connection.execute("SELECT relname FROM pg_stat_user_tables ORDER BY 1")
        ]
        rows = {
            name: _number(connection, f'SELECT count(*) FROM "{name}"')  # noqa: S608 -- the database's own names
            for name in tables_known
        }
        return Snapshot(
            rows,
            size=_number(
                connection,
                "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables",
            ),
            writes=_number(
                connection,
                "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables",
            ),
            commits=_number(
                connection,
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
            ),
            wal=_number(connection, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"),
            cpu={role: cpu_seconds(pids) for role, pids in roles.items()},
        )


def _number(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


if __name__ == "__main__":
    exit_process(main())
