"""Flags, admission, and the snapshots they are evaluated from."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import (
    ControlSnapshot,
    FlagOverride,
    FlagState,
    FlagValue,
    IntegrationFlags,
)
from ackbridge.control.admission import Admission, FlagTarget, allows, flagd
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import ConfigurationError, EngineUnavailableError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = st.text(min_size=1, max_size=40)
SHARES = st.floats(0, 100)


def request(key: str = "k-1", audience: str | None = None) -> CallRequest:
    """A call of one of acme's operations."""
    return CallRequest(provider="acme", operation="order", key=key, audience=audience)


def target(key: str = "k-1", audience: str | None = None, operation: str = "order") -> FlagTarget:
    """The target of a flag's evaluation."""
    return FlagTarget("acme", operation, key, audience, "prod")


def share(percentage: float) -> FlagValue:
    """On for a percentage of all keys."""
    return FlagValue(state=FlagState.PERCENTAGE, percentage=percentage)


def override(state: FlagState, percentage: float | None = None) -> FlagOverride:
    """A flag set by an operator."""
    return FlagOverride(state=state, percentage=percentage, by="ann", reason="a trial", at=NOW)


def snapshot(
    breaker: BreakerState = BreakerState.CLOSED, **flags: dict[str, FlagOverride]
) -> ControlSnapshot:
    """The snapshot of acme's control, with flags by environment."""
    setting = BreakerStatus(state=breaker, since=NOW, reason="8 of 10 calls failed")
    return ControlSnapshot(provider="acme", version=7, at=NOW, flags=flags, breaker=setting)


def admission(known: ControlSnapshot | None = None, environment: str = "prod") -> Admission:
    """A worker's admission, with this snapshot."""

    async def fetch(_provider: str) -> ControlSnapshot | None:
        return known

    return Admission(Snapshots(fetch), environment)


@given(KEYS, SHARES, SHARES)
def test_raising_a_percentage_never_turns_a_key_off(key: str, one: float, other: float) -> None:
    """Every key that a smaller percentage allows, a larger one allows too."""
    smaller, larger = sorted((one, other))
    assert allows(share(larger), target(key)) or not allows(share(smaller), target(key))


@given(KEYS)
def test_0_and_100_percent(key: str) -> None:
    """They are off and on, for every key."""
    assert not allows(share(0), target(key))
    assert allows(share(100), target(key))


@given(KEYS, SHARES)
def test_a_percentage_depends_on_the_key_alone(key: str, percentage: float) -> None:
    """Not on the operation or the audience."""
    answers = {
        allows(share(percentage), target(key, audience, operation))
        for audience in (None, "internal")
        for operation in ("order", "refund")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("percentage", [1, 10, 25, 50, 90])
def test_a_percentage_allows_that_share_of_keys(percentage: float) -> None:
    """Of 20,000 keys, within four standard deviations."""
    total = 20_000
    through = sum(allows(share(percentage), target(f"order-{n}")) for n in range(total))
    expected = total * percentage / 100
    deviation = (expected * (1 - percentage / 100)) ** 0.5
    assert abs(through - expected) < 4 * deviation


def test_providers_differ_in_which_keys_come_first() -> None:
    """The order of keys at one provider does not depend on that at another."""
    first = {
        provider: {
            n
            for n in range(1000)
            if allows(share(10), FlagTarget(provider, "order", f"k-{n}", None, "prod"))
        }
        for provider in ("acme", "bell")
    }
    assert len(first["acme"] & first["bell"]) < 50


@pytest.mark.parametrize(
    ("value", "audience", "expected"),
    [
        (FlagValue(state=FlagState.ON), None, True),
        (FlagValue(state=FlagState.OFF), "internal", False),
        (FlagValue(state=FlagState.INTERNAL), "internal", True),
        (FlagValue(state=FlagState.INTERNAL), "customers", False),
        (FlagValue(state=FlagState.INTERNAL), None, False),
    ],
)
def test_states(value: FlagValue, audience: str | None, expected: bool) -> None:
    """On allows all calls, off none, internal the audience of that name."""
    assert expected is allows(value, target(audience=audience))


@pytest.mark.parametrize("wrong", [{"state": "percentage"}, {"state": "on", "percentage": 5}])
def test_a_percentage_belongs_to_its_state(wrong: dict[str, object]) -> None:
    """A percentage without its state, or the state without it, is refused, naming the field."""
    with pytest.raises(ValueError, match="percentage"):
        FlagValue.model_validate(wrong)


async def test_without_an_override_the_file_decides() -> None:
    """The integration file's flag applies where no operator has set one."""
    configured = IntegrationFlags(flags={"prod": {"": FlagValue(state=FlagState.OFF)}})
    state = await admission().evaluate(request(), configured)
    assert state.not_now == "acme is switched off in prod (integration file)"
    assert state.parked_reason == "switched_off"
    assert state.version is None


async def test_an_override_replaces_the_file() -> None:
    """An operator's flag applies instead, and the result names the operator."""
    configured = IntegrationFlags(flags={"prod": {"": FlagValue(state=FlagState.OFF)}})
    state = await admission(snapshot(prod={"": override(FlagState.ON)})).evaluate(
        request(), configured
    )
    assert state.not_now is None
    assert str(state) == "acme on (ann: a trial); breaker closed, control version 7"


async def test_both_flags_must_allow_a_call() -> None:
    """A provider that is off is off for an operation that is on, and the other way round."""
    for provider, operation in ((FlagState.OFF, FlagState.ON), (FlagState.ON, FlagState.OFF)):
        known = snapshot(prod={"": override(provider), "order": override(operation)})
        state = await admission(known).evaluate(request(), IntegrationFlags())
        key = "acme" if provider is FlagState.OFF else "acme.order"
        assert state.not_now == f"{key} is switched off in prod (ann: a trial)"


async def test_another_environment_is_another_flag() -> None:
    """What is off in one environment is on in another of the same namespace."""
    known = snapshot(prod={"": override(FlagState.OFF)})
    in_dev = await admission(known, "dev").evaluate(request(), IntegrationFlags())
    assert in_dev.not_now is None


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (override(FlagState.INTERNAL), "acme is switched on for internal users only in prod"),
        (override(FlagState.PERCENTAGE, 0), "acme is switched on for 0 % of keys in prod"),
    ],
)
async def test_the_reason_of_a_refusal(flag: FlagOverride, expected: str) -> None:
    """It says the flag's value, its environment, who set it and why."""
    state = await admission(snapshot(prod={"": flag})).evaluate(request(), IntegrationFlags())
    assert state.not_now == f"{expected} (ann: a trial)"


