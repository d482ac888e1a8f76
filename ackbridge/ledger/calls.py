"""Calls: who claims them, where they stand, what they owe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Final

import sqlalchemy as sa

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Stage
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind, Parking, SuppressedMessage
from ackbridge.ledger.database.tables import acknowledgements, calls
from ackbridge.ledger.database.upserts import insert_new, upsert

from . import inbox, parked, suppressed_log
from .rows import CallRow, Claim, ClaimKind, InboxEntry, LogKind, Owed

HELD: Final = "no call may take it any more"
"""Why a message is held of which nothing else is said."""


def claim(connection: sa.Connection, request: CallRequest, run_chain: str, now: datetime) -> Claim:
    """Claim a call for a run chain; see `Ledger.claim`."""
    row = {
        "call_id": request.call_id,
        "provider": request.provider,
        "operation": request.operation,
        "request_digest": request.digest,
        "run_chain": run_chain,
        "stage": Stage.PREPARING,
        "claimed_at": now,
        "updated_at": now,
    }
    held = None
    while held is None:
        if insert_new(connection, calls, row):
            return Claim(ClaimKind.FRESH)
        # One that a clean-up has deleted in between is free.
        query = _READ.with_for_update()
        held = connection.execute(query, {"which": request.call_id}).one_or_none()
    if held.request_digest != request.digest:
        return Claim(ClaimKind.REUSED)
    outcome = held.outcome and CallOutcome.model_validate(held.outcome)
    if held.run_chain == run_chain:
        return Claim(ClaimKind.HELD, outcome)
    if outcome is not None:
        return Claim(ClaimKind.RECORDED, outcome)
    _update(connection, request.call_id, now, run_chain=run_chain, stage=Stage.PREPARING)
    parked.leave(connection, request.call_id)
    return Claim(ClaimKind.HELD)


def acknowledged(
    connection: sa.Connection,
    call_id: str,
    cycle: int,
    kind: AcknowledgementKind,
    at: datetime,
    outcome: CallOutcome | None,
    now: datetime,
) -> None:
    """Note that the provider has accepted; see `Ledger.acknowledged`."""
    row = {
        "call_id": call_id,
        "cycle": cycle,
        "kind": kind,
        "is_owed": False,
        "acknowledged_at": at,
    }
    connection.execute(_pay(connection.dialect.name), row)
    if outcome is not None and (outcome.late or outcome.forced):
        _void_failed(connection, call_id, cycle, kind)
    if outcome is not None:
        _update(connection, call_id, now, stage=Stage(outcome.status), outcome=_plain(outcome))


def owe(
    connection: sa.Connection,
    call_id: str,
    cycle: int,
    kind: AcknowledgementKind,
    reason: str,
    now: datetime,
) -> None:
    """Note what the provider has not accepted; see `Ledger.owe`."""
    row = {
        "call_id": call_id,
        "cycle": cycle,
        "kind": kind,
        "is_owed": True,
        "reason": reason,
        "owed_at": now,
    }
    connection.execute(_owe(connection.dialect.name), row)
    _void_failed(connection, call_id, cycle, kind)


def conclude(
    connection: sa.Connection,
    call_id: str,
    stage: Stage,
    reason: str | None,
    outcome: CallOutcome | None,
    suppressed: Sequence[SuppressedMessage],
    held: Sequence[ProviderMessage],
    now: datetime,
    parking: Parking | None = None,
) -> None:
    """Keep where the call stands, with what was suppressed or held; see `Ledger.conclude`."""
    known = {} if outcome is None else {"outcome": _plain(outcome)}
    _update(connection, call_id, now, stage=stage, reason=reason, **known)
    if stage is Stage.PARKED:
        parked.park(connection, call_id, parking, now)
    elif outcome is not None and outcome.status is not OutcomeStatus.COMPLETED:
        parked.leave(connection, call_id)
    provider, operation, _ = names.split_call_id(call_id)
    # Sorted, so that two transactions never wait for each other's rows.
    for (event_key, why), times in sorted(
        Counter((s.event_key, s.reason) for s in suppressed).items()
    ):
        entry = suppressed_log.LogEntry(LogKind.SUPPRESSED, provider, event_key, call_id, why)
        suppressed_log.note(connection, entry, now, times)
    why_not = {one.event_key: one.reason for one in suppressed}
    for message in sorted(held, key=lambda m: m.event_key):
        kept = InboxEntry(
            provider=provider,
            event_key=message.event_key,
            operation=operation,
            call_id=call_id,
            reference=message.reference,
            message=message,
            document=None,
            received_at=message.received_at or now,
        )
        inbox.hold(connection, kept, why_not.get(message.event_key, HELD), now)


def owed(connection: sa.Connection, provider: str | None, limit: int) -> list[Owed]:
    """What providers have not accepted yet, oldest first; see `Ledger.owed`."""
    query = sa.select(acknowledgements).where(acknowledgements.c.is_owed)
    if provider is not None:
        whose = acknowledgements.c.call_id.startswith(f"{provider}.", autoescape=True)
        query = query.where(whose)
    by_age = (acknowledgements.c.owed_at, acknowledgements.c.call_id, acknowledgements.c.cycle)
    return [
        Owed(row.call_id, row.cycle, AcknowledgementKind(row.kind), row.reason, row.owed_at)
        for row in connection.execute(query.order_by(*by_age).limit(limit))
    ]


def call(connection: sa.Connection, call_id: str) -> CallRow | None:
    """Read one call."""
    row = connection.execute(_READ, {"which": call_id}).one_or_none()
    if row is None:
        return None
    fields = dict(row._mapping)  # noqa: SLF001 -- the documented, public view of a row
    outcome = row.outcome and CallOutcome.model_validate(row.outcome)
    return CallRow(**fields | {"stage": Stage(row.stage), "outcome": outcome})


def settle_captured(
    connection: sa.Connection, call_id: str, outcome: CallOutcome, now: datetime
) -> None:
    """The response stands: the outcome with it, and the stage that follows."""
    stage = Stage.ACKNOWLEDGING if outcome.acknowledgement_owed else Stage(outcome.status)
    _update(connection, call_id, now, stage=stage, reason=None, outcome=_plain(outcome))


def _void_failed(
    connection: sa.Connection, call_id: str, cycle: int, kind: AcknowledgementKind
) -> None:
    """A success takes the place of a failed acknowledgement that was not accepted."""
    if kind is AcknowledgementKind.SUCCESS:
        connection.execute(_VOID_FAILED, {"which": call_id, "of": cycle})


def _update(connection: sa.Connection, call_id: str, now: datetime, **values: object) -> None:
    connection.execute(_UPDATE, {"which": call_id, "updated_at": now, **values})


def _plain(outcome: CallOutcome) -> object:
    return outcome.model_dump(mode="json")


# Statements of every call: building one costs as much as executing it.

_UPDATE = calls.update().where(calls.c.call_id == sa.bindparam("which"))
_VOID_FAILED = (
    acknowledgements.update()
    .where(
        acknowledgements.c.call_id == sa.bindparam("which"),
        acknowledgements.c.cycle == sa.bindparam("of"),
        acknowledgements.c.kind == AcknowledgementKind.FAILED.value,
        acknowledgements.c.is_owed,
    )
    .values(is_owed=False, reason="a success has taken its place")
)
_READ = sa.select(calls).where(calls.c.call_id == sa.bindparam("which"))


@cache
def _pay(dialect: str) -> sa.Insert:
    statement = upsert(dialect, acknowledgements)
    first = sa.func.coalesce(acknowledgements.c.acknowledged_at, statement.excluded.acknowledged_at)
    return statement.on_conflict_do_update(
        index_elements=acknowledgements.primary_key.columns,
        set_={"is_owed": False, "reason": None, "acknowledged_at": first},
    )


@cache
def _owe(dialect: str) -> sa.Insert:
    statement = upsert(dialect, acknowledgements)
    return statement.on_conflict_do_update(
        index_elements=acknowledgements.primary_key.columns,
        set_={"reason": statement.excluded.reason},
        where=acknowledgements.c.is_owed,
    )
