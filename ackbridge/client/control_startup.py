"""The controls of all providers, as the workers of one process start and watch them."""

from __future__ import annotations

import asyncio
import logging

from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog, configured_flags
from ackbridge.contracts.control import ControlSnapshot, IntegrationFlags
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import AckbridgeError, UnknownNameError

from .control import ControlHandle

log = logging.getLogger("ackbridge.control")


async def start_controls(client: Client, catalog: Catalog, provider: str | None = None) -> None:
    """See to it that every provider has its control, and that it knows our integration file.

    Calls go on without one, by their files; so what does not work now is only told.

    Args:
        provider: only this one's.
    """

    async def start(name: str, configured: IntegrationFlags) -> None:
        try:
            await ControlHandle(client, name).ensure(configured)
        except AckbridgeError as error:
            log.warning("control of %s: not started: %s", name, error)

    await asyncio.gather(
        *(
            start(name, configured_flags(integration))
            for name, integration in catalog.integrations.items()
            if provider in (None, name)
        )
    )


def watch_controls(client: Client, catalog: Catalog) -> Snapshots:
    """What the workers of this process know of the controls.

    One that is not there any more is started again: an operator's word must not be lost with it.
    """

    async def look(provider: str) -> ControlSnapshot | None:
        control = ControlHandle(client, provider)
        try:
            return await control.snapshot()
        except UnknownNameError:
            await control.ensure(configured_flags(catalog.integration(provider)))
        return await control.snapshot()

    return Snapshots(look)