@pytest.mark.parametrize(
    ("breaker", "is_refused"),
    [(BreakerState.OPEN, True), (BreakerState.HALF_OPEN, True), (BreakerState.CLOSED, False)],
)
async def test_an_open_breaker_refuses_calls(breaker: BreakerState, is_refused: bool) -> None:
    """So does a half-open one, as long as health requests probe the provider."""
    state = await admission(snapshot(breaker)).evaluate(request(), IntegrationFlags())
    assert is_refused is (state.parked_reason == "breaker_open")


async def test_fetches_do_not_grow_with_calls() -> None:
    """A thousand concurrent calls cause one fetch."""
    looks = 0

    async def fetch(_provider: str) -> ControlSnapshot:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return snapshot()

    # However busy the machine is.
    known = Snapshots(fetch, max_wait=timedelta(minutes=1))
    found = await asyncio.gather(*(known.snapshot("acme") for _ in range(1000)))
    assert found == [snapshot()] * 1000
    assert looks == 1


async def test_unavailable_control_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Workers use the last snapshot, and log once that it fails and once that it answers again."""
    answers: list[ControlSnapshot | Exception] = [
        snapshot(prod={"": override(FlagState.OFF)}),
        *[EngineUnavailableError("nobody answers")] * 3,
        snapshot(),
    ]
    now = 0.0

    async def fetch(_provider: str) -> ControlSnapshot:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    known = Snapshots(fetch, every=timedelta(seconds=1), clock=lambda: now)
    seen = []
    with caplog.at_level(logging.WARNING, "ackbridge.control"):
        for now in (0.0, 10.0, 20.0, 30.0, 40.0):  # noqa: B007 -- the clock reads it
            seen.append(await known.snapshot("acme"))
            await asyncio.sleep(0.01)
    off = snapshot(prod={"": override(FlagState.OFF)})
    assert seen == [off, off, off, off, snapshot()]
    assert known.latest("acme") == snapshot()
    assert [record.getMessage() for record in caplog.records] == [
        "control of acme: nobody answers; using its last snapshot, version 7",
        "control of acme answers again",
    ]


async def test_a_fetch_that_hangs_delays_calls_briefly() -> None:
    """A call waits for it a little, and goes on without it."""
    known = Snapshots(lambda _provider: asyncio.Event().wait(), max_wait=timedelta(0))  # type: ignore[arg-type,return-value]  # it never answers anything
    assert await known.snapshot("acme") is None
    await known.close()


FLAGD = {
    "flags": {
        "acme": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "on",
            "targeting": {"if": [{"==": [{"var": "audience"}, "internal"]}, "on", "off"]},
        }
    }
}


async def test_flagd_replaces_provider_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own rules decide, with the same context; the file decides about other flags."""
    rules = tmp_path / "flags.json"
    rules.write_text(json.dumps(FLAGD))
    monkeypatch.setenv("FLAGD_RESOLVER", "file")
    monkeypatch.setenv("FLAGD_OFFLINE_FLAG_SOURCE_PATH", str(rules))
    asked = Admission(Snapshots(), "prod", flagd())
    configured = IntegrationFlags(flags={"prod": {"order": share(100)}})
    inside = await asked.evaluate(request(audience="internal"), configured)
    outside = await asked.evaluate(request(), configured)
    assert inside.not_now is None
    assert re.fullmatch(r"acme is switched off .* in prod \(FlagdProvider\)", outside.not_now or "")
    assert [flag.source for flag in inside.flags] == ["FlagdProvider", "integration file"]


def test_flagd_without_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are checked when a worker starts."""
    monkeypatch.setenv("FLAGD_RESOLVER", "file")
    with pytest.raises(ConfigurationError, match="FLAGD_"):
        flagd()
