"""The signed deliveries of the shipped examples, over a socket, as their providers send them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ackbridge.catalog.examples import DeliveryExample, Example, ExampleKind
from ackbridge.catalog.loading import load_catalog, load_examples, load_integration

from .world import World, collected

INTEGRATIONS = Path(__file__).resolve().parents[3] / "integrations"
SIGNALLED = {
    ExampleKind.SUCCESS,
    ExampleKind.FAILURE,
    ExampleKind.EXTENSION,
    ExampleKind.DOORBELL,
}


def signed_examples(provider: str) -> list[tuple[str, Example, DeliveryExample]]:
    """The deliveries of a provider that have a genuine signature, by the names of their files."""
    path = INTEGRATIONS / f"{provider}.yaml"
    return [
        (recorded.path.stem, recorded.example, recorded.example.delivery)
        for recorded in load_examples(path, load_integration(path, {}))
        if recorded.example.delivery is not None and recorded.example.delivery.verify is not None
    ]


async def start_calls(world: World, provider: str, examples: list[Example]) -> set[str]:
    """Start the calls that deliveries are about; returns their ids."""
    call_ids: set[str] = set()
    for example in examples:
        (meaning,) = example.means
        if meaning.kind not in SIGNALLED:
            continue
        call_id = meaning.call_id or f"{provider}.{example.operation}.{meaning.reference}"
        if call_id not in call_ids:
            call_ids.add(call_id)
            await world.start_call(call_id)
        if meaning.call_id is None and meaning.reference is not None:
            await world.ledger.calls.commit_reference(call_id, provider, meaning.reference)
    return call_ids


@pytest.mark.parametrize("provider", ["github", "openai", "slack", "stripe"])
async def test_signed_deliveries(world: World, provider: str) -> None:
    """Each is verified, and does what its example says; a changed body is refused."""
    examples = signed_examples(provider)
    verify = examples[0][2].verify
    assert verify is not None
    environ = {ref.removeprefix("env:"): value for ref, value in verify.secrets.items()}
    world = replace(world, catalog=load_catalog(INTEGRATIONS, {}), environ=environ)
    call_ids = await start_calls(world, provider, [example for _, example, _ in examples])

    async with world.gateway(clock=lambda: verify.at) as gateway:
        for name, example, delivery in examples:
            (meaning,) = example.means
            forged = await gateway.send(delivery.raw + b" ", delivery.headers, provider)
            assert (forged.status_code, forged.json()["status"]) == (401, "forged")

            reply = await gateway.send(delivery.raw, delivery.headers, provider)

            assert reply.status_code == 200, name
            if meaning.kind is ExampleKind.HANDSHAKE:
                assert reply.text == meaning.reply
            else:
                done = "signalled" if meaning.kind in SIGNALLED else meaning.kind
                assert reply.json()["status"] == done, name

    for call_id in call_ids:
        assert await collected(world.client.get_workflow_handle(call_id))
