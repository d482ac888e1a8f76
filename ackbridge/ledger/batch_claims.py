"""Batches take parked calls: each one once, and no call by two batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts.batches import BatchCounts, ParkedSelection
from ackbridge.contracts.calls import OutcomeStatus, Stage
from ackbridge.ledger.database.tables import batch_calls, calls, parked

from .parked import OLDEST_FIRST, ParkedState, leave, selected

ABANDONED_AFTER: Final = timedelta(minutes=10)
"""A batch that has marked a call and not told it by then will not any more."""

LOST_AFTER: Final = timedelta(days=1)
"""A call that was told and neither ended nor was parked again by then is waited for no longer."""


class MarkState(StrEnum):
    """What has become of a call in one batch."""

    MARKED = "marked"
    TOLD = "told"
    COMPLETED = "completed"
    PARKED_AGAIN = "parked_again"
    FAILED = "failed"
    SKIPPED = "skipped"


def mark(
    connection: sa.Connection,
    batch: str,
    selection: ParkedSelection,
    as_of: datetime,
    closed: frozenset[str],
    limit: int,
    now: datetime,
) -> list[str]:
    """Take the oldest calls that wait, for one batch; see `Batches.mark`."""
    known = sa.exists().where(
        batch_calls.c.batch == batch, batch_calls.c.call_id == parked.c.call_id
    )
    query = selected(selection, as_of).where(~known)
    if closed:
        query = query.where(parked.c.operation.not_in(sorted(closed)))
    # Two batches at once take different calls, and neither waits for the other.
    query = query.order_by(*OLDEST_FIRST).limit(limit).with_for_update(skip_locked=True)
    rows = connection.execute(query).all()
    if not rows:
        return []
    taken = {"state": ParkedState.MARKED, "batch": batch, "taken_at": now}
    ids = [row.call_id for row in rows]
    connection.execute(parked.update().where(parked.c.call_id.in_(ids)).values(**taken))
    connection.execute(
        batch_calls.insert(),
        [
            {
                "batch": batch,
                "call_id": row.call_id,
                "times": row.times,
                "state": MarkState.MARKED,
                "marked_at": now,
            }
            for row in rows
        ],
    )
    return ids


def pending(connection: sa.Connection, batch: str, now: datetime) -> list[str]:
    """Calls that are marked and not told yet, after a batch was interrupted.

    One that has moved since counts as told: whoever told it had no time to note that. One that
    another batch has by now is skipped.
    """
    query = (
        sa.select(
            batch_calls.c.call_id,
            batch_calls.c.times,
            parked.c.times.label("parked_times"),
            parked.c.batch,
        )
        .join_from(batch_calls, parked, parked.c.call_id == batch_calls.c.call_id, isouter=True)
        .where(batch_calls.c.batch == batch, batch_calls.c.state == MarkState.MARKED)
        .order_by(batch_calls.c.marked_at, batch_calls.c.call_id)
    )
    rows = connection.execute(query).all()
    moved = {row.call_id for row in rows if row.parked_times != row.times}
    ours = [row.call_id for row in rows if row.call_id not in moved and row.batch == batch]
    lost = {row.call_id for row in rows} - moved - set(ours)
    _enter(connection, batch, sorted(moved), MarkState.TOLD, now)
    _enter(connection, batch, sorted(lost), MarkState.SKIPPED, now)
    return ours


def told(connection: sa.Connection, batch: str, ids: Sequence[str], now: datetime) -> None:
    """The calls have the signal."""
    rows = [{"of": batch, "which": call_id} for call_id in ids]
    told = {"state": MarkState.TOLD}
    taken = {"state": ParkedState.TAKEN, "taken_at": now}
    if rows:
        connection.execute(_TOLD, [row | told for row in rows])
        connection.execute(_TAKEN, [row | taken for row in rows])


def skip(connection: sa.Connection, batch: str, call_id: str, now: datetime) -> None:
    """The engine knows no such open call: it has ended, or was taken away from outside."""
    _enter(connection, batch, [call_id], MarkState.SKIPPED, now)
    stage = connection.execute(_STAGE, {"which": call_id}).scalar_one_or_none()
    if stage is not None and stage != Stage.PARKED:
        leave(connection, call_id)
    else:
        ours = sa.and_(parked.c.call_id == call_id, parked.c.batch == batch)
        connection.execute(parked.update().where(ours).values(state=ParkedState.GONE))


def under_way(
    connection: sa.Connection, batch: str, now: datetime
) -> tuple[int, dict[MarkState, list[str]]]:
    """How many calls that were told are under way, and what has become of the others."""
    ended: dict[MarkState, list[str]] = {}
    open_calls = 0
    for row in connection.execute(_UNDER_WAY, {"of": batch}):
        state = _what_became(row, now)
        if state is None:
            open_calls += 1
        else:
            ended.setdefault(state, []).append(row.call_id)
    return open_calls, ended


def keep_ends(
    connection: sa.Connection, batch: str, ended: dict[MarkState, list[str]], now: datetime
) -> None:
    """Keep what has become of calls."""
    for state, ids in sorted(ended.items()):
        _enter(connection, batch, sorted(ids), state, now)


def release(connection: sa.Connection, batch: str, now: datetime) -> None:
    """Give back the calls that were marked and not told."""
    ids = pending(connection, batch, now)
    _enter(connection, batch, ids, MarkState.SKIPPED, now)
    _set_free(connection, parked.c.call_id.in_(ids), parked.c.batch == batch)


def release_abandoned(connection: sa.Connection, provider: str, now: datetime) -> None:
    """Give back the calls that batches have marked which are no more."""
    _set_free(connection, parked.c.provider == provider, parked.c.taken_at < now - ABANDONED_AFTER)


def counts(connection: sa.Connection, batch: str) -> BatchCounts:
    """How far a batch is."""
    found = {state: int(number) for state, number in connection.execute(_COUNTS, {"of": batch})}
    ends = {
        state.value: found.get(state, 0)
        for state in (MarkState.COMPLETED, MarkState.PARKED_AGAIN, MarkState.FAILED)
    }
    return BatchCounts(
        selected=sum(found.values()),
        signalled=found.get(MarkState.TOLD, 0) + sum(ends.values()),
        skipped=found.get(MarkState.SKIPPED, 0),
        **ends,
    )


def _what_became(row: sa.Row[Any, Any, Any, Any, Any], now: datetime) -> MarkState | None:
    """The end of a call in a batch; None: it is under way."""
    if row.status is not None:
        is_completed = row.status == OutcomeStatus.COMPLETED
        return MarkState.COMPLETED if is_completed else MarkState.FAILED
    if row.parked_times is not None and row.parked_times != row.times:
        return MarkState.PARKED_AGAIN
    return MarkState.SKIPPED if row.marked_at < now - LOST_AFTER else None


def _enter(
    connection: sa.Connection, batch: str, ids: list[str], state: MarkState, now: datetime
) -> None:
    if ids:
        which = sa.and_(batch_calls.c.batch == batch, batch_calls.c.call_id.in_(ids))
        connection.execute(batch_calls.update().where(which).values(state=state, ended_at=now))


def _set_free(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> None:
    free = {"state": ParkedState.WAITING, "batch": None, "taken_at": None}
    is_marked = parked.c.state == ParkedState.MARKED
    connection.execute(parked.update().where(is_marked, *which).values(**free))


_STAGE = sa.select(calls.c.stage).where(calls.c.call_id == sa.bindparam("which"))
_TOLD = batch_calls.update().where(
    batch_calls.c.batch == sa.bindparam("of"), batch_calls.c.call_id == sa.bindparam("which")
)
_TAKEN = parked.update().where(
    parked.c.call_id == sa.bindparam("which"),
    parked.c.batch == sa.bindparam("of"),
    parked.c.state == ParkedState.MARKED.value,
)
_COUNTS = (
    sa.select(batch_calls.c.state, sa.func.count())
    .where(batch_calls.c.batch == sa.bindparam("of"))
    .group_by(batch_calls.c.state)
)
_UNDER_WAY = (
    sa.select(
        batch_calls.c.call_id,
        batch_calls.c.times,
        batch_calls.c.marked_at,
        calls.c.outcome["status"].as_string().label("status"),
        parked.c.times.label("parked_times"),
    )
    .join_from(batch_calls, calls, calls.c.call_id == batch_calls.c.call_id, isouter=True)
    .join(parked, parked.c.call_id == batch_calls.c.call_id, isouter=True)
    .where(batch_calls.c.batch == sa.bindparam("of"), batch_calls.c.state == MarkState.TOLD.value)
)
