"""The worker: one Temporal worker for each task queue, with everything the activities need.

Connects as the `TEMPORAL_*` settings say. `--provider NAME` serves only that provider's queues.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial

import uvloop
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import (
    Interceptor,
    Replayer,
    Worker,
    WorkerDeploymentConfig,
    WorkflowRunner,
)

from ackbridge.catalog.catalog import (
    Catalog,
    build_redactors,
    connection_pool,
    require_keys,
    secret_refs,
)
from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import Integration
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.client.control_startup import start_controls, watch_controls
from ackbridge.client.purge import check_object_retention, check_retention, sync_purge_schedule
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.edge import Network
from ackbridge.control.admission import Admission, RideLimiter, flagd
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import AckbridgeError, EngineUnavailableError, SecretError, UnavailableError
from ackbridge.http.client import Pool, build_client
from ackbridge.http.egress import Egress
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.objects.s3 import open_bucket
from ackbridge.security.encryption import load_encryption
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets, is_secret_ref
from ackbridge.settings import (
    WORKER_READY,
    Settings,
    environment,
    integrations_folder,
    load_settings,
)
from ackbridge.stats.reporter import report_stats
from ackbridge.telemetry.http_spans import transport_wrapper
from ackbridge.telemetry.logs import log_to_stderr
from ackbridge.telemetry.metrics.export import export_telemetry
from ackbridge.temporal.connect import (
    client_options,
    connect,
    register_search_attributes,
    require_namespace,
)
from ackbridge.temporal.external_storage import bucket_of
from ackbridge.temporal.schedules import sync_schedules
from ackbridge.temporal.versions import deployment_config, describe
from ackbridge.terminal.collector import collect_less
from ackbridge.terminal.shutdown import shutdown_signal
from ackbridge.workarounds.http_clients import CookielessClient
from ackbridge.workarounds.split_tasks import SplitTaskRepair
from ackbridge.workarounds.temporal_sdk import (
    BoundedShutdown,
    exit_process,
    hold_results_during_queries,
    workflow_runner,
)
from activities import (
    Dependencies,
    control_activities,
    main_activities,
    notices_activities,
    send_activities,
    settle_activities,
)
from activities.deliver import notices_pool
from workflows import WORKFLOWS

log = logging.getLogger("ackbridge.worker")


RECONNECT_EVERY = timedelta(seconds=5)
"""How often a worker that was started while the engine is down tries to connect."""

SLOTS = 400
MIN_SLOTS = 20
MAX_SLOTS = 100
"""How many activities of the providers' send queues, and of their settle queues, run at once in one
worker. Each provider has an equal share within the last two bounds; `limits.concurrent` of a
provider overrides it for its sends."""

QUICK_STEPS = 100
"""Local activities and workflow tasks besides those that wait for a provider's answer."""

TOKEN_CONNECTIONS = 1
"""Of a provider: at most one token is requested at a time."""

HEARTBEAT_THROTTLE = timedelta(seconds=2)
"""A poll or a batch's page learns of its cancellation by heartbeats: at least this often."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; exit code 0 then, 2 on a configuration error."""
    parser = argparse.ArgumentParser(prog="worker.py", description=__doc__)
    parser.add_argument("--provider", help="serve only this provider's queues")
    options = parser.parse_args(arguments)
    try:
        uvloop.run(serve(load_settings(), options.provider))
    except AckbridgeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


async def serve(settings: Settings, provider: str | None) -> None:
    """Serve the queues of one provider, or all, until a signal; then finish running activities."""
    log_to_stderr(settings.log_level, settings.log_format)
    environ, stopping = environment(), shutdown_signal()
    async with contextlib.AsyncExitStack() as running:
        metrics = running.enter_context(
            export_telemetry(
                "ackbridge-worker", environ, settings.metrics_host, settings.metrics_port
            )
        )
        catalog = load_catalog(integrations_folder(settings.integrations), environ)
        if provider is not None:
            catalog.integration(provider)
        _warn_of_missing_secrets(catalog, Secrets(environ, settings.secrets_root), provider)
        require_keys(catalog, load_encryption(environ))
        await asyncio.to_thread(migrate, settings.ledger_url)
        client = await _connect(environ, stopping)
        if client is None:
            return
        deps = await _open_dependencies(running, settings, environ, catalog, client, provider)
        await running.enter_async_context(report_stats(deps.counters, deps.ledger.stats, utc_now))
        await running.enter_async_context(metrics.updating(deps.counters))
        await _start(running, settings, client, deps, provider)
        collect_less()
        print(WORKER_READY, flush=True)
        await stopping.wait()
        log.info("shutting down: running activities have %s to finish", settings.shutdown_within)


