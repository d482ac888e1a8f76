"""The copies of the controls' snapshots."""

from __future__ import annotations

from datetime import timedelta

from ackbridge.contracts.control import ControlSnapshot, IntegrationFlags
from ackbridge.ledger.ledger import Ledger

from .samples import START


def version(number: int, minutes: int) -> ControlSnapshot:
    """A snapshot of acme's control, so many minutes after the start."""
    at = START + timedelta(minutes=minutes)
    initial = ControlSnapshot.initial("acme", IntegrationFlags(operations=("order",)), at)
    return initial.model_copy(update={"version": number})


async def test_the_newest_copy_stays(ledger: Ledger) -> None:
    """An attempt that was delayed writes nothing; a control that was lost begins at version 1."""
    assert await ledger.controls.latest("acme") is None
    for snapshot in (version(4, 1), version(5, 2), version(4, 1)):
        await ledger.controls.store(snapshot)
    assert await ledger.controls.latest("acme") == version(5, 2)
    await ledger.controls.store(version(1, 3))
    assert await ledger.controls.latest("acme") == version(1, 3)
    assert await ledger.controls.latest("other") is None
