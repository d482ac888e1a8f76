"""A bucket of S3, or of an object store that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from ackbridge.errors import ConfigurationError, ObjectStoreError

CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 10
"""Seconds."""

_CONNECTIONS: Final = 50
_DELETED_AT_ONCE: Final = 1000
_MISSING: Final = ("NoSuchKey", "404")


class S3Bucket:
    """Reads and writes objects. Region, endpoint and credentials are the AWS SDK's own (`AWS_*`).

    The first use connects. Every method but `aclose` raises `ObjectStoreError`.
    """

    def __init__(self, name: str) -> None:
        """Use a bucket.

        Raises:
            ConfigurationError: the AWS SDK is not installed.
        """
        try:
            import aioboto3  # noqa: F401 -- an extra
        except ImportError:
            raise ConfigurationError(
                "ACKBRIDGE_LARGE_PAYLOADS: S3 needs the extra ackbridge[aws]"
            ) from None
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[Any] | None = None
        self._opened = AsyncExitStack()

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, or replace it."""
        async with self._requests("put") as client:
            await client.put_object(Bucket=self.name, Key=key, Body=data)

    async def get(self, key: str) -> bytes | None:
        """Read an object; None if there is none."""
        async with self._requests("get", missing_ok=True) as client:
            answer = await client.get_object(Bucket=self.name, Key=key)
            content: bytes = await answer["Body"].read()
            return content
        return None

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            async with self._requests("delete") as client:
                answer = await client.delete_objects(
                    Bucket=self.name, Delete={"Objects": some, "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise ObjectStoreError(f"bucket {self.name}: delete: {errors[0].get('Code')}")

    async def shortest_expiration(self, prefix: str) -> timedelta | None:
        """After what age the bucket deletes some objects under a prefix; None: never."""
        rules: list[dict[str, Any]] = []
        async with self._requests("lifecycle", missing_ok=True) as client:
            answer = await client.get_bucket_lifecycle_configuration(Bucket=self.name)
            rules = answer["Rules"]
        days = [
            rule["Expiration"]["Days"]
            for rule in rules
            if rule["Status"] == "Enabled" and "Days" in rule.get("Expiration", {})
            if _may_match(rule, prefix)
        ]
        return timedelta(days=min(days)) if days else None

    async def aclose(self) -> None:
        """Close all connections."""
        self._loop = self._opening = None
        await self._opened.aclose()

    @asynccontextmanager
    async def _requests(self, what: str, *, missing_ok: bool = False) -> AsyncIterator[Any]:
        # Clients of calls import this module, and most have no bucket.
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield await self._client()
        except (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if missing_ok and (code in _MISSING or code == "NoSuchLifecycleConfiguration"):
                return
            problem = code or type(error).__name__
            raise ObjectStoreError(f"bucket {self.name}: {what}: {problem}") from None

    async def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._opening is None:
            self._loop, self._opening = loop, loop.create_task(self._open())
        try:
            return await asyncio.shield(self._opening)
        except BaseException:
            if self._opening is not None and self._opening.done():
                self._opening = None
            raise

    async def _open(self) -> Any:
        import aioboto3
        from aiobotocore.config import AioConfig

        config = AioConfig(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": 3, "mode": "standard"},
        )
        client = aioboto3.Session().client("s3", config=config)
        return await self._opened.enter_async_context(client)


def open_bucket(environ: Mapping[str, str]) -> S3Bucket | None:
    """The bucket of `ACKBRIDGE_LARGE_PAYLOADS`; None without one.

    Raises:
        ConfigurationError: it is not `s3://bucket`, or the AWS SDK is not installed.
    """
    text = environ.get("ACKBRIDGE_LARGE_PAYLOADS", "").strip()
    if not text:
        return None
    url = urlsplit(text)
    if url.scheme != "s3" or not url.netloc or url.path.strip("/"):
        raise ConfigurationError("ACKBRIDGE_LARGE_PAYLOADS: expected s3://bucket")
    return S3Bucket(url.netloc)


def _may_match(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule may concern objects under a prefix; rules by tag or size are taken to."""
    filters = rule.get("Filter", {})
    given: str = rule.get("Prefix") or filters.get("Prefix") or ""
    given = given or filters.get("And", {}).get("Prefix", "")
    return given.startswith(prefix) or prefix.startswith(given)
