"""The data converter: what is encrypted, what stays readable, and a team's own beside ours."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.exceptions import ApplicationError

from ackbridge.contracts.signals import Cancel
from ackbridge.contracts.wire import NotEncrypted, UnreadablePayload
from ackbridge.errors import ConfigurationError, MissingKeyError
from ackbridge.security.encryption import Encryption, load_encryption
from ackbridge.temporal.data_converter import build_data_converter, load_data_converter
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER, uses_contexts

SECRET = "4242 4242 4242 4242"
ENVIRON = {
    "ACKBRIDGE_ENCRYPTION_KEYS": "new=env:KEY",
    "KEY": base64.b64encode(bytes(32)).decode(),
}


def encryption(keys: str = "new=env:KEY") -> Encryption:
    """One with a key."""
    made = load_encryption({**ENVIRON, "ACKBRIDGE_ENCRYPTION_KEYS": keys})
    assert made is not None
    return made


ENCRYPTING = build_data_converter(encryption())


async def test_values_are_encrypted() -> None:
    """Also models and None; the metadata names the key, and no type."""
    values = [{"card": SECRET}, Cancel(by="me", reason=SECRET), None]
    payloads = await ENCRYPTING.encode(values)
    for payload in payloads:
        assert dict(payload.metadata) == {
            "encoding": b"binary/encrypted",
            "encryption-key-id": b"new",
        }
        assert b"4242" not in payload.SerializeToString()
    assert await ENCRYPTING.decode(payloads, [dict, Cancel, type(None)]) == values


async def test_failures_are_encrypted() -> None:
    """Messages, stack traces and details, of causes too; the type stays readable."""

    cause = ValueError(SECRET)
    error = ApplicationError(f"card {SECRET}", {"card": SECRET}, type="CallFailed")
    error.__cause__ = cause
    failure = Failure()
    await ENCRYPTING.encode_failure(error, failure)
    assert b"4242" not in failure.SerializeToString()
    assert failure.application_failure_info.type == "CallFailed"
    decoded = await ENCRYPTING.decode_failure(failure)
    assert isinstance(decoded, ApplicationError)
    assert (decoded.message, decoded.details) == (f"card {SECRET}", ({"card": SECRET},))
    assert SECRET in str(decoded.__cause__)


async def test_plain_payloads_stay_readable() -> None:
    """From before there were keys, or from a client without."""
    payloads = await DATA_CONVERTER.encode([{"a": 1}])
    assert await ENCRYPTING.decode(payloads) == [{"a": 1}]


async def test_plain_payloads_are_marked_where_encryption_is_required() -> None:
    """Only they."""
    strict = build_data_converter(encryption(), requires_encryption=True)
    (plain,) = await strict.decode(await DATA_CONVERTER.encode([{"a": 1}]))
    (sealed,) = await strict.decode(await ENCRYPTING.encode([{"a": 1}]))
    assert plain == sealed == {"a": 1}
    assert (type(plain), type(sealed)) == (NotEncrypted, dict)


async def test_missing_key_is_not_the_fault_of_the_payload() -> None:
    """Decoding raises, so that the engine repeats the task where the key is."""
    payloads = await ENCRYPTING.encode([{"a": 1}])
    with pytest.raises(MissingKeyError, match="'new'"):
        await build_data_converter(encryption("other=env:KEY")).decode(payloads)
    several: list[list[type] | None] = [None, [dict]]
    for hints in several:
        with pytest.raises(MissingKeyError, match="set ACKBRIDGE_ENCRYPTION_KEYS"):
            await DATA_CONVERTER.decode(payloads, hints)


async def test_changed_payload_is_unreadable() -> None:
    """It is reported by its reader, and does not fail the workflow task for ever."""
    (payload,) = await ENCRYPTING.encode([{"a": 1}])
    changed = payload.data[:-1] + bytes([payload.data[-1] ^ 1])
    for data in (changed, payload.data[:20], payload.data[:5]):
        bad = Payload(metadata=payload.metadata, data=data)
        (value,) = await ENCRYPTING.decode([bad])
        assert isinstance(value, UnreadablePayload)
        assert value.problem == "the payload does not read as plain JSON (binary/undecryptable)"


@pytest.mark.parametrize("converter", [ENCRYPTING, DATA_CONVERTER])
async def test_payload_that_others_have_encrypted_is_unreadable(converter: DataConverter) -> None:
    """Also where there are no keys: nobody here will ever have its key."""
    foreign = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"theirs")
    (value,) = await converter.decode([foreign])
    assert isinstance(value, UnreadablePayload)


class Reversing(PayloadCodec):
    """A team's codec."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"team/reversed"}, data=p.SerializeToString()[::-1])
            for p in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(p.data[::-1]) if p.metadata["encoding"] == b"team/reversed" else p
            for p in payloads
        ]


