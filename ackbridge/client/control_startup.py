"""Start the controls of all providers, and read their snapshots, in a worker or gateway."""

from __future__ import annotations

import asyncio
import logging

from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog, configured_flags
from ackbridge.contracts.control import ControlSnapshot, IntegrationFlags
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import AckbridgeError, UnknownNameError
from ackbridge.ledger.ledger import Ledger

from .control import ControlHandle

log = logging.getLogger("ackbridge.control")


async def start_controls(
    client: Client, catalog: Catalog, ledger: Ledger, provider: str | None = None
) -> None:
    """Start the control of every provider, or send it the flags of our integration file.

    Calls continue without a control, by the integration files, so failures are only logged.

    Args:
        ledger: has what the controls knew that the engine has lost.
        provider: only that of this provider.
    """

    async def start(name: str, configured: IntegrationFlags) -> None:
        try:
            stored = await ledger.controls.latest(name)
            await ControlHandle(client, name).ensure(configured, stored)
        except AckbridgeError as error:
            log.warning("could not start the control of %s: %s", name, error)

    await asyncio.gather(
        *(
            start(name, configured_flags(integration))
            for name, integration in catalog.integrations.items()
            if provider in (None, name)
        )
    )


def watch_controls(client: Client, catalog: Catalog, ledger: Ledger) -> Snapshots:
    """The cached snapshots of the controls; one that is not running is started again."""

    async def read_snapshot(provider: str) -> ControlSnapshot | None:
        control = ControlHandle(client, provider)
        try:
            return await control.snapshot()
        except UnknownNameError:
            stored = await ledger.controls.latest(provider)
            await control.ensure(configured_flags(catalog.integration(provider)), stored)
        return await control.snapshot()

    return Snapshots(read_snapshot, ledger.controls.latest)
