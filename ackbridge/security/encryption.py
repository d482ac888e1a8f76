"""Encrypt data at rest: AES-256-GCM in an envelope that names its key.

An envelope is `\\xffACK`, the version, the id of the master key, what recreates the data key from
it, a random nonce, and the ciphertext with its tag. What precedes the nonce is authenticated, as is
the context that the caller gives.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ackbridge.contracts.wire import ENVELOPE
from ackbridge.errors import DecryptionError, KeyServiceError

from .keys import KeyRing, read_key_ring
from .secrets import Secrets

log = logging.getLogger("ackbridge.security.encryption")

_MAGIC: Final = ENVELOPE + b"\x01"
"""The last byte is the version."""

_SIZES: Final = struct.Struct(">BH")
"""Of the key's id, and of what recreates the data key."""

_FIXED: Final = len(_MAGIC) + _SIZES.size
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

DATA_KEY_SECONDS: Final = 3600.0
"""How long a data key encrypts, and how long a recreated one is remembered."""

DATA_KEY_USES: Final = 2**28
"""Random nonces of 96 bits may be used 2^32 times with one key."""

_REMEMBERED: Final = 4096
"""Recreated data keys in memory."""


@dataclass
class _DataKey:
    cipher: AESGCM
    header: bytes
    expires_at: float
    uses: int = 0


class Encryption:
    """Encrypts and decrypts bytes with the keys of a ring. Safe for threads.

    Calls block only when a data key has to be fetched from a key service; `is_ready` tells.
    """

    def __init__(self, ring: KeyRing, clock: Callable[[], float] = time.monotonic) -> None:
        """Use a ring; `clock` is in seconds."""
        self._ring = ring
        self._clock = clock
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._recreating = threading.Lock()
        self._current: _DataKey | None = None
        self._recreated: OrderedDict[bytes, _DataKey] = OrderedDict()

    @property
    def key_id(self) -> str:
        """The id of the master key that encrypts."""
        return self._ring.primary

    def encrypt(self, plain: bytes, context: str) -> bytes:
        """Encrypt.

        Args:
            context: what decrypts only with the same text, such as table, column and row.

        Raises:
            KeyServiceError: a new data key is due, and the key service does not answer.
        """
        key = self._encrypting_key()
        nonce = os.urandom(_NONCE_BYTES)
        return key.header + nonce + key.cipher.encrypt(nonce, plain, key.header + context.encode())

    def decrypt(self, sealed: bytes, context: str) -> bytes:
        """Decrypt what `encrypt` returned for this context, with any key of the ring.

        Raises:
            DecryptionError: it was changed, belongs to another context, or its key is not in the
                ring.
            KeyServiceError: the key service does not answer.
        """
        header = _header(sealed)
        start = len(header) + _NONCE_BYTES
        cipher = self._decrypting_cipher(header)
        nonce = sealed[len(header) : start]
        try:
            return cipher.decrypt(nonce, sealed[start:], header + context.encode())
        except InvalidTag:
            raise DecryptionError(
                "the encrypted data was changed, or belongs somewhere else"
            ) from None

    def sealed(self, data: bytes) -> bool:
        """Whether this is encrypted data, by its first bytes."""
        return data.startswith(_MAGIC)

    def is_current(self, sealed: bytes) -> bool:
        """Whether it is encrypted with the key that encrypts now; raises `DecryptionError`."""
        return _parse(_header(sealed))[0] == self._ring.primary

    def is_ready(self, sealed: bytes | None = None) -> bool:
        """Whether decrypting this, or else encrypting, needs no request to a key service."""
        if sealed is None:
            key = self._current
            is_remote = self._ring.key(self._ring.primary).is_remote
            return not is_remote or (key is not None and not self._is_due(key))
        header = _header(sealed)
        if not self._ring.key(_parse(header)[0]).is_remote:
            return True
        with self._lock:
            return self._remembered(header) is not None

    def fetch_key(self, sealed: bytes | None = None) -> None:
        """Have the data key of this, or the one that encrypts, in memory; raises as `decrypt`."""
        if sealed is None:
            self._encrypting_key()
        else:
            self._decrypting_cipher(_header(sealed))

    def _encrypting_key(self) -> _DataKey:
        key = self._current
        if key is None or self._is_due(key):
            key = self._renew(key)
        key.uses += 1
        return key

    def _is_due(self, key: _DataKey) -> bool:
        return key.uses >= DATA_KEY_USES or self._clock() >= key.expires_at

    def _renew(self, old: _DataKey | None) -> _DataKey:
        """A new data key; the old one for an hour longer if the key service does not answer."""
        spare = old if old and self._clock() < old.expires_at + DATA_KEY_SECONDS else None
        if spare and self._renewing.locked():
            return spare
        with self._renewing:
            if self._current is not None and self._current is not old:
                return self._current
            try:
                self._current = self._new_data_key()
            except KeyServiceError as error:
                if spare is None:
                    raise
                log.warning("the data key could not be renewed, and is used further: %s", error)
                return spare
            return self._current

    def _new_data_key(self) -> _DataKey:
        key_id = self._ring.primary
        plain, recipe = self._ring.key(key_id).new_data_key()
        name = key_id.encode()
        header = _MAGIC + _SIZES.pack(len(name), len(recipe)) + name + recipe
        with self._lock:
            return self._remember(header, plain)

    def _decrypting_cipher(self, header: bytes) -> AESGCM:
        with self._lock:
            key = self._remembered(header)
        if key is None:
            key = self._recreate(header)
        return key.cipher

    def _recreate(self, header: bytes) -> _DataKey:
        key_id, recipe = _parse(header)
        master = self._ring.key(key_id)
        # One at a time: many payloads with the same data key arrive at once.
        with self._recreating:
            with self._lock:
                key = self._remembered(header)
            if key is not None:
                return key
            plain = master.recreate(recipe)
            with self._lock:
                return self._remember(header, plain)

    def _remembered(self, header: bytes) -> _DataKey | None:
        key = self._recreated.get(header)
        if key is None or self._clock() >= key.expires_at:
            return None
        self._recreated.move_to_end(header)
        return key

    def _remember(self, header: bytes, plain: bytes) -> _DataKey:
        key = _DataKey(AESGCM(plain), header, self._clock() + DATA_KEY_SECONDS)
        self._recreated[header] = key
        while len(self._recreated) > _REMEMBERED:
            self._recreated.popitem(last=False)
        return key


