"""A complete deployment in the test process: worker, gateway, provider and ledger."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from temporalio.client import Client, WorkflowHandle
from temporalio.runtime import Runtime
from temporalio.testing import TimeSkipper

import worker
from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.control import ControlHandle
from ackbridge.client.control_startup import start_controls, watch_controls
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerPolicy
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.gateway.app import create_app
from ackbridge.http.client import build_client
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.processes import ManagedProcess
from ackbridge.local.stack import empty_temporal_config, inherited_environment
from ackbridge.objects.s3 import open_bucket
from ackbridge.sandbox.provider import create_provider
from ackbridge.security.encryption import load_encryption
from ackbridge.security.secrets import Secrets
from ackbridge.settings import WORKER_READY, Settings
from ackbridge.stats.reporter import report_stats
from ackbridge.telemetry.http_spans import transport_wrapper
from ackbridge.temporal.connect import client_options
from ackbridge.temporal.data_converter import load_data_converter
from ackbridge.temporal.external_storage import bucket_of
from ackbridge.workarounds.http_clients import CookielessClient
from ackbridge.workarounds.temporal_sdk import BoundedShutdown
from activities import Dependencies

from .engine import Namespace, new_namespace
from .processes import ForkedProcess
from .serving import serve

CHECKOUT = Path(__file__).resolve().parents[2]
INTEGRATIONS = CHECKOUT / "integrations"
SECRETS = {
    "SANDBOX_API_KEY": "sandbox-key-1",
    "SANDBOX_WEBHOOK_SECRET": "sandbox-webhook-1",
    "STRIPE_API_KEY": "sk_test_1234567890",
    "STRIPE_WEBHOOK_SECRET": "whsec_1234567890",
    "STRIPE_BASE_URL": "http://127.0.0.1:9",
}


@dataclass
class Stage:
    """A running deployment, and clients of every part of it.

    Attributes:
        folder: of its files.
        namespace: of this stage alone, in an engine that stages share.
        client: of that namespace; the workflows it starts have a clock of their own.
        calls: the typed client over it.
        skipper: moves the clock of a single workflow.
        ledger: the ledger that worker and gateway share.
        provider_url, gateway_url: where they listen.
        http: a client for provider and gateway.
        deps: what the activities are given.
    """

    folder: Path
    namespace: Namespace
    client: Client
    calls: AckbridgeClient
    skipper: TimeSkipper
    ledger: Ledger
    provider_url: str
    gateway_url: str
    http: CookielessClient
    environ: Mapping[str, str]
    settings: Settings
    deps: Dependencies

    def request(self, operation: str = "create_order", **behaviour: Any) -> CallRequest:
        """A request with a key of its own."""
        payload: dict[str, Any] = {"amount": 5, "currency": "EUR"}
        if operation == "create_shipment":
            payload = {"destination": "Bergen"}
        if behaviour:
            payload["behaviour"] = behaviour
        key = uuid.uuid4().hex
        return CallRequest(provider="sandbox", operation=operation, key=key, payload=payload)

    def handle(self, request: CallRequest) -> WorkflowHandle[Any, Any]:
        """The workflow of a call."""
        return self.client.get_workflow_handle(request.call_id)

    async def start_host(self, requests: Sequence[CallRequest]) -> WorkflowHandle[Any, Any]:
        """Start a host of these calls as another SDK would, without search attributes."""
        plain = [request.model_dump(mode="json", exclude_defaults=True) for request in requests]
        return await self.client.start_workflow(
            names.BULK_CALLS,
            {"requests": plain},
            id=names.bulk_id(uuid.uuid4().hex),
            task_queue=names.TASK_QUEUE,
        )

    async def seen(self, call_id: str, kind: str) -> list[dict[str, Any]]:
        """The provider's events of one kind for a call."""
        reply = await self.http.get(f"{self.provider_url}/_events?call_id={call_id}")
        return [event for event in reply.json() if event["kind"] == kind]

    async def effects(self, call_id: str) -> int:
        """How often the provider did the work of a call."""
        reply = await self.http.get(f"{self.provider_url}/_events?call_id={call_id}")
        return len({event["work"] for event in reply.json() if "work" in event})

    async def acknowledged(self, call_id: str) -> list[str]:
        """The acknowledgements that the provider accepted for a call, one per idempotency key.

        A step whose workflow task was lost is repeated under the same key.
        """
        told = await self.seen(call_id, "acknowledgement")
        taken = {e["idempotency_key"]: e["acknowledged"] for e in told if e["status"] == 200}
        return list(taken.values())

    async def until(self, request: CallRequest, stage: str) -> None:
        """Wait until a call has reached a stage."""
        while (await self.calls.call(request.call_id).status()).stage != stage:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.05)


async def set_provider_state(stage: Stage, state: str) -> None:
    """Change how the whole provider behaves: `well`, `broken` and so on."""
    reply = await stage.http.put(f"{stage.provider_url}/_mood", json={"state": state})
    assert reply.status_code == 200


async def reached(
    control: ControlHandle, holds: Callable[[ControlSnapshot], object]
) -> ControlSnapshot:
    """Wait until the control's snapshot fulfils a condition; returns it."""
    async with asyncio.timeout(60):
        while True:
            seen = await control.snapshot()
            if seen is not None and holds(seen):
                return seen
            await asyncio.sleep(0.1)


def worker_process(stage: Stage, integrations: Path, log: Path) -> ForkedProcess:
    """A worker in a process of its own, which can be killed; it is not started yet."""
    return ForkedProcess(
        worker.main,
        [],
        environ=worker_environment(stage, integrations),
        log=log,
        folder=stage.folder,
    )


