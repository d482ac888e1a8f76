"""Requests to URLs that the provider has sent: who sees our authentication."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

import pytest

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.expressions import Expression
from ackbridge.contracts.steps import AskStep
from activities.ask_status import AskStatus

from .world import TOKEN, World, attempt, failed


def linked(world: World, hosts: dict[str, Literal["auth", "open"]]) -> World:
    """The same world, where the status request goes to a link, and may go to these hosts."""
    acme = world.deps.catalog.integration("acme")
    track = acme.operations["track"]
    status = track.response.status
    assert status is not None
    status = status.model_copy(update={"path": None, "url": Expression("kept.poll")})
    response = track.response.model_copy(update={"status": status})
    operations = {**acme.operations, "track": track.model_copy(update={"response": response})}
    changed = acme.model_copy(update={"hosts": hosts, "operations": operations})
    catalog = Catalog(MappingProxyType({"acme": changed}))
    return replace(world, deps=replace(world.deps, catalog=catalog))


def step(world: World, host: str) -> AskStep:
    """A question at the same provider under another name."""
    port = urlsplit(world.environ["ACME_URL"]).port
    kept: dict[str, str | int | float | bool] = {"poll": f"http://{host}:{port}/jobs/1"}
    return AskStep(request=world.request("track"), cycle=1, kept=kept)


@pytest.mark.parametrize("access", ["auth", "open", None])
async def test_only_listed_hosts_are_asked(
    world: World, access: Literal["auth", "open"] | None
) -> None:
    """`open` hosts do not see our authentication; hosts that are not listed see nothing."""
    port = urlsplit(world.environ["ACME_URL"]).port
    of = linked(world, {f"localhost:{port}": access} if access else {})
    world.script.says({"state": "done"})

    asking = attempt().run(AskStatus(of.deps).ask_status, step(world, "localhost"))
    if access is None:
        error = await failed(asking)
        assert (error.type, error.non_retryable) == ("InvalidRequest", True)
        assert "neither the host of base_url nor one of hosts" in error.message
        assert world.script.asked == []
    else:
        asked = await asking
        assert asked.message is not None
        (headers,) = world.script.headers
        seen = headers.get("authorization")
        assert seen == (f"Bearer {TOKEN}" if access == "auth" else None)