def load_encryption(environ: Mapping[str, str]) -> Encryption | None:
    """The encryption that `ACKBRIDGE_ENCRYPTION_KEYS` asks for; None without keys.

    Args:
        environ: the process environment, over `.env` where that is read.

    Raises:
        ConfigurationError: a key is not valid, or its reference does not resolve.
    """
    keys = environ.get("ACKBRIDGE_ENCRYPTION_KEYS", "").strip()
    if not keys:
        return None
    secrets = Secrets(environ, Path(environ.get("ACKBRIDGE_SECRETS_ROOT", "")))
    return Encryption(read_key_ring(keys, secrets))


def _header(sealed: bytes) -> bytes:
    """What precedes the nonce."""
    if not sealed.startswith(_MAGIC):
        raise DecryptionError("the data is not encrypted, or with a newer version of Ackbridge")
    if len(sealed) < _FIXED:
        raise DecryptionError("the encrypted data is incomplete")
    end = _FIXED + sum(_SIZES.unpack_from(sealed, len(_MAGIC)))
    if len(sealed) < end + _NONCE_BYTES + _TAG_BYTES:
        raise DecryptionError("the encrypted data is incomplete")
    return sealed[:end]


def _parse(header: bytes) -> tuple[str, bytes]:
    """The id of the master key, and what recreates the data key."""
    length, _ = _SIZES.unpack_from(header, len(_MAGIC))
    start = _FIXED + length
    return header[_FIXED:start].decode("utf-8", "replace"), header[start:]
