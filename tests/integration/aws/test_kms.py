"""Keys in AWS KMS: envelope encryption, against moto in a process of its own."""

from __future__ import annotations

import asyncio

import boto3
import pytest
from temporalio.api.common.v1 import Payload

from ackbridge.contracts.wire import UnreadablePayload
from ackbridge.errors import ConfigurationError, DecryptionError, KeyServiceError
from ackbridge.security.encryption import Encryption, load_encryption
from ackbridge.security.keys import KeyRing, KmsKey
from ackbridge.temporal.data_converter import build_data_converter


@pytest.fixture
def kms_key(aws_environment: dict[str, str]) -> str:
    """A new key's id."""
    return str(boto3.client("kms").create_key()["KeyMetadata"]["KeyId"])


def encryption(setting: str) -> Encryption:
    """That of a setting."""
    made = load_encryption({"ACKBRIDGE_ENCRYPTION_KEYS": setting})
    assert made is not None
    return made


def test_round_trip(kms_key: str) -> None:
    """In another process, too, by one request for each data key; the master key stays away."""
    sealed = [encryption(f"k=kms:{kms_key}").encrypt(b"4242", "c") for _ in range(2)]
    reader = encryption(f"k=kms:{kms_key}")
    assert [reader.decrypt(one, "c") for one in sealed] == [b"4242", b"4242"]
    assert not any(b"4242" in one for one in sealed)


async def test_aliases_and_rotation(kms_key: str) -> None:
    """An alias is enough; another key or another id in the ring does not decrypt."""
    client = boto3.client("kms")
    client.create_alias(AliasName=f"alias/{kms_key}", TargetKeyId=kms_key)
    sealed = encryption(f"k=kms:alias/{kms_key}").encrypt(b"x", "c")
    other = client.create_key()["KeyMetadata"]["KeyId"]
    assert encryption(f"new=kms:{other},k=kms:{kms_key}").decrypt(sealed, "c") == b"x"
    with pytest.raises(DecryptionError, match="'k'"):
        encryption(f"new=kms:{kms_key}").decrypt(sealed, "c")
    bad = Payload(
        metadata={"encoding": b"binary/encrypted"}, data=sealed[:100] + bytes(5) + sealed[105:]
    )
    (value,) = await build_data_converter(encryption(f"k=kms:{kms_key}")).decode([bad])
    assert isinstance(value, UnreadablePayload)
    renamed = sealed.replace(b"k", b"j", 1)
    with pytest.raises(DecryptionError):
        encryption(f"j=kms:{kms_key}").decrypt(renamed, "c")


def test_key_that_is_not_there(aws_environment: dict[str, str]) -> None:
    """It is named, and asked for again only after a pause."""
    ours = encryption("k=kms:alias/none")
    for _ in range(2):
        with pytest.raises(KeyServiceError, match="generate_data_key: NotFoundException"):
            ours.encrypt(b"x", "c")


def test_away(kms_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer it fails in time, then at once for a while, and recovers by itself."""
    now = 1000.0
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        key = KmsKey(kms_key, "k", lambda: now)
    ours = Encryption(KeyRing({"k": key}, "k"))
    with pytest.raises(KeyServiceError, match="generate_data_key: EndpointConnectionError"):
        ours.encrypt(b"x", "c")
    key._client = KmsKey(kms_key, "k")._client
    with pytest.raises(KeyServiceError):
        ours.encrypt(b"x", "c")
    now += 3
    assert ours.decrypt(ours.encrypt(b"x", "c"), "c") == b"x"


def test_region_is_missing(
    aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AWS SDK's own settings are missing: it is said at the start."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigurationError, match="k: AWS KMS: NoRegionError"):
        encryption("k=kms:alias/x")


async def test_payloads_do_not_block_the_loop(kms_key: str) -> None:
    """Data keys are fetched in a thread, once for many payloads at the same time."""
    setting = f"k=kms:{kms_key}"
    writer, reader = (build_data_converter(encryption(setting)) for _ in range(2))
    sealed = await asyncio.gather(*(writer.encode([{"n": n}]) for n in range(20)))
    read = await asyncio.gather(*(reader.decode(one) for one in sealed))
    assert [value["n"] for (value,) in read] == list(range(20))
