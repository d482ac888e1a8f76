"""The documents of events in a delivery."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.gateway.event import make_document, reads_delivery, split_delivery
from tests.support.catalog_files import write
from tests.unit.catalog.test_callbacks import with_callbacks


@pytest.mark.parametrize(
    ("key", "has_whole"), [("id", False), ("join('/', [delivery.batch, id])", True)]
)
def test_events_have_the_whole_delivery_only_where_it_is_read(
    tmp_path: Path, key: str, has_whole: bool
) -> None:
    """They may be stored one by one: a large delivery would be stored as often as it has events."""
    text = with_callbacks("  each: events").replace("event_key: id", f"event_key: {key!r}")
    integration = load_integration(write(tmp_path, text), {})
    assert reads_delivery(integration) is has_whole
    body = {"batch": "b", "events": [{"id": "e1"}, {"id": "e2"}]}
    delivery = make_document(body, {"a": "b"}, {})
    assert integration.callbacks is not None
    assert integration.callbacks.each is not None
    documents = split_delivery(integration.callbacks.each, delivery, has_whole=has_whole)
    assert [one["id"] for one in documents] == ["e1", "e2"]
    assert [one.get("delivery") for one in documents] == [body if has_whole else None] * 2
    assert documents[0]["headers"] == {"a": "b"}
