"""Versions of a deployment on the real engine, and which of them gets the tasks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from importlib.metadata import version as installed_version

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from ackbridge.errors import ConfigurationError, UnavailableError
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.settings import load_settings
from ackbridge.temporal import versions
from ackbridge.temporal.connect import connect
from ackbridge.temporal.versions import deployment_config, describe, promote
from ackbridge.workarounds.temporal_sdk import BoundedShutdown

SOON = timedelta(seconds=20)
AT_ONCE = timedelta(0)


@activity.defn
async def nothing() -> None:
    """The only activity of the workers here."""


@pytest_asyncio.fixture(loop_scope="session")
async def client(engine: EmbeddedEngine) -> Client:
    """A client of the shared engine."""
    return await connect(engine.environment)


@pytest.fixture
def name() -> str:
    """A deployment for one test."""
    return f"deployment-{uuid.uuid4().hex}"


def serving(client: Client, name: str, build_id: str, queue: str) -> BoundedShutdown:
    """A worker of one version that serves one queue."""
    return BoundedShutdown(
        Worker(
            client,
            task_queue=f"{name}.{queue}",
            activities=[nothing],
            deployment_config=deployment_config(name, build_id),
        )
    )


async def test_unknown_deployment(client: Client, name: str) -> None:
    """Before the first worker there are no versions, and unversioned workers get the tasks."""
    found = await describe(client, name)
    assert (found.current, found.versions) == (None, ())
    assert found.routing("v1") == (
        f"version v1 of deployment {name} is not the current one, unversioned workers are; it gets"
        " no tasks until you run: ackbridge deployment promote v1"
    )


async def test_promotion_waits_for_workers(client: Client, name: str) -> None:
    """A version whose workers are still starting is promoted once they poll."""
    promoting = asyncio.create_task(promote(client, name, "v1", within=SOON))
    await asyncio.sleep(0)
    async with serving(client, name, "v1", "a"):
        found = await promoting
    assert found.current == "v1"
    assert found.queues("v1") == {f"{name}.a"}
    assert found.routing("v1") == f"version v1 of deployment {name} is the current one"


async def test_version_without_workers_is_not_promoted(client: Client, name: str) -> None:
    """A build id that no worker has, such as a mistyped one, gets no tasks."""
    with pytest.raises(UnavailableError, match="no worker of version v9"):
        await promote(client, name, "v9", within=AT_ONCE)


async def test_queues_without_the_version_are_named(client: Client, name: str) -> None:
    """A queue of the current version that lacks the new one stops the promotion, unless dropped.

    The engine's own check ignores idle queues, and a provider may be called once a day.
    """
    async with serving(client, name, "v1", "a"), serving(client, name, "v1", "b"):
        while len((await describe(client, name)).queues("v1")) < 2:  # noqa: ASYNC110 -- the engine offers no event to wait for
            await asyncio.sleep(0.1)
        await promote(client, name, "v1", within=SOON)
        async with serving(client, name, "v2", "a"):
            missing = rf"queues still without version v2 after 2 s: {name}\.b\. Start its workers"
            with pytest.raises(UnavailableError, match=missing):
                await promote(client, name, "v2", within=timedelta(seconds=2))
            assert (await describe(client, name)).current == "v1"
            dropped = await promote(client, name, "v2", may_drop_queues=True, within=SOON)
            assert dropped.current == "v2"


async def test_queues_that_do_not_route_to_a_version_are_named(client: Client, name: str) -> None:
    """What a promotion that takes too long reports."""
    async with serving(client, name, "v1", "a"), serving(client, name, "v2", "a"):
        await promote(client, name, "v2", within=SOON)
        found = await promote(client, name, "v1", within=SOON)
        behind = versions._queues_behind
        assert await behind(client, found, "v1", is_ramp=False) == []
        assert await behind(client, found, "v2", is_ramp=False) == [f"{name}.a"]


async def test_ramp(client: Client, name: str) -> None:
    """A ramping version gets its share, and the current one stays what it is."""
    async with serving(client, name, "v1", "a"), serving(client, name, "v2", "a"):
        await promote(client, name, "v1", within=SOON)
        ramped = await promote(client, name, "v2", ramp=25, within=SOON)
        assert (ramped.current, ramped.ramping, ramped.ramp) == ("v1", "v2", 25)
        assert "it gets 25 % of the calls until" in ramped.routing("v2")
        assert {one.build_id: one.state for one in ramped.versions} == {
            "v1": "current",
            "v2": "ramping",
        }
        promoted = await promote(client, name, "v2", within=SOON)
        assert (promoted.current, promoted.ramping) == ("v2", None)


def test_unversioned_without_a_name() -> None:
    """Workers belong to no deployment unless one is configured."""
    assert deployment_config(None, "v1") is None


def test_build_id_is_the_packages_version() -> None:
    """The default build id is the version of the package."""
    config = deployment_config("ackbridge", None)
    assert config is not None
    assert config.version.build_id == installed_version("ackbridge")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACKBRIDGE_DEPLOYMENT", "a.b"),
        ("ACKBRIDGE_DEPLOYMENT", ""),
        ("ACKBRIDGE_BUILD_ID", "two words"),
        ("ACKBRIDGE_BUILD_ID", "__unversioned__"),
    ],
)
def test_names_that_the_engine_would_refuse(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """An invalid deployment or build id is refused at start, naming the setting."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        load_settings()


def test_command_without_a_deployment() -> None:
    """The command names the missing setting, and exits with 2."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ACKBRIDGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "ackbridge", "deployment", "status"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "ACKBRIDGE_DEPLOYMENT: not set" in done.stderr
