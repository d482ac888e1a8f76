"""The data converter of every client, worker and replayer, built in one place.

With keys (`ACKBRIDGE_ENCRYPTION_KEYS`), everything that the engine stores of a workflow is
encrypted: arguments, results, signals, updates, memos, summaries and details, and the messages and
stack traces of failures. Ids, search attributes and types are not.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    ExternalStorage,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
)

from ackbridge.errors import ConfigurationError, DecryptionError, MissingKeyError
from ackbridge.security.encryption import Encryption, load_encryption
from ackbridge.workarounds.temporal_sdk import (
    DATA_CONVERTER,
    ENCRYPTED,
    NOT_ENCRYPTED,
    EncodedOutcomeFailureConverter,
    LenientPayloadConverter,
    OutcomeFailureConverter,
)

from .external_storage import load_external_storage

KEY_ID: Final = "encryption-key-id"
"""The metadata that names the master key, for people: the envelope has it, too."""

UNDECRYPTABLE: Final = b"binary/undecryptable"
"""The encoding of a payload that was changed. Its reader reports it, as any unreadable one."""

_CONTEXT: Final = "temporal payload"
"""Payloads move between workflows, in results, failures and signals: no id can be part of it."""


class EncryptionCodec(PayloadCodec):
    """Encrypts payloads, with their metadata; plain ones and those of other codecs stay readable.

    A payload whose key is missing raises `MissingKeyError`: another process may have the key, and
    the engine repeats the task. One that was changed never becomes readable, so it is passed on as
    `UNDECRYPTABLE`, and fails its reader instead of its task.
    """

    def __init__(self, encryption: Encryption, *, marks_plain: bool = False) -> None:
        """Use these keys.

        Args:
            marks_plain: add the metadata `NOT_ENCRYPTED` to decoded payloads that were plain.
        """
        self._encryption = encryption
        self._key_id = encryption.key_id.encode()
        self._marks_plain = marks_plain

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt; raises `KeyServiceError`."""
        if not self._encryption.is_ready():
            await asyncio.to_thread(self._encryption.fetch_key)
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt; raises `MissingKeyError` and `KeyServiceError`."""
        return [
            await self._decrypted(payload) if self._is_ours(payload) else self._marked(payload)
            for payload in payloads
        ]

    def _is_ours(self, payload: Payload) -> bool:
        is_encrypted = payload.metadata.get("encoding") == ENCRYPTED
        return is_encrypted and self._encryption.sealed(payload.data)

    def _encrypted(self, payload: Payload) -> Payload:
        return Payload(
            metadata={"encoding": ENCRYPTED, KEY_ID: self._key_id},
            data=self._encryption.encrypt(payload.SerializeToString(), _CONTEXT),
        )

    async def _decrypted(self, payload: Payload) -> Payload:
        try:
            if not self._encryption.is_ready(payload.data):
                await asyncio.to_thread(self._encryption.fetch_key, payload.data)
            plain = self._encryption.decrypt(payload.data, _CONTEXT)
        except MissingKeyError:
            raise
        except DecryptionError:
            return Payload(metadata={"encoding": UNDECRYPTABLE})
        return Payload.FromString(plain)

    def _marked(self, payload: Payload) -> Payload:
        if not self._marks_plain:
            return payload
        marked = Payload()
        marked.CopyFrom(payload)
        marked.metadata[NOT_ENCRYPTED] = b"true"
        return marked


class CodecChain(PayloadCodec, WithSerializationContext):
    """Several codecs: the first encodes first, and decodes last."""

    def __init__(self, *codecs: PayloadCodec) -> None:
        self._codecs = codecs

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        encoded = list(payloads)
        for codec in self._codecs:
            encoded = await codec.encode(encoded)
        return encoded

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        decoded = list(payloads)
        for codec in reversed(self._codecs):
            decoded = await codec.decode(decoded)
        return decoded

    def with_context(self, context: SerializationContext) -> CodecChain:
        codecs = [_in_context(codec, context) for codec in self._codecs]
        is_same = all(map(operator.is_, codecs, self._codecs))
        return self if is_same else CodecChain(*codecs)


def _in_context(codec: PayloadCodec, context: SerializationContext) -> PayloadCodec:
    return codec.with_context(context) if isinstance(codec, WithSerializationContext) else codec


def build_data_converter(
    encryption: Encryption | None = None,
    own: DataConverter | None = None,
    *,
    requires_encryption: bool = False,
    storage: ExternalStorage | None = None,
) -> DataConverter:
    """The data converter of a deployment.

    Args:
        encryption: None for plain payloads.
        own: a team's own data converter. Its codec encodes before, and decodes after ours; its
            payload converter reads the encodings that ours does not know, and writes nothing; its
            failure converter and its external storage are used as they are.
        requires_encryption: mark plain payloads, so that calls started with one are refused.
        storage: of large payloads, after they are encrypted; None: that of `own`.
    """
    if encryption is None and own is None and storage is None:
        return DATA_CONVERTER
    own = own or DATA_CONVERTER
    codecs = [own.payload_codec] if own.payload_codec else []
    if encryption is not None:
        codecs.append(EncryptionCodec(encryption, marks_plain=requires_encryption))
    failures = own.failure_converter_class
    if failures in (DefaultFailureConverter, OutcomeFailureConverter) and codecs:
        failures = EncodedOutcomeFailureConverter
    return replace(
        own,
        payload_converter_class=_reading_also(own.payload_converter_class),
        payload_codec=CodecChain(*codecs) if len(codecs) > 1 else next(iter(codecs), None),
        failure_converter_class=failures,
        external_storage=storage or own.external_storage,
    )


def load_data_converter(environ: Mapping[str, str]) -> DataConverter:
    """The data converter that the settings ask for.

    Args:
        environ: the process environment, over `.env` where that is read.

    Raises:
        ConfigurationError: naming the setting.
    """
    encryption = load_encryption(environ)
    requires_encryption = _is_true("ACKBRIDGE_REQUIRE_ENCRYPTED", environ)
    if requires_encryption and encryption is None:
        raise ConfigurationError(
            "ACKBRIDGE_REQUIRE_ENCRYPTED: needs keys in ACKBRIDGE_ENCRYPTION_KEYS"
        )
    return build_data_converter(
        encryption,
        _own_converter(environ.get("ACKBRIDGE_DATA_CONVERTER", "")),
        requires_encryption=requires_encryption,
        storage=load_external_storage(environ),
    )


def _is_true(name: str, environ: Mapping[str, str]) -> bool:
    try:
        return TypeAdapter(bool).validate_python(environ.get(name) or "false")
    except ValidationError:
        raise ConfigurationError(f"{name}: expected true or false") from None


def _own_converter(path: str) -> DataConverter | None:
    if not path:
        return None
    module, _, name = path.partition(":")
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"ACKBRIDGE_DATA_CONVERTER: {path}: {error}") from None
    if not isinstance(found, DataConverter):
        raise ConfigurationError(
            f"ACKBRIDGE_DATA_CONVERTER: {path}: expected module:name of a"
            " temporalio.converter.DataConverter"
        )
    return found


def _reading_also(other: type[PayloadConverter]) -> type[LenientPayloadConverter]:
    """Our payload converter, which reads what only the other one understands."""
    if other in (DefaultPayloadConverter, LenientPayloadConverter):
        return LenientPayloadConverter

    class ReadingAlso(LenientPayloadConverter):
        others = other()

    return ReadingAlso