async def _open_dependencies(
    running: contextlib.AsyncExitStack,
    settings: Settings,
    environ: Mapping[str, str],
    catalog: Catalog,
    client: Client,
    provider: str | None,
) -> Dependencies:
    """Open what the activities share; `running` closes it."""
    if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
        running.push_async_callback(bucket.aclose)
    has_search_attributes = await _check_namespace(client, settings, provider)
    ledger = Ledger.open(
        settings.ledger_url,
        utc_now,
        encryption=load_encryption(environ),
        objects=open_bucket(environ),
    )
    running.push_async_callback(ledger.close)
    secrets, networks = Secrets(environ, settings.secrets_root), settings.egress_allow
    http = build_client(
        pools=build_pools(catalog, _served(catalog, provider), secrets, networks),
        others=Pool(egress=Egress(networks)),
        around=transport_wrapper(),
    )
    running.push_async_callback(http.aclose)
    snapshots = watch_controls(client, catalog, ledger)
    running.push_async_callback(snapshots.close)
    return build_dependencies(
        settings,
        environ,
        catalog,
        ledger,
        http,
        snapshots,
        has_search_attributes=has_search_attributes,
    )


async def _start(
    running: contextlib.AsyncExitStack,
    settings: Settings,
    client: Client,
    deps: Dependencies,
    provider: str | None,
) -> None:
    """Start the controls, the workers, and what belongs to the main queue; `running` ends them."""
    catalog, deployment = deps.catalog, deployment_config(settings.deployment, settings.build_id)
    workers = build_workers(
        client, catalog, deps, provider, settings.shutdown_within, deployment=deployment
    )
    await start_controls(client, catalog, deps.ledger, provider)
    await deps.snapshots.prefetch(_served(catalog, provider))
    for worker in workers:
        await running.enter_async_context(BoundedShutdown(worker, settings.shutdown_within))
    if provider is None:
        await running.enter_async_context(SplitTaskRepair(client, partial(_replayer, client)))
        await sync_schedules(client, catalog)
        await sync_purge_schedule(client, settings.retention, settings.purge_every)
    if deployment is not None:
        await _log_version_status(client, deployment.version)


def _served(catalog: Catalog, provider: str | None) -> list[str]:
    return [provider] if provider else sorted(catalog.integrations)


def build_dependencies(
    settings: Settings,
    environ: Mapping[str, str],
    catalog: Catalog,
    ledger: Ledger,
    http: CookielessClient,
    snapshots: Snapshots,
    *,
    has_search_attributes: bool,
) -> Dependencies:
    """Wire up what the activities share."""
    secrets = Secrets(environ, settings.secrets_root)
    auths = {
        name: build_auth(integration.auth, secrets, utc_now, http.transport, _token_pool(name))
        for name, integration in catalog.integrations.items()
    }
    flags = flagd() if settings.flags == "flagd" else None
    return Dependencies(
        catalog=catalog,
        ledger=ledger,
        http=http,
        auths=auths,
        redactors=build_redactors(catalog, secrets, auths),
        clock=utc_now,
        public_url=settings.public_url,
        snapshots=snapshots,
        admission=Admission(snapshots, settings.environment, flags),
        has_search_attributes=has_search_attributes,
        secrets=secrets,
        rides=RideLimiter(len(catalog.integrations)),
    )


def build_workers(
    client: Client,
    catalog: Catalog,
    deps: Dependencies,
    provider: str | None = None,
    shutdown_within: timedelta = timedelta(0),
    interceptors: Sequence[Interceptor] = (),
    deployment: WorkerDeploymentConfig | None = None,
) -> list[Worker]:
    """One worker for each task queue.

    Args:
        provider: serve only this provider's queues; None for the main queue and all others.
        deployment: the workers' version; None for unversioned ones.
    """
    build = partial(
        Worker,
        client,
        interceptors=interceptors,
        graceful_shutdown_timeout=shutdown_within,
        deployment_config=deployment,
    )
    workers = []
    if provider is None:
        runner = workflow_runner(client.data_converter)
        workers.append(_main_worker(build, deps, runner, len(catalog.integrations)))
        workers += [
            _notices_worker(build, subscriber, deps)
            for _, subscriber in sorted(catalog.subscribers.items())
        ]
    for name, integration in sorted(catalog.integrations.items()):
        if provider in (None, name):
            sharing = 1 if provider else len(catalog.integrations)
            workers += _provider_workers(build, integration, deps, slots_of_provider(sharing))
    return workers


