"""Large bodies that are passed by reference."""

from __future__ import annotations

import hashlib

from ackbridge.contracts.messages import BodyRef
from ackbridge.ledger.ledger import Ledger

BODY = b"%PDF\x00\xff" * 100_000


async def test_a_body_keeps_its_bytes(ledger: Ledger) -> None:
    """The reference describes it, and is the same for a repeated step."""
    store = ledger.bodies.store
    ref = await store("acme.order.1", "e-1", "application/pdf", BODY)

    assert ref == await store("acme.order.1", "e-1", "application/pdf", BODY)
    assert ref.id != (await store("acme.order.2", "e-1", "application/pdf", BODY)).id
    assert (ref.bytes, ref.content_type) == (600_000, "application/pdf")
    assert ref.sha256 == hashlib.sha256(BODY).hexdigest()
    assert await ledger.bodies.read(ref.id) == BODY
    assert await ledger.bodies.read("unknown") is None


def test_a_reference_replaces_the_data_of_a_message() -> None:
    """A provider's own object that looks alike is none."""
    ref = BodyRef(id="1", bytes=2, content_type="text/plain", sha256="3")
    assert BodyRef.of_data(ref.as_data()) == ref
    others: list[object] = [None, [], {}, {"$stored": 1}, ref.as_data() | {"more": 1}]
    for data in others:
        assert BodyRef.of_data(data) is None
