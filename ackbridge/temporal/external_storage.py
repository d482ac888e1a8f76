"""Large payloads of the engine in an object store, by the SDK's external storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.api.sdk.v1.external_storage_pb2 import ExternalStorageReference
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.converter import (
    ExternalStorage,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
)

from ackbridge.errors import ConfigurationError, ObjectStoreError
from ackbridge.objects.s3 import S3Bucket, open_bucket

PREFIX: Final = "v0/"
"""Of the keys of all payloads, as the SDK's driver makes them."""

_REFERENCE: Final = ExternalStorageReference.DESCRIPTOR.full_name.encode()

DEFAULT_OVER: Final = 128 * 1024
"""Bytes."""


class BucketClient(S3StorageDriverClient):
    """What the SDK's driver needs, over our bucket; no other bucket is read, whatever is asked."""

    def __init__(self, bucket: S3Bucket) -> None:
        self.bucket = bucket

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        self._check(bucket, key)
        await self.bucket.put(key, data)

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Never: encrypted payloads are always new, and plain ones may be written again."""
        self._check(bucket, key)
        return False

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        self._check(bucket, key)
        found = await self.bucket.get(key)
        if found is None:
            raise ObjectStoreError(f"bucket {bucket}: there is no payload {key}")
        return found

    def _check(self, bucket: str, key: str) -> None:
        if bucket != self.bucket.name or not key.startswith(PREFIX):
            raise ObjectStoreError(f"bucket {bucket}: only payloads in {self.bucket.name} are read")


class BucketDriver(S3StorageDriver):
    """The SDK's driver with our bucket."""

    def __init__(self, bucket: S3Bucket) -> None:
        super().__init__(BucketClient(bucket), bucket.name)
        self.bucket = bucket


def load_external_storage(environ: Mapping[str, str]) -> ExternalStorage | None:
    """That of `ACKBRIDGE_LARGE_PAYLOADS`; None without it.

    Raises:
        ConfigurationError: naming the setting.
    """
    bucket = open_bucket(environ)
    if bucket is None:
        return None
    over = environ.get("ACKBRIDGE_LARGE_PAYLOADS_OVER", str(DEFAULT_OVER))
    if not over.isdecimal():
        raise ConfigurationError("ACKBRIDGE_LARGE_PAYLOADS_OVER: expected a number of bytes")
    return ExternalStorage([BucketDriver(bucket)], payload_size_threshold=int(over))


def bucket_of(storage: ExternalStorage | None) -> S3Bucket | None:
    """The bucket of our own driver, if there is one."""
    drivers = storage.drivers if storage else ()
    return next((one.bucket for one in drivers if isinstance(one, BucketDriver)), None)


async def retrieve(storage: ExternalStorage, payloads: Sequence[Payload]) -> list[Payload]:
    """The payloads, with those that are stored elsewhere in place of their references.

    Raises:
        ObjectStoreError: one cannot be read.
    """
    return [await _retrieve(storage, payload) for payload in payloads]


async def _retrieve(storage: ExternalStorage, payload: Payload) -> Payload:
    if payload.metadata.get("messageType") != _REFERENCE:
        return payload
    reference = json_format.Parse(payload.data, ExternalStorageReference())
    driver = next((one for one in storage.drivers if one.name() == reference.driver_name), None)
    if driver is None:
        return payload
    claim = StorageDriverClaim(dict(reference.claim_data))
    try:
        (found,) = await driver.retrieve(StorageDriverRetrieveContext(), [claim])
    except (RuntimeError, ValueError, KeyError) as error:
        # The driver's own errors hide ours, and repeat what the reference says.
        raise ObjectStoreError(f"a large payload cannot be read: {type(error).__name__}") from None
    return found
