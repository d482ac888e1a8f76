"""The worker: settings, what the activities are given, and one worker for each task queue.

Run it with no arguments against whatever `TEMPORAL_*` says, or with `--provider NAME` to serve
only that provider's queues.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

import httpx
import uvloop
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import Interceptor, Worker, WorkerDeploymentConfig

from ackbridge.catalog.catalog import Catalog, build_redactors
from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import Integration
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.client.control_startup import start_controls, watch_controls
from ackbridge.client.purge import check_retention, sync_purge_schedule
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.purge import Retention
from ackbridge.control.admission import Admission
from ackbridge.control.flags import flagd
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import AckbridgeError, EngineUnavailableError
from ackbridge.http.client import build_client
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from ackbridge.settings import Settings, environment, integrations_folder, load_settings
from ackbridge.stats.reporter import report_stats
from ackbridge.telemetry.http_spans import transport_wrapper
from ackbridge.telemetry.logs import log_to_stderr
from ackbridge.telemetry.metrics.export import Metrics, export_telemetry
from ackbridge.temporal.connect import connect, register_search_attributes
from ackbridge.temporal.schedules import sync_schedules
from ackbridge.temporal.versions import deployment_config, describe
from ackbridge.workarounds.process_exit import exit_process
from ackbridge.workarounds.sandbox_runner import workflow_runner
from ackbridge.workarounds.worker_shutdown import BoundedShutdown
from activities import (
    Dependencies,
    main_activities,
    notices_activities,
    send_activities,
    settle_activities,
)
from workflows import WORKFLOWS

log = logging.getLogger("ackbridge.worker")

READY = "worker ready"
"""The line on standard output by which a supervisor knows."""

HEARTBEAT_EVERY = timedelta(seconds=2)
"""By heartbeats polls and batches learn that nobody waits for them any more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C. Exit 0 then, 2 when the configuration does not hold."""
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
    """Build everything once, serve until told to stop, let running activities finish."""
    log_to_stderr(settings.log_level)
    environ = environment()
    where = (settings.metrics_host, settings.metrics_port)
    with export_telemetry("ackbridge-worker", environ, *where) as metrics:
        await _serve(settings, environ, provider, metrics)


async def _serve(
    settings: Settings, environ: Mapping[str, str], provider: str | None, metrics: Metrics
) -> None:
    catalog = load_catalog(integrations_folder(settings.integrations), environ)
    if provider is not None:
        catalog.integration(provider)
    await asyncio.to_thread(migrate, settings.ledger_url)
    client = await connect(environ)
    if provider is None:
        await _check_retention(client, settings.retention)
    indexing = await register_search_attributes(client)
    if indexing.advice:
        log.warning("%s", indexing.advice)
    ledger = Ledger.open(settings.ledger_url, utc_now)
    http = build_client(around=transport_wrapper())
    control = watch_controls(client, catalog)
    provisions = provide(
        settings, environ, catalog, ledger, http, control, indexed=indexing.available
    )
    deployment = deployment_config(settings.deployment, settings.build_id)
    workers = build_workers(
        client, catalog, provisions, provider, settings.shutdown_within, deployment=deployment
    )
    try:
        async with contextlib.AsyncExitStack() as running:
            await running.enter_async_context(
                report_stats(provisions.counters, ledger.stats, utc_now)
            )
            await running.enter_async_context(metrics.updating(provisions.counters))
            for worker in workers:
                await running.enter_async_context(BoundedShutdown(worker, settings.shutdown_within))
            await start_controls(client, catalog, provider)
            if provider is None:
                await sync_schedules(client, catalog)
                await sync_purge_schedule(client, settings.retention, settings.purge_every)
            if deployment is not None:
                await _tell_standing(client, deployment.version)
            print(READY, flush=True)
            await _told_to_stop()
            log.info("stopping: running activities have %s to finish", settings.shutdown_within)
    finally:
        await control.close()
        await http.aclose()
        await ledger.close()


def provide(
    settings: Settings,
    environ: Mapping[str, str],
    catalog: Catalog,
    ledger: Ledger,
    http: httpx.AsyncClient,
    control: Snapshots,
    *,
    indexed: bool,
) -> Dependencies:
    """What the activities are given."""
    secrets = Secrets(environ, settings.secrets_root)
    auths = {
        name: build_auth(integration.auth, secrets, utc_now)
        for name, integration in catalog.integrations.items()
    }
    return Dependencies(
        catalog=catalog,
        ledger=ledger,
        client=http,
        auths=auths,
        redactors=build_redactors(catalog, secrets, auths),
        clock=utc_now,
        public_url=settings.public_url,
        control=control,
        gate=Admission(
            control, settings.environment, flagd() if settings.flags == "flagd" else None
        ),
        indexed=indexed,
        secrets=secrets,
    )


def build_workers(
    client: Client,
    catalog: Catalog,
    provisions: Dependencies,
    provider: str | None = None,
    shutdown_within: timedelta = timedelta(0),
    interceptors: Sequence[Interceptor] = (),
    deployment: WorkerDeploymentConfig | None = None,
) -> list[Worker]:
    """One worker for each task queue.

    Args:
        provider: serve only this one's queues; None for the main queue and everybody's.
        interceptors: around every workflow and activity.
        deployment: which version of which deployment all of them are; None for unversioned ones.
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
        workers.append(
            build(
                task_queue=names.TASK_QUEUE,
                workflows=WORKFLOWS,
                activities=main_activities(provisions),
                workflow_runner=workflow_runner(),
                max_heartbeat_throttle_interval=HEARTBEAT_EVERY,
            )
        )
        workers += [
            _notices_worker(build, subscriber, provisions)
            for _, subscriber in sorted(catalog.subscribers.items())
        ]
    for name, integration in sorted(catalog.integrations.items()):
        if provider in (None, name):
            workers += _provider_workers(build, integration, provisions)
    return workers


