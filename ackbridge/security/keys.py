"""The keys that encrypt data at rest: master keys by reference, and the data keys made of them.

Data is never encrypted with a master key itself. Each process makes data keys, and stores with the
data what recreates them from the master key: the salt of a derivation (`file:`, `env:`), or the key
encrypted by AWS KMS (`kms:`).
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ackbridge.errors import (
    ConfigurationError,
    DecryptionError,
    KeyServiceError,
    MissingKeyError,
    SecretError,
)

from .secrets import Secrets

KEY_BYTES: Final = 32
"""Of master keys and data keys: AES-256."""

_SALT_BYTES: Final = 16
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}\Z")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_KMS: Final = "kms:"
_KMS_TIMEOUT: Final = 3
"""Seconds, for connecting and for an answer; there is one repetition."""

_NEW: Final = "generate_data_key"
_NOT_OURS: Final = ("InvalidCiphertextException", "IncorrectKeyException")

_KMS_PAUSE: Final = 2.0
"""Seconds without requests after AWS KMS has failed, so that callers fail at once."""


class MasterKey(Protocol):
    """Makes data keys, and recreates them. Safe for threads.

    Attributes:
        is_remote: whether that takes a request to a key service.
    """

    is_remote: bool

    def new_data_key(self) -> tuple[bytes, bytes]:
        """A new data key, and what recreates it; raises `KeyServiceError`."""

    def recreate(self, recipe: bytes) -> bytes:
        """The data key; raises `KeyServiceError` or `DecryptionError`."""


class LocalKey:
    """A master key in the memory of this process; data keys are derived by HKDF."""

    is_remote = False

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new_data_key(self) -> tuple[bytes, bytes]:
        salt = os.urandom(_SALT_BYTES)
        return self.recreate(salt), salt

    def recreate(self, recipe: bytes) -> bytes:
        if len(recipe) != _SALT_BYTES:
            raise DecryptionError("the data key of this data is not derived from a local key")
        return HKDF(SHA256(), KEY_BYTES, recipe, b"ackbridge data key").derive(self._key)


class KmsKey:
    """A key in AWS KMS, which encrypts data keys and never leaves it.

    Region, endpoint and credentials are those of the AWS SDK (`AWS_*`, profiles, roles).
    """

    is_remote = True

    def __init__(self, key_id: str, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Use a KMS key; no request is sent yet.

        Args:
            key_id: its id, ARN or alias.
            name: its id in the key ring, which data keys are bound to.
            clock: in seconds.

        Raises:
            ConfigurationError: the AWS SDK is not installed, or its settings are not valid.
        """
        self._key_id = key_id
        self._context = {"ackbridge": name}
        self._client = _kms_client(name)
        self._clock = clock
        self._failed_at = -_KMS_PAUSE
        self._failure = ""

    def new_data_key(self) -> tuple[bytes, bytes]:
        answer = self._ask(_NEW, KeyId=self._key_id, NumberOfBytes=KEY_BYTES)
        return answer["Plaintext"], answer["CiphertextBlob"]

    def recreate(self, recipe: bytes) -> bytes:
        key: bytes = self._ask("decrypt", KeyId=self._key_id, CiphertextBlob=recipe)["Plaintext"]
        return key

    def _ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        if self._clock() - self._failed_at < _KMS_PAUSE:
            raise KeyServiceError(self._failure)
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(
                EncryptionContext=self._context, **parameters
            )
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if code in _NOT_OURS:
                raise DecryptionError(
                    "AWS KMS does not decrypt the data key of this data"
                ) from None
            failure = f"AWS KMS: {operation}: {code or type(error).__name__}"
            if operation == _NEW or not code:
                # A refusal to decrypt may be about this data only.
                self._failure, self._failed_at = failure, self._clock()
            raise KeyServiceError(failure) from None
        return answer


def _kms_client(name: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigurationError(
            f"ACKBRIDGE_ENCRYPTION_KEYS: {name}: AWS KMS needs the extra ackbridge[aws]"
        ) from None
    config = Config(
        connect_timeout=_KMS_TIMEOUT,
        read_timeout=_KMS_TIMEOUT,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    try:
        return boto3.Session().client("kms", config=config)
    except BotoCoreError as error:
        raise ConfigurationError(
            f"ACKBRIDGE_ENCRYPTION_KEYS: {name}: AWS KMS: {type(error).__name__}: {error}"
        ) from None


@dataclass(frozen=True)
class KeyRing:
    """Master keys by id.

    Attributes:
        primary: the id of the key that encrypts; every key decrypts.
    """

    keys: dict[str, MasterKey]
    primary: str

    def key(self, key_id: str) -> MasterKey:
        """The key with this id; raises `MissingKeyError` without one."""
        try:
            return self.keys[key_id]
        except KeyError:
            raise MissingKeyError(
                f"encrypted with the key {key_id!r}, which is not among ACKBRIDGE_ENCRYPTION_KEYS"
            ) from None


def read_key_ring(text: str, secrets: Secrets) -> KeyRing:
    """Read a setting such as `2026=file:/run/secrets/key,2025=env:OLD_KEY,kms=kms:alias/ackbridge`.

    Raises:
        ConfigurationError: naming the key, never its value.
    """
    keys: dict[str, MasterKey] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        key_id, is_pair, reference = entry.partition("=")
        if not is_pair or not _ID.match(key_id):
            raise ConfigurationError(
                "ACKBRIDGE_ENCRYPTION_KEYS: expected id=reference, id=reference, ...; an id has up"
                " to 64 letters, digits, dots, dashes and underscores"
            )
        if key_id in keys:
            raise ConfigurationError(f"ACKBRIDGE_ENCRYPTION_KEYS: {key_id!r} is there twice")
        keys[key_id] = _read_key(key_id, reference, secrets)
    if not keys:
        raise ConfigurationError("ACKBRIDGE_ENCRYPTION_KEYS: there is no key in it")
    return KeyRing(keys, next(iter(keys)))


def _read_key(key_id: str, reference: str, secrets: Secrets) -> MasterKey:
    if reference.startswith(_KMS):
        kms_id = reference.removeprefix(_KMS)
        if not kms_id:
            raise ConfigurationError(f"ACKBRIDGE_ENCRYPTION_KEYS: {key_id}: kms: names no key")
        return KmsKey(kms_id, key_id)
    try:
        text = secrets.resolve(reference).strip()
    except SecretError as error:
        raise ConfigurationError(f"ACKBRIDGE_ENCRYPTION_KEYS: {key_id}: {error}") from None
    try:
        key = bytes.fromhex(text) if _HEX.match(text) else base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"ACKBRIDGE_ENCRYPTION_KEYS: {key_id}: {reference}: is not a key of {KEY_BYTES} bytes"
            " in base64 or hexadecimal (make one with: openssl rand -base64 32)"
        )
    return LocalKey(key)
