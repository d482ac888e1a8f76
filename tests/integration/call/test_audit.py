"""Operators' requests on the real engine are in the audit log, with who has sent them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.client import Client

from ackbridge.client.purge import start_purge
from ackbridge.contracts import names
from ackbridge.contracts.audit import AuditEntry, AuditOrigin
from ackbridge.contracts.control import SetFlag
from ackbridge.contracts.purge import PurgeRequest
from ackbridge.errors import CallCancelledError
from ackbridge.ledger.audit import ChainVerifier
from tests.support.replays import replay
from tests.support.stage import Stage

PATIENCE = timedelta(seconds=30)


async def entries_about(stage: Stage, subject: str) -> list[AuditEntry]:
    """In the order of the requests; two that arrive together are recorded side by side."""
    rows = await stage.ledger.audit.page()
    assert list(ChainVerifier().check(rows)) == []
    mine = [row.entry for row in rows if row.entry.subject == subject]
    return sorted(mine, key=lambda entry: (entry.at, entry.id))


async def test_a_signal_of_another_client(stage: Stage) -> None:
    """As from the Temporal UI: what it calls itself is recorded beside what the signal says."""
    request = stage.request(silent=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    console = await Client.connect(
        stage.client.service_client.config.target_host,
        namespace=stage.client.namespace,
        identity="anna@example.com",
    )
    handle = console.get_workflow_handle(request.call_id)
    await handle.signal(names.WRITE_OFF, {"by": "ben", "reason": "gave up", "cycle": 7})
    await handle.signal(names.CANCEL, {"by": "ben", "reason": "left"})
    with pytest.raises(CallCancelledError):
        await call.outcome(PATIENCE, settled=True)
    written, cancelled = await entries_about(stage, request.call_id)
    assert written.details == {"cycle": "7"}
    assert (cancelled.action, cancelled.by, cancelled.reason) == ("cancel", "ben", "left")
    assert (cancelled.client, cancelled.principal) == ("anna@example.com", "")
    assert cancelled.origin is AuditOrigin.SIGNAL
    await replay(await stage.handle(request).fetch_history())


async def test_updates_and_starts(stage: Stage) -> None:
    """Flags are updates; a purge is a workflow of its own. Each is recorded once."""
    control = stage.calls.control("sandbox")
    reason = "a test of the audit log"
    for state in ("off", "default"):
        fields = {"state": state, "environment": "audit", "by": "ann", "reason": reason}
        await control.set_flag(SetFlag.model_validate(fields))
    await (await start_purge(stage.client, PurgeRequest(by="ann"))).result()
    subject = names.control_id("sandbox")
    mine = [entry for entry in await entries_about(stage, subject) if entry.reason == reason]
    assert [entry.details["state"] for entry in mine] == ["off", "default"]
    assert {entry.origin for entry in mine} == {AuditOrigin.UPDATE}
    assert {entry.client for entry in mine} == {stage.client.identity}
    (purge,) = await entries_about(stage, names.PURGE_ID)
    assert (purge.origin, purge.by) == (AuditOrigin.WORKFLOW, "ann")
    assert purge.client == stage.client.identity