class Shouting(EncodingPayloadConverter):
    """An encoding that only the team knows."""

    @property
    def encoding(self) -> str:
        return "team/shouting"

    def to_payload(self, value: Any) -> Payload | None:
        return Payload(metadata={"encoding": b"team/shouting"}, data=repr(value).upper().encode())

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return {"shouted": payload.data.decode()}


class TeamPayloadConverter(CompositePayloadConverter):
    """With its encoding first."""

    def __init__(self) -> None:
        super().__init__(Shouting(), *DefaultPayloadConverter.default_encoding_payload_converters)


TEAM = DataConverter(payload_converter_class=TeamPayloadConverter, payload_codec=Reversing())


@pytest.mark.parametrize("ours", [encryption(), None])
async def test_own_data_converter(ours: Encryption | None) -> None:
    """What the team's clients send is read, what we send is JSON under their codec and ours."""
    both = build_data_converter(ours, TEAM)
    (value,) = await both.decode(await TEAM.encode(["hello"]))
    assert value == {"shouted": "'HELLO'"}
    sent = await both.encode([{"a": 1}])
    assert await both.decode(sent, [dict]) == [{"a": 1}]
    if ours is not None:
        assert sent[0].metadata["encoding"] == b"binary/encrypted"
        sent = await build_data_converter(ours).payload_codec.decode(sent)  # type: ignore[union-attr]
    assert sent[0].metadata["encoding"] == b"team/reversed"
    assert await replace(TEAM).decode(sent) == [{"a": 1}]


class InContext(Reversing, WithSerializationContext):
    """A codec that is another one for each workflow."""

    def with_context(self, context: SerializationContext) -> InContext:
        return InContext()


def test_contexts_cost_only_who_uses_them() -> None:
    """The sandbox of a workflow is entered for each payload to ask for its context."""
    team = replace(TEAM, payload_codec=InContext())
    assert not uses_contexts(DATA_CONVERTER)
    assert not uses_contexts(ENCRYPTING)
    assert not uses_contexts(build_data_converter(encryption(), TEAM))
    assert uses_contexts(build_data_converter(encryption(), team))


async def test_settings() -> None:
    """From the environment; each refused by name."""
    assert load_data_converter({}) is DATA_CONVERTER
    assert load_data_converter(ENVIRON).payload_codec is not None
    own = {"ACKBRIDGE_DATA_CONVERTER": f"{__name__}:TEAM"}
    assert isinstance(load_data_converter(own).payload_codec, Reversing)
    for environ, complaint in [
        ({"ACKBRIDGE_REQUIRE_ENCRYPTED": "true"}, "REQUIRE_ENCRYPTED: needs keys"),
        ({"ACKBRIDGE_REQUIRE_ENCRYPTED": "maybe"}, "REQUIRE_ENCRYPTED: expected true or false"),
        ({"ACKBRIDGE_DATA_CONVERTER": "nowhere:X"}, "DATA_CONVERTER: nowhere:X: No module"),
        ({"ACKBRIDGE_DATA_CONVERTER": f"{__name__}:SECRET"}, "expected module:name of a"),
    ]:
        with pytest.raises(ConfigurationError, match=complaint):
            load_data_converter(environ)