def slots_of_provider(providers: int) -> int:
    """The share of one provider in the slots of a worker, for its sends and its other requests."""
    return min(max(MIN_SLOTS, SLOTS // providers), MAX_SLOTS)


def connections_of_provider(integration: Integration, providers: int) -> int:
    """Enough for everything that may be in flight to a provider: nothing waits for a connection."""
    slots, limits = slots_of_provider(providers), integration.limits
    sends = (limits.concurrent if limits else None) or slots
    # Local activities of single calls, and those of hosted ones.
    rides = 2 * RideLimiter(providers).share
    return rides + sends + slots + 1


def build_pools(
    catalog: Catalog, served: Sequence[str], secrets: Secrets, networks: Sequence[Network]
) -> dict[str, Pool]:
    """The connections to each provider, to its token endpoint, and to each subscriber.

    Args:
        networks: that requests may go to, whatever the files say.
    """
    pools = {}
    for name in served:
        integration = catalog.integration(name)
        connections = connections_of_provider(integration, len(served))
        pools[name] = connection_pool(integration, secrets, networks, connections)
        pools[_token_pool(name)] = connection_pool(
            integration, secrets, networks, TOKEN_CONNECTIONS
        )
    for name, subscriber in catalog.subscribers.items():
        pools[notices_pool(name)] = connection_pool(subscriber, secrets, networks)
    return pools


def _token_pool(provider: str) -> str:
    # Requests that wait for a token may hold all connections of their own pool.
    return f"{provider}.token"


def _replayer(client: Client) -> Replayer:
    converter = client.data_converter
    return Replayer(
        workflows=WORKFLOWS,
        workflow_runner=workflow_runner(converter),
        **client_options(converter),
    )


def _main_worker(
    build: Callable[..., Worker], deps: Dependencies, runner: WorkflowRunner, providers: int
) -> Worker:
    steps = RideLimiter(providers).share * providers + QUICK_STEPS
    worker = build(
        task_queue=names.TASK_QUEUE,
        workflows=WORKFLOWS,
        activities=main_activities(deps),
        workflow_runner=runner,
        max_concurrent_local_activities=steps,
        max_concurrent_workflow_tasks=steps,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )
    return hold_results_during_queries(worker)


def _provider_workers(
    build: Callable[..., Worker], integration: Integration, deps: Dependencies, slots: int
) -> list[Worker]:
    """The workers of one provider.

    Args:
        slots: its share of the activities that run at once.
    """
    limits = integration.limits
    send = build(
        task_queue=names.send_queue(integration.provider),
        activities=send_activities(deps),
        max_concurrent_activities=(limits.concurrent if limits else None) or slots,
        max_task_queue_activities_per_second=limits.requests_per_second if limits else None,
    )
    settle = build(
        task_queue=names.settle_queue(integration.provider),
        activities=settle_activities(deps),
        max_concurrent_activities=slots,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )
    control = build(
        task_queue=names.control_queue(integration.provider),
        activities=control_activities(deps),
        max_concurrent_activity_task_polls=1,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )
    return [send, settle, control]


def _notices_worker(
    build: Callable[..., Worker], subscriber: Subscriber, deps: Dependencies
) -> Worker:
    """One per subscriber, so that a subscriber that hangs delays only its own notices."""
    return build(
        task_queue=names.notices_queue(subscriber.subscriber),
        activities=notices_activities(deps),
        max_concurrent_activities=subscriber.concurrent,
        max_concurrent_activity_task_polls=1,
    )


async def _check_namespace(client: Client, settings: Settings, provider: str | None) -> bool:
    """Check that it exists, and its retention; register our search attributes: whether they are."""
    await require_namespace(client)
    if provider is None:
        try:
            await check_retention(client, settings.retention)
            if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
                await check_object_retention(client, bucket, settings.retention)
        except UnavailableError as error:
            log.warning("%s", error)
    advice = await register_search_attributes(client)
    if advice is not None:
        log.warning("%s", advice)
    return advice is None


async def _log_version_status(client: Client, version: WorkerDeploymentVersion) -> None:
    """Log whether the engine gives tasks to this version, or what an operator has to run."""
    try:
        deployment = await describe(client, version.deployment_name)
    except EngineUnavailableError as error:
        log.warning("version %s: %s", version.to_canonical_string(), error)
        return
    is_current = deployment.current == version.build_id
    level = logging.INFO if is_current else logging.WARNING
    log.log(level, "%s", deployment.routing(version.build_id))


async def _connect(environ: Mapping[str, str], stopping: asyncio.Event) -> Client | None:
    """Connect to the engine, however long it is down; None once the worker has to stop."""
    while not stopping.is_set():
        try:
            return await connect(environ)
        except EngineUnavailableError as error:
            log.warning("%s; trying again every %g s", error, RECONNECT_EVERY.total_seconds())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_EVERY.total_seconds()):
                await stopping.wait()
    return None


def _warn_of_missing_secrets(catalog: Catalog, secrets: Secrets, provider: str | None) -> None:
    """Warn of references that do not resolve: calls that need them wait for another worker."""
    refs = {
        (name, ref)
        for name in _served(catalog, provider)
        for ref in _secret_refs(catalog.integration(name))
    }
    if provider is None:
        refs |= {(name, ref) for name, one in catalog.subscribers.items() for ref in one.secrets}
    for name, ref in sorted(refs):
        try:
            secrets.resolve(ref)
        except SecretError as error:
            log.warning("%s: %s", name, error)


def _secret_refs(integration: Integration) -> Iterator[str]:
    for spec in integration.auth:
        for credential in spec.credentials():
            yield from filter(is_secret_ref, credential)
    yield from secret_refs(integration)


if __name__ == "__main__":
    exit_process(main())
