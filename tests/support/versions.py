"""Two versions of Ackbridge, as worker processes of one deployment."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import yaml

from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.processes import StackProcess, worker_plan
from ackbridge.local.stack import empty_temporal_config

from .stage import CHECKOUT, INTEGRATIONS, NEVER_OPENS, Stage

DEPLOYMENT = "ackbridge"
PROMOTE_WITHIN = "5m"
"""On a busy machine the queues of a version take their time."""


def parking_integrations(folder: Path) -> Path:
    """The sandbox's integration, parking: as it is, and with limits, which make it use queues.

    `create_order` has all the time in the world, `hasty_order` a second, and `brief_order` is
    not parked for long either; `polled_order` is asked for its answer.
    """
    folder.mkdir()
    shipped = yaml.safe_load((INTEGRATIONS / "sandbox.yaml").read_text())
    shipped["breaker"] = NEVER_OPENS
    order = shipped["operations"]["create_order"] | {"on_failure": "park"}
    order["receipt"] |= {"timeout": "1s", "attempts": 20}
    order["response"] |= {"cycles": 1, "deadline": {"initial": "5m"}}
    hasty = copy.deepcopy(order)
    hasty["response"]["deadline"] = {"initial": "1s"}
    # Otherwise a late response would contradict the failed acknowledgement.
    hasty["acknowledge"]["undoes"] = False
    polled = copy.deepcopy(order)
    asked = {"mode": "poll", "poll": {"every": "200ms"}, "status": order["response"]["status"]}
    polled["response"] = asked | {"deadline": {"initial": "5m"}}
    operations = {
        "create_order": order,
        "polled_order": polled,
        "hasty_order": hasty,
        "brief_order": hasty | {"parked_for": "15s"},
    }
    for provider, more in (("sandbox", {}), ("limited", {"limits": {"concurrent": 20}})):
        integration = shipped | more | {"provider": provider, "operations": operations}
        (folder / f"{provider}.yaml").write_text(yaml.safe_dump(integration))
    return folder


def environment_of(
    stage: Stage, engine: EmbeddedEngine, build_id: str, integrations: Path
) -> dict[str, str]:
    """The environment of one version's processes."""
    folder = engine.state.parent
    empty_temporal_config(folder).write_text("")
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("ACKBRIDGE_", "TEMPORAL"))
    }
    return {
        **inherited,
        **stage.environ,
        **stage.namespace.environment,
        "ACKBRIDGE_BUILD_ID": build_id,
        "ACKBRIDGE_DEPLOYMENT": DEPLOYMENT,
        "ACKBRIDGE_INTEGRATIONS": str(integrations),
        "ACKBRIDGE_LEDGER_URL": stage.settings.ledger_url,
        "ACKBRIDGE_PUBLIC_URL": stage.gateway_url,
        "ACKBRIDGE_SHUTDOWN_WITHIN": "2s",
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(folder)),
    }


class Version:
    """The worker process of one version."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self._environ = {**environ, "PYTHONPATH": str(CHECKOUT)}
        self._build_id = environ["ACKBRIDGE_BUILD_ID"]
        self._folder = folder
        script = (sys.executable, "-m", "tests.support.version_before", self._build_id)
        self._part = StackProcess(
            self._build_id,
            replace(worker_plan(), command=script),
            environ=self._environ,
            log=folder / f"{self._build_id}.log",
            folder=folder,
            start_timeout=timedelta(seconds=60),
        )

    @property
    def log(self) -> str:
        """What it has said."""
        return self._part.output()

    async def start(self) -> None:
        """Start it; it is ready then, and not yet the current version."""
        await asyncio.to_thread(self._part.start)

    async def promote(self) -> None:
        """Make it the current version, as an operator does."""
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ackbridge", "deployment", "promote", self._build_id),
            *("--wait", PROMOTE_WITHIN),
            env=self._environ,
            cwd=self._folder,
        )
        assert await done.wait() == 0

    async def stop(self) -> None:
        """SIGTERM, and the time it needs."""
        await asyncio.to_thread(self._part.stop, timedelta(seconds=30))

    async def kill(self) -> None:
        """`kill -9`."""
        await asyncio.to_thread(self._part.kill, signal.SIGKILL)
