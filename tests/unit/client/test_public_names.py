"""The public Python surface: what services may import. Only add to it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from ackbridge import client, contracts
from ackbridge.client import AckbridgeClient
from ackbridge.errors import EngineUnavailableError

CONTRACTS = """
    AwaitOutcome BatchProgress BatchRequest CallOutcome CallRequest CallStatus Cancel ForceAck
    Notice OutcomeStatus ParkedSelection Reprocess Stage
"""
CLIENT = """
    AckbridgeClient AckbridgeError AwaitOutcome BatchHandle BatchProgress BatchRequest
    BulkOutcome Call
    CallCancelledError CallEndedError CallError CallFailedError CallNotFoundError CallOutcome
    CallRequest CallStatus Cancel ControlHandle Effect EngineUnavailableError
    ForceAck ForceBreaker
    InvalidInputError InvalidRequestError KeyReusedError ListedCall Notice OutcomeCode
    OutcomeStatus ParkedSelection RPC_TIMEOUT Reprocess Resolve SetFlag SetLimit Stage
    UnavailableError Waiting WaitingFor WriteOff connect
    names parse_argument
    search_attributes
"""
METHODS = {
    client.AckbridgeClient: """
        batch(batch_id) batches(provider,limit) call(call_id) connect(environ) control(provider)
        call_many(requests,in_flight) list(provider,stage,owed,limit) reprocess_parked(request,name)
        settle(call_id,as_,by,reason,response) start(request) start_and_wait(request,timeout)
        start_unserved(request)
    """,
    client.Call: """
        cancel(by,reason) force_ack(by,reason,response) id outcome(timeout,settled)
        reprocess(by,reason) request() resolve(as_,by,reason,response) status()
        write_off(cycle,by,reason)
    """,
    client.BatchHandle: "id pause(by,reason) progress() result() resume(by,reason) stop(by,reason)",
    client.ControlHandle: """
        ensure(configured,stored) force_breaker(command) set_flag(command) set_limit(command)
        snapshot() status()
    """,
}


def test_exported_names_are_frozen() -> None:
    """Removing a name breaks services; adding one is a decision."""
    assert set(CONTRACTS.split()) == set(contracts.__all__)
    assert set(CLIENT.split()) == {name for name in vars(client) if _is_exported(name)}
    assert all(hasattr(contracts, name) for name in contracts.__all__)


def _is_exported(name: str) -> bool:
    is_own_module = f"ackbridge.client.{name}" in sys.modules
    return not name.startswith("_") and not is_own_module


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_methods_are_frozen(cls: type) -> None:
    """So are the methods of the client and their parameters."""
    assert set(METHODS[cls].split()) == set(_public_members(cls))


def _public_members(cls: type) -> list[str]:
    found = []
    for name in vars(cls):
        if name.startswith("_"):
            continue
        member = getattr(cls, name)
        if callable(member):
            parameters = [one for one in inspect.signature(member).parameters if one != "self"]
            name = f"{name}({','.join(parameters)})"
        found.append(name)
    return found


def test_importing_the_client_stays_cheap() -> None:
    """A service does not pay for the worker's libraries."""
    program = "import sys, ackbridge.client; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {"ackbridge.catalog", "ackbridge.ledger", "aiohttp", "jmespath", "opentelemetry.sdk"}
    assert set() == heavy & set(output)


async def test_connect_can_be_awaited_or_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read `TEMPORAL_*`: from what is given, or from the process environment."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(EngineUnavailableError, match=r"127\.0\.0\.1:1"):
        async with AckbridgeClient.connect():
            pass
    with pytest.raises(EngineUnavailableError, match=r"127\.0\.0\.1:2"):
        await AckbridgeClient.connect({"TEMPORAL_ADDRESS": "127.0.0.1:2"})
