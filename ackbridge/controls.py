"""The controls of all providers, as the workers of one process start and watch them."""

from __future__ import annotations

import logging

from temporalio.client import Client

from .catalog import Catalog, configured_flags
from .contracts import ControlSnapshot
from .control import Snapshots
from .errors import EngineUnavailable, UnknownName
from .provider_control import ProviderControl

log = logging.getLogger("ackbridge.control")


async def start_controls(client: Client, catalog: Catalog, provider: str | None = None) -> None:
    """See to it that every provider has its control, and that it knows our integration file.

    Calls go on without one, by their files; so what does not work now is only told.

    Args:
        provider: only this one's.
    """
    for name, integration in sorted(catalog.integrations.items()):
        if provider in (None, name):
            try:
                await ProviderControl(client, name).ensure(configured_flags(integration))
            except EngineUnavailable as error:
                log.warning("control of %s: not started: %s", name, error)


def watch_controls(client: Client, catalog: Catalog) -> Snapshots:
    """What the workers of this process know of the controls.

    One that is not there any more is started again: an operator's word must not be lost with it.
    """

    async def look(provider: str) -> ControlSnapshot | None:
        control = ProviderControl(client, provider)
        try:
            return await control.snapshot()
        except UnknownName:
            await control.ensure(configured_flags(catalog.integration(provider)))
        return await control.snapshot()

    return Snapshots(look)
