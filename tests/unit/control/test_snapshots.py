"""Snapshots while the engine or the ledger does not answer, and what operations say about that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from ackbridge.contracts.breaker import BreakerStatus
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import (
    ControlSnapshot,
    FlagOverride,
    FlagState,
    IntegrationFlags,
    WithoutControl,
)
from ackbridge.control import snapshots as module
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import EngineUnavailableError, LedgerUnavailableError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = CallRequest(provider="acme", operation="order", key="k-1")

Source = Callable[[str], Awaitable[ControlSnapshot | None]]


def version(number: int, state: FlagState = FlagState.ON) -> ControlSnapshot:
    """A snapshot that is `number` changes old, in which the provider's flag has this state."""
    flag = FlagOverride(state=state, by="ann", reason="a trial", at=NOW)
    return ControlSnapshot(
        provider="acme",
        version=number,
        at=NOW + timedelta(seconds=number),
        flags={"prod": {"": flag}},
        breaker=BreakerStatus.initial(NOW),
    )


def answering(snapshot: ControlSnapshot | None) -> Source:
    """A source that answers at once."""

    async def fetch(_provider: str) -> ControlSnapshot | None:
        return snapshot

    return fetch


def hanging() -> Source:
    """A source that never answers."""

    async def fetch(_provider: str) -> None:
        await asyncio.Event().wait()

    return fetch


def failing(error: Exception) -> Source:
    """A source that fails at once."""

    async def fetch(_provider: str) -> None:
        raise error

    return fetch


@pytest.fixture(autouse=True)
def short_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is given up quickly."""
    monkeypatch.setattr(module, "HEAD_START", timedelta(milliseconds=10))


async def not_now(known: Snapshots, without_control: WithoutControl) -> str | None:
    """Why a call may not be sent."""
    admission = Admission(known, "prod")
    return (await admission.evaluate(REQUEST, IntegrationFlags(), without_control)).not_now


@pytest.mark.parametrize("engine", [hanging(), failing(EngineUnavailableError("it is down"))])
async def test_the_ledger_answers_for_the_engine(engine: Source) -> None:
    """A worker that has just started, and whose engine does not answer, knows the flag."""
    known = Snapshots(engine, answering(version(5, FlagState.OFF)))
    for without_control in WithoutControl:
        assert "switched off" in (await not_now(known, without_control) or "")
    assert known.is_known("acme")
    await known.close()


@pytest.mark.parametrize("ledger", [answering(None), failing(LedgerUnavailableError("it is down"))])
async def test_the_operation_decides_where_nobody_knows(
    ledger: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """`send` uses the integration file, `park` sends nothing; an empty ledger says nothing."""
    known = Snapshots(failing(EngineUnavailableError("it is down")), ledger)
    with caplog.at_level(logging.WARNING, "ackbridge.control"):
        assert await not_now(known, WithoutControl.SEND) is None
        assert "cannot be read" in (await not_now(known, WithoutControl.PARK) or "")
    (record,) = caplog.records
    assert record.getMessage() == "control of acme: it is down; using the integration file"


async def test_what_was_known_once_does_not_count_for_ever() -> None:
    """After two seconds without an answer, `park` sends nothing; `send` uses what was known."""
    now, answers = 0.0, [version(1), None]

    async def fetch(_provider: str) -> ControlSnapshot | None:
        answer = answers.pop(0)
        if answer is None:
            raise EngineUnavailableError("it is down")
        return answer

    known = Snapshots(fetch, answering(None), clock=lambda: now)
    assert await not_now(known, WithoutControl.PARK) is None
    now = 1.7
    assert known.is_known("acme")
    now = 2.0
    assert "cannot be read" in (await not_now(known, WithoutControl.PARK) or "")
    assert known.latest("acme") == version(1)


async def test_change_is_known_two_seconds_later_while_the_engine_is_slow() -> None:
    """However slow it is; and an answer that is older than what is known changes nothing."""
    control = version(1)
    now = 0.0

    async def slow(_provider: str) -> ControlSnapshot:
        seen = control
        await asyncio.sleep(0.2)
        return seen

    async def ledger(_provider: str) -> ControlSnapshot:
        return control

    known = Snapshots(slow, ledger, clock=lambda: now)
    assert await not_now(known, WithoutControl.PARK) is None
    control = version(2, FlagState.OFF)
    now = 2.0
    assert "switched off" in (await not_now(known, WithoutControl.PARK) or "")
    await asyncio.sleep(0.3)
    assert known.latest("acme") == control
    await known.close()


async def test_prefetch_waits_until_it_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """It tries again until there is an answer, and gives up in the end."""
    failures = [EngineUnavailableError("it is down")] * 2

    async def fetch(provider: str) -> ControlSnapshot | None:
        if provider == "lost" or failures:
            raise EngineUnavailableError("it is down") if provider == "lost" else failures.pop()
        return version(3)

    known = Snapshots(fetch, every=timedelta(milliseconds=10))
    await known.prefetch(["acme"])
    assert known.latest("acme") == version(3)
    with caplog.at_level(logging.WARNING, "ackbridge.control"):
        await known.prefetch(["acme", "lost"], within=timedelta(milliseconds=100))
    assert "control of lost: not known before the first call" in caplog.text
