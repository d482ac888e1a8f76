"""One stage for all notices: the sandbox's integration, and two subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.stage import Stage, edited_integrations, set_up
from tests.support.subscribers import Subscriber, configure, subscribing

FEED = """
provider: feed
base_url: SHOP
breaker: null
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:SANDBOX_WEBHOOK_SECRET"]}
  event_key: id
  each: events
  events:
    refund: {when: type == 'refund', notify: shop, object: charge, data: amount}
    note: {when: type == 'note', notify: shop}
    confirm: {when: type == 'confirm', visit: url}
  list: {path: /events, query: {after: "{since}", page: "{page}"}, each: data, next: next}
operations:
  ask:
    request: {path: /asks}
    response: {mode: callback, match: {call_id: call_id}, success: type == 'done'}
"""
"""A provider that sends events that no call waits for."""


@pytest.fixture(scope="session")
def shop() -> Iterator[Subscriber]:
    """The subscriber of most calls."""
    with subscribing() as one:
        yield one


@pytest.fixture(scope="session")
def sick() -> Iterator[Subscriber]:
    """A subscriber that fails."""
    with subscribing() as one:
        yield one


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def told(
    engine: EmbeddedEngine,
    tmp_path_factory: pytest.TempPathFactory,
    shop: Subscriber,
    sick: Subscriber,
) -> AsyncIterator[Stage]:
    """The sandbox's integration with two subscribers."""
    folder = tmp_path_factory.mktemp("told")

    def briefly(operations: dict[str, Any]) -> None:
        german = {
            "title": "Buchung {payload.room}",
            "message": "Nicht bestätigt.",
            "alternative": "Rufen Sie an.",
        }
        notices = operations["create_booking"]["notices"]
        notices["failed"] = {"en": notices["failed"], "de": german}
        own = {"title": "A quote in {payload.currency}", "message": "Here it is."}
        operations["quote"]["notices"] = {"completed": own}

    integrations = edited_integrations(folder, briefly)
    configure(integrations, "shop", shop.url, response=True)
    configure(integrations, "sick", sick.url, timeout="1s", within="5d", concurrent=2)
    configure(integrations, "hasty", sick.url, within="1h")
    (integrations / "feed.yaml").write_text(FEED.replace("SHOP", shop.url.removesuffix("/notices")))
    async with set_up(engine, folder, integrations) as everything:
        yield everything
