"""Parked calls, and the batches that reprocess them: each call once, and in one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts import names
from ackbridge.contracts.batches import (
    HELD_BACK,
    QUARANTINE_AFTER,
    BatchCounts,
    ParkedSelection,
    Survey,
)
from ackbridge.contracts.calls import OutcomeStatus, Stage
from ackbridge.contracts.steps import Parking

from .database.engines import Store, reads, upsert, writes
from .database.tables import batch_calls, calls, parked

CLAIM_EXPIRES_AFTER: Final = timedelta(minutes=10)
"""A batch that has not signalled a call it claimed by then has ended."""

MIN_ALONE: Final = timedelta(minutes=1)
MAX_ALONE: Final = timedelta(minutes=14)
"""The time for which a call that fails again is compared with others; statistics are kept for a
minute longer."""

LOST_AFTER: Final = timedelta(days=1)
"""A signalled call that has neither ended nor been parked again by then counts as skipped."""


class ParkedState(StrEnum):
    """The state of a row of `parked`.

    Attributes:
        WAITING: batches may claim it.
        MARKED: a batch has claimed it, and not signalled it yet.
        TAKEN: it was signalled, and has neither ended nor been parked again.
        GONE: the engine has no such open call; the row is kept for operators.
    """

    WAITING = "waiting"
    MARKED = "marked"
    TAKEN = "taken"
    GONE = "gone"


class BatchCallState(StrEnum):
    """The state of a call in one batch; the last four are final."""

    MARKED = "marked"
    SIGNALLED = "told"
    COMPLETED = "completed"
    PARKED_AGAIN = "parked_again"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class ParkedCall:
    """A call that batches may claim.

    Attributes:
        reason: such as `no_response` or `no_receipt`.
        times: how often it was parked.
        parked_at: the last time.
        failures: how often it has failed again while other calls were answered.
    """

    call_id: str
    operation: str
    reason: str
    times: int
    parked_at: datetime
    failures: int = 0


@dataclass(frozen=True)
class FailedAgain:
    """A call that is about to be parked again, because it has failed again.

    Attributes:
        since: when it was taken up, and at least a minute ago.
        others: other calls of its operation that have failed since then, and are parked.
    """

    since: datetime
    others: int


@dataclass(frozen=True)
class WaitingCall(ParkedCall):
    """A parked call, also while it is being reprocessed by `batch`."""

    state: ParkedState = ParkedState.WAITING
    batch: str | None = None


WaitingKind = tuple[str, bool, bool]
"""The reason, whether it is being reprocessed, and whether it is in quarantine."""


@dataclass(frozen=True)
class ParkedCount:
    """The parked calls of one operation and reason, and when the oldest was parked."""

    operation: str
    reason: str
    calls: int
    oldest: datetime


class BatchStore(Store):
    """Which calls are parked, which batch has claimed which, and what became of them."""

    @reads
    def parked(
        self, connection: sa.Connection, selection: ParkedSelection, limit: int = 100
    ) -> list[ParkedCall]:
        """The calls that a batch would claim, oldest first."""
        query = _selected(selection, self.clock()).order_by(*_OLDEST_FIRST).limit(limit)
        return [_parked_call(row) for row in connection.execute(query)]

    @reads
    def failed_again(
        self, connection: sa.Connection, call_id: str, parking: Parking
    ) -> FailedAgain | None:
        """What is known of a parked call that fails again; None: it has not failed before."""
        if parking.put_back or parking.reason in HELD_BACK:
            return None
        before = connection.execute(_READ_PARKED, {"which": call_id}).one_or_none()
        if before is None or before.times >= parking.times or before.reason in HELD_BACK:
            return None
        now = self.clock()
        taken_at = before.taken_at or before.parked_at
        since = max(min(taken_at, now - MIN_ALONE), now - MAX_ALONE)
        query = sa.select(sa.func.count()).where(
            parked.c.provider == before.provider,
            parked.c.operation == before.operation,
            parked.c.parked_at >= since,
            parked.c.reason.not_in(HELD_BACK),
            parked.c.call_id != call_id,
        )
        return FailedAgain(since, connection.execute(query).scalar_one())

    @reads
    def failures(self, connection: sa.Connection, call_id: str) -> int:
        """How often a parked call has failed again while other calls were answered."""
        row = connection.execute(_READ_PARKED, {"which": call_id}).one_or_none()
        return int(row.failures) if row is not None else 0

    @reads
    def quarantined(
        self, connection: sa.Connection, provider: str, limit: int = 100
    ) -> list[ParkedCall]:
        """The parked calls that recoveries leave out, those that failed last first."""
        query = (
            sa.select(parked)
            .where(parked.c.provider == provider, parked.c.failures >= QUARANTINE_AFTER)
            .order_by(parked.c.parked_at.desc(), parked.c.call_id)
            .limit(limit)
        )
        return [_parked_call(row) for row in connection.execute(query)]

    @reads
    def waiting(
        self, connection: sa.Connection, provider: str, limit: int = 100
    ) -> list[WaitingCall]:
        """The parked calls, those in quarantine first, and then the oldest."""
        is_quarantined = parked.c.failures >= QUARANTINE_AFTER
        query = (
            sa.select(parked)
            .where(parked.c.provider == provider, parked.c.state != ParkedState.GONE)
            .order_by(is_quarantined.desc(), *_OLDEST_FIRST)
            .limit(limit)
        )
        return [
            WaitingCall(
                **vars(_parked_call(row)),
                state=ParkedState(row.state),
                batch=row.batch,
            )
            for row in connection.execute(query)
        ]

    @reads
    def count_waiting(
        self, connection: sa.Connection, provider: str
    ) -> list[tuple[WaitingKind, int, datetime]]:
        """How many calls are parked, by kind, and when the oldest was."""
        is_taken = (parked.c.state == ParkedState.TAKEN).label("is_taken")
        is_quarantined = (parked.c.failures >= QUARANTINE_AFTER).label("is_quarantined")
        kind = (parked.c.reason, is_taken, is_quarantined)
        oldest = sa.func.min(parked.c.parked_at, type_=parked.c.parked_at.type)
        query = (
            sa.select(*kind, sa.func.count(), oldest)
            .where(parked.c.provider == provider, parked.c.state != ParkedState.GONE)
            .group_by(*kind)
            .order_by(*kind)
        )
        return [
            ((reason, bool(taken), bool(quarantined)), int(calls), since)
            for reason, taken, quarantined, calls, since in connection.execute(query)
        ]

    @reads
    def count_parked(
        self, connection: sa.Connection, selection: ParkedSelection
    ) -> list[ParkedCount]:
        """How many calls a batch would claim, by operation and reason; ignores `at_most`."""
        return _count_parked(connection, selection, self.clock())

    @writes
    def survey(self, connection: sa.Connection, selection: ParkedSelection) -> Survey:
        """Count the calls for a batch that starts now; first free those of dead batches."""
        now = self.clock()
        is_expired = parked.c.taken_at < now - CLAIM_EXPIRES_AFTER
        _free(connection, parked.c.provider == selection.provider, is_expired)
        total = sum(count.calls for count in _count_parked(connection, selection, now))
        return Survey(total=min(total, selection.at_most or total), as_of=now)

    @writes
    def claim(
        self,
        connection: sa.Connection,
        batch: str,
        selection: ParkedSelection,
        as_of: datetime,
        limit: int,
        excluded_operations: frozenset[str] = frozenset(),
    ) -> list[str]:
        """Claim the oldest parked calls that neither this batch nor another one has claimed.

        Args:
            as_of: calls parked later are left out.
            limit: how many at most; the selection's own `at_most` is up to the caller.

        Returns:
            The ids of the calls.
        """
        now = self.clock()
        query = _unclaimed(batch, selection, as_of)
        if excluded_operations:
            query = query.where(parked.c.operation.not_in(sorted(excluded_operations)))
        # Concurrent batches claim different calls, and neither waits for the other.
        query = query.order_by(*_OLDEST_FIRST).limit(limit).with_for_update(skip_locked=True)
        rows = connection.execute(query).all()
        if not rows:
            return []
        claimed = {"state": ParkedState.MARKED, "batch": batch, "taken_at": now}
        ids = [row.call_id for row in rows]
        connection.execute(parked.update().where(parked.c.call_id.in_(ids)).values(**claimed))
        connection.execute(
            batch_calls.insert(),
            [
                {
                    "batch": batch,
                    "call_id": row.call_id,
                    "times": row.times,
                    "state": BatchCallState.MARKED,
                    "marked_at": now,
                }
                for row in rows
            ],
        )
        return ids

    @writes
    def unsignalled(self, connection: sa.Connection, batch: str) -> list[str]:
        """The calls that an interrupted batch has claimed and still has to signal."""
        return _unsignalled(connection, batch, self.clock())

    @writes
    def mark_signalled(self, connection: sa.Connection, batch: str, ids: Sequence[str]) -> None:
        """The calls have received the signal."""
        if not ids:
            return
        keys = [{"of": batch, "which": call_id} for call_id in ids]
        taken = {"state": ParkedState.TAKEN, "taken_at": self.clock()}
        connection.execute(
            _MARK_SIGNALLED, [key | {"state": BatchCallState.SIGNALLED} for key in keys]
        )
        connection.execute(_MARK_TAKEN, [key | taken for key in keys])

    @writes
    def skip(self, connection: sa.Connection, batch: str, call_id: str) -> None:
        """The engine has no such open call: it has ended, or was terminated."""
        _set_state(connection, batch, [call_id], BatchCallState.SKIPPED, self.clock())
        stage = connection.execute(_STAGE, {"which": call_id}).scalar_one_or_none()
        if stage is not None and stage != Stage.PARKED:
            unpark(connection, call_id)
        else:
            ours = sa.and_(parked.c.call_id == call_id, parked.c.batch == batch)
            connection.execute(parked.update().where(ours).values(state=ParkedState.GONE))

    async def settle(self, batch: str) -> int:
        """Record which signalled calls have ended or are parked again.

        Returns:
            How many have done neither yet.
        """
        unfinished, ended = await self._finished(batch)
        if ended:
            await self._record_ends(batch, ended)
        return unfinished

    @reads
    def _finished(
        self, connection: sa.Connection, batch: str
    ) -> tuple[int, dict[BatchCallState, list[str]]]:
        ended: dict[BatchCallState, list[str]] = {}
        unfinished, now = 0, self.clock()
        for row in connection.execute(_SIGNALLED_CALLS, {"of": batch}):
            state = _final_state(row, now)
            if state is None:
                unfinished += 1
            else:
                ended.setdefault(state, []).append(row.call_id)
        return unfinished, ended

    @writes
    def _record_ends(
        self, connection: sa.Connection, batch: str, ended: dict[BatchCallState, list[str]]
    ) -> None:
        now = self.clock()
        for state, ids in sorted(ended.items()):
            _set_state(connection, batch, sorted(ids), state, now)

    @writes
    def release(self, connection: sa.Connection, batch: str) -> None:
        """Free the calls that were claimed and not signalled; the batch has not selected them."""
        ids = _unsignalled(connection, batch, self.clock())
        ours = sa.and_(batch_calls.c.batch == batch, batch_calls.c.call_id.in_(ids))
        connection.execute(batch_calls.delete().where(ours))
        _free(connection, parked.c.call_id.in_(ids), parked.c.batch == batch)

    @reads
    def count_left(
        self, connection: sa.Connection, batch: str, selection: ParkedSelection, as_of: datetime
    ) -> int:
        """How many of the selected calls are still parked, and not claimed by this batch."""
        query = _unclaimed(batch, selection, as_of)
        return connection.execute(query.with_only_columns(sa.func.count())).scalar_one()

    @reads
    def counts(self, connection: sa.Connection, batch: str) -> BatchCounts:
        """The progress of a batch."""
        rows = connection.execute(_COUNTS, {"of": batch})
        found = {state: int(number) for state, number in rows}
        ends = {
            state.value: found.get(state, 0)
            for state in (
                BatchCallState.COMPLETED,
                BatchCallState.PARKED_AGAIN,
                BatchCallState.FAILED,
            )
        }
        return BatchCounts(
            selected=sum(found.values()),
            signalled=found.get(BatchCallState.SIGNALLED, 0) + sum(ends.values()),
            skipped=found.get(BatchCallState.SKIPPED, 0),
            **ends,
        )


def park(
    connection: sa.Connection,
    call_id: str,
    parking: Parking,
    now: datetime,
    *,
    failed_alone: bool = False,
) -> None:
    """Add a call to the parked ones; repeating the same parking changes nothing.

    Args:
        failed_alone: it has failed again, and other calls were answered.
    """
    provider, operation, key = names.split_call_id(call_id)
    row = {
        "call_id": call_id,
        "provider": provider,
        "operation": operation,
        "key": key,
        "reason": parking.reason,
        "times": parking.times,
        "parked_at": now,
        "state": ParkedState.WAITING,
        "batch": None,
        "taken_at": None,
        # Of a call that is parked already, what is added.
        "failures": int(failed_alone),
    }
    statement = _park(
        connection.dialect.name, keeps_place=parking.put_back, is_released=parking.released
    )
    connection.execute(statement, row)


def unpark(connection: sa.Connection, call_id: str) -> None:
    """Remove a call that has ended, or starts again, from the parked ones."""
    connection.execute(_UNPARK, {"which": call_id})


def _selected(selection: ParkedSelection, as_of: datetime) -> sa.Select[tuple[object, ...]]:
    """The rows that are selected and may be claimed."""
    until = as_of - (selection.older_than or timedelta(0))
    conditions = [
        parked.c.provider == selection.provider,
        parked.c.state == ParkedState.WAITING,
        parked.c.parked_at <= until,
    ]
    if selection.operations:
        conditions.append(parked.c.operation.in_(selection.operations))
    if selection.reasons:
        conditions.append(parked.c.reason.in_(selection.reasons))
    if selection.parked_since is not None:
        conditions.append(parked.c.parked_at >= selection.parked_since)
    if not selection.quarantined:
        conditions.append(parked.c.failures < QUARANTINE_AFTER)
    if selection.keys:
        conditions.append(parked.c.key.in_(selection.keys))
    return sa.select(parked).where(*conditions)


def _parked_call(row: sa.Row[Any]) -> ParkedCall:
    return ParkedCall(*(getattr(row, field.name) for field in fields(ParkedCall)))


def _unclaimed(
    batch: str, selection: ParkedSelection, as_of: datetime
) -> sa.Select[tuple[object, ...]]:
    """The rows that a batch may still claim."""
    known = sa.exists().where(
        batch_calls.c.batch == batch, batch_calls.c.call_id == parked.c.call_id
    )
    return _selected(selection, as_of).where(~known)


def _count_parked(
    connection: sa.Connection, selection: ParkedSelection, now: datetime
) -> list[ParkedCount]:
    kinds = (parked.c.operation, parked.c.reason)
    oldest = sa.func.min(parked.c.parked_at, type_=parked.c.parked_at.type)
    query = _selected(selection, now).with_only_columns(*kinds, sa.func.count(), oldest)
    rows = connection.execute(query.group_by(*kinds).order_by(*kinds))
    return [ParkedCount(*row) for row in rows]


def _unsignalled(connection: sa.Connection, batch: str, now: datetime) -> list[str]:
    """The claimed calls without a signal.

    A call that was parked again since counts as signalled: its batch was interrupted before it
    could record that. One that another batch has claimed meanwhile is skipped.
    """
    query = (
        sa.select(
            batch_calls.c.call_id,
            batch_calls.c.times,
            parked.c.times.label("parked_times"),
            parked.c.batch,
        )
        .join_from(batch_calls, parked, parked.c.call_id == batch_calls.c.call_id, isouter=True)
        .where(batch_calls.c.batch == batch, batch_calls.c.state == BatchCallState.MARKED)
        .order_by(batch_calls.c.marked_at, batch_calls.c.call_id)
    )
    rows = connection.execute(query).all()
    moved = {row.call_id for row in rows if row.parked_times != row.times}
    ours = [row.call_id for row in rows if row.call_id not in moved and row.batch == batch]
    lost = {row.call_id for row in rows} - moved - set(ours)
    _set_state(connection, batch, sorted(moved), BatchCallState.SIGNALLED, now)
    _set_state(connection, batch, sorted(lost), BatchCallState.SKIPPED, now)
    return ours


def _final_state(row: sa.Row[Any, Any, Any, Any, Any], now: datetime) -> BatchCallState | None:
    """What became of a signalled call; None: nothing yet."""
    if row.status is not None:
        is_completed = row.status == OutcomeStatus.COMPLETED
        return BatchCallState.COMPLETED if is_completed else BatchCallState.FAILED
    if row.parked_times is not None and row.parked_times != row.times:
        return BatchCallState.PARKED_AGAIN
    return BatchCallState.SKIPPED if row.marked_at < now - LOST_AFTER else None


def _set_state(
    connection: sa.Connection, batch: str, ids: list[str], state: BatchCallState, now: datetime
) -> None:
    if ids:
        which = sa.and_(batch_calls.c.batch == batch, batch_calls.c.call_id.in_(ids))
        connection.execute(batch_calls.update().where(which).values(state=state, ended_at=now))


def _free(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> None:
    free = {"state": ParkedState.WAITING, "batch": None, "taken_at": None}
    is_claimed = parked.c.state == ParkedState.MARKED
    connection.execute(parked.update().where(is_claimed, *which).values(**free))


@cache
def _park(dialect: str, *, keeps_place: bool, is_released: bool) -> sa.Insert:
    statement = upsert(dialect, parked)
    new = statement.excluded
    changed = {name: new[name] for name in ("reason", "times", "state", "batch", "taken_at")}
    if not keeps_place:
        changed["parked_at"] = new.parked_at
    before = sa.literal(0) if is_released else parked.c.failures
    return statement.on_conflict_do_update(
        index_elements=[parked.c.call_id],
        set_={**changed, "failures": before + new.failures},
        where=parked.c.times != new.times,
    )


_OLDEST_FIRST = (parked.c.parked_at, parked.c.call_id)
_UNPARK = parked.delete().where(parked.c.call_id == sa.bindparam("which"))
_READ_PARKED = sa.select(parked).where(parked.c.call_id == sa.bindparam("which"))
_STAGE = sa.select(calls.c.stage).where(calls.c.call_id == sa.bindparam("which"))
_MARK_SIGNALLED = batch_calls.update().where(
    batch_calls.c.batch == sa.bindparam("of"), batch_calls.c.call_id == sa.bindparam("which")
)
_MARK_TAKEN = parked.update().where(
    parked.c.call_id == sa.bindparam("which"),
    parked.c.batch == sa.bindparam("of"),
    parked.c.state == ParkedState.MARKED.value,
)
_COUNTS = (
    sa.select(batch_calls.c.state, sa.func.count())
    .where(batch_calls.c.batch == sa.bindparam("of"))
    .group_by(batch_calls.c.state)
)
_SIGNALLED_CALLS = (
    sa.select(
        batch_calls.c.call_id,
        batch_calls.c.times,
        batch_calls.c.marked_at,
        calls.c.outcome["status"].as_string().label("status"),
        parked.c.times.label("parked_times"),
    )
    .join_from(batch_calls, calls, calls.c.call_id == batch_calls.c.call_id, isouter=True)
    .join(parked, parked.c.call_id == batch_calls.c.call_id, isouter=True)
    .where(
        batch_calls.c.batch == sa.bindparam("of"),
        batch_calls.c.state == BatchCallState.SIGNALLED.value,
    )
)