async def until_ready(process: ManagedProcess) -> None:
    """Wait until a worker that was just started says that it is ready."""
    async with asyncio.timeout(60):
        while WORKER_READY not in process.output():  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(0.05)


def worker_environment(stage: Stage, integrations: Path) -> dict[str, str]:
    """The environment of a worker process of this stage, without the developer's settings."""
    empty_temporal_config(stage.folder).write_text("")
    return {
        **inherited_environment(os.environ),
        **stage.environ,
        **stage.namespace.environment,
        "ACKBRIDGE_LEDGER_URL": stage.settings.ledger_url,
        "ACKBRIDGE_PUBLIC_URL": stage.gateway_url,
        "ACKBRIDGE_INTEGRATIONS": str(integrations),
        "PYTHONPATH": str(CHECKOUT),
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(stage.folder)),
    }


NEVER_OPENS = {"error_rate": 1, "min_volume": 1_000_000, "consecutive": 1_000_000}
"""Settings of a breaker that never opens: failures of one test must not park calls of the next."""


def without_breaker(catalog: Catalog) -> Catalog:
    """The same integrations; breakers with default settings never open."""
    policy = BreakerPolicy.model_validate(NEVER_OPENS)
    integrations = {
        name: one.model_copy(update={"breaker": policy}) if one.breaker == BreakerPolicy() else one
        for name, one in catalog.integrations.items()
    }
    return dataclasses.replace(catalog, integrations=integrations)


def only_sandbox(catalog: Catalog) -> Catalog:
    """Without the other shipped providers: each would have workers for three queues."""
    integrations = {"sandbox": catalog.integrations["sandbox"]}
    return dataclasses.replace(catalog, integrations=integrations)


def edited_integrations(
    folder: Path,
    edit: Callable[[dict[str, Any]], None],
    breaker: Mapping[str, Any] = NEVER_OPENS,
) -> Path:
    """A folder with the sandbox's integration alone, its operations edited."""
    integrations = folder / "integrations"
    integrations.mkdir()
    file = yaml.safe_load((INTEGRATIONS / "sandbox.yaml").read_text())
    file["breaker"] = dict(breaker)
    edit(file["operations"])
    (integrations / "sandbox.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    return integrations


@asynccontextmanager
async def set_up(
    engine: EmbeddedEngine,
    folder: Path,
    integrations: Path = INTEGRATIONS,
    *,
    environ: Mapping[str, str] | None = None,
    has_worker: bool = True,
    runtime: Runtime | None = None,
    ledger_url: str | None = None,
) -> AsyncIterator[Stage]:
    """Start all parts in this process, in a new namespace of the engine.

    Args:
        environ: what the integrations need besides `SECRETS`, and keys to encrypt with.
        has_worker: whether to run a worker, too.
        runtime: of the worker's client; None for the default one.
        ledger_url: of an empty database; None for SQLite in the folder.
    """
    url = ledger_url or f"sqlite:///{folder}/ledger.db"
    await asyncio.to_thread(migrate, url)
    namespace = await new_namespace(engine)
    with contextlib.ExitStack() as servers:
        provider_url = servers.enter_context(
            serve(create_provider(SECRETS["SANDBOX_API_KEY"], SECRETS["SANDBOX_WEBHOOK_SECRET"]))
        )
        environ = {**SECRETS, "SANDBOX_BASE_URL": provider_url, **(environ or {})}
        catalog = without_breaker(load_catalog(integrations, environ))
        if integrations == INTEGRATIONS:
            catalog = only_sandbox(catalog)
        options = client_options(load_data_converter(environ))
        client = await Client.connect(
            namespace.address, namespace=namespace.name, **options, runtime=runtime
        )
        encryption = load_encryption(environ)
        gateway_ledger = Ledger.open(
            url, utc_now, encryption=encryption, objects=open_bucket(environ)
        )
        gateway_url = servers.enter_context(
            serve(
                create_app(
                    catalog,
                    Secrets(environ, folder),
                    gateway_ledger,
                    await Client.connect(
                        namespace.address, namespace=namespace.name, lazy=True, **options
                    ),
                    utc_now,
                )
            )
        )
        settings = Settings(_env_file=None, ledger_url=url, public_url=gateway_url)
        ledger = Ledger.open(url, utc_now, encryption=encryption, objects=open_bucket(environ))
        async with build_client() as http, build_client(around=transport_wrapper()) as ours:
            control = watch_controls(client, catalog, ledger)
            deps = worker.build_dependencies(
                settings, environ, catalog, ledger, ours, control, has_search_attributes=True
            )
            skipper = TimeSkipper(client)
            async with contextlib.AsyncExitStack() as running:
                workers = worker.build_workers(client, catalog, deps) if has_worker else []
                await running.enter_async_context(
                    report_stats(deps.counters, ledger.stats, utc_now)
                )
                if workers:
                    await start_controls(client, catalog, ledger)
                    await control.prefetch(catalog.integrations)
                for one in workers:
                    await running.enter_async_context(BoundedShutdown(one))
                yield Stage(
                    folder=folder,
                    namespace=namespace,
                    client=client,
                    calls=AckbridgeClient(client),
                    skipper=skipper,
                    ledger=ledger,
                    provider_url=provider_url,
                    gateway_url=gateway_url,
                    http=http,
                    environ=environ,
                    settings=settings,
                    deps=deps,
                )
            await control.close()
        await ledger.close()
        # The gateway reports its statistics once more when it ends.
        servers.close()
        await gateway_ledger.close()
        if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
            await bucket.aclose()