def _provider_workers(
    build: Callable[..., Worker], integration: Integration, provisions: Dependencies
) -> list[Worker]:
    limits = integration.limits
    send = build(
        task_queue=names.send_queue(integration.provider),
        activities=send_activities(provisions),
        max_concurrent_activities=limits.concurrent if limits else None,
        max_task_queue_activities_per_second=limits.requests_per_second if limits else None,
    )
    settle = build(
        task_queue=names.settle_queue(integration.provider),
        activities=settle_activities(provisions),
        max_heartbeat_throttle_interval=HEARTBEAT_EVERY,
    )
    return [send, settle]


def _notices_worker(
    build: Callable[..., Worker], subscriber: Subscriber, provisions: Dependencies
) -> Worker:
    """One for each subscriber, so that one that hangs holds up its own notices only."""
    return build(
        task_queue=names.notices_queue(subscriber.subscriber),
        activities=notices_activities(provisions),
        max_concurrent_activities=subscriber.concurrent,
        max_concurrent_activity_task_polls=1,
    )


async def _check_retention(client: Client, retention: Retention) -> None:
    """Refuse one that does not go with the engine's, and warn when that is not known."""
    try:
        await check_retention(client, retention)
    except EngineUnavailableError as error:
        log.warning("%s", error)


async def _tell_standing(client: Client, version: WorkerDeploymentVersion) -> None:
    """Log whether the engine gives tasks to this version, or else what an operator has to run."""
    try:
        deployment = await describe(client, version.deployment_name)
    except EngineUnavailableError as error:
        log.warning("version %s: %s", version.to_canonical_string(), error)
        return
    is_current = deployment.current == version.build_id
    level = logging.INFO if is_current else logging.WARNING
    log.log(level, "%s", deployment.routing(version.build_id))


async def _told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


if __name__ == "__main__":
    exit_process(main())
