"""The status of a call as the ledger has recorded it, for when no worker can be asked."""

from __future__ import annotations

from ackbridge.contracts.calls import CallStatus, Effect
from ackbridge.ledger.calls import CallRow

from .calls import status_of


def recorded_status(row: CallRow) -> CallStatus:
    """The status; of an open call, as of the last step that was recorded."""
    if row.outcome is not None:
        return status_of(row.outcome)
    return CallStatus(
        call_id=row.call_id,
        stage=row.stage,
        since=row.updated_at,
        last_error=row.reason,
        effect=row.effect or Effect.UNKNOWN,
        provider_code=row.provider_code,
    )
