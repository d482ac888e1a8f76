"""Encryption at rest: envelopes, contexts, rotation, and the life of data keys."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from ackbridge.errors import ConfigurationError, DecryptionError, KeyServiceError
from ackbridge.security import encryption
from ackbridge.security.encryption import Encryption, load_encryption
from ackbridge.security.keys import KEY_BYTES, KeyRing, LocalKey

PLAIN = b'{"card": "4242 4242 4242 4242"}'
OLD, NEW = (base64.b64encode(bytes([n]) * KEY_BYTES).decode() for n in (1, 2))
ENVIRON = {"OLD": OLD, "NEW": bytes([2]).hex() * KEY_BYTES}


def ring(keys: str, **environ: str) -> Encryption:
    """The encryption of a setting."""
    made = load_encryption({**ENVIRON, **environ, "ACKBRIDGE_ENCRYPTION_KEYS": keys})
    assert made is not None
    return made


def test_round_trip_hides_the_text() -> None:
    """Two envelopes of the same text differ, name the key, and decrypt in another process."""
    ours = ring("2026=env:NEW")
    first, second = (ours.encrypt(PLAIN, "calls.payload.1") for _ in range(2))
    assert first != second
    assert b"4242" not in first
    assert b"2026" in first
    assert ours.sealed(first)
    assert not ours.sealed(PLAIN)
    assert ring("2026=env:NEW").decrypt(first, "calls.payload.1") == PLAIN
    assert len(first) - len(PLAIN) < 100


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_sizes(size: int) -> None:
    """Also of nothing."""
    ours, plain = ring("2026=env:NEW"), os.urandom(size)
    assert ours.decrypt(ours.encrypt(plain, ""), "") == plain


def test_another_context_does_not_decrypt() -> None:
    """What was moved to another row is refused."""
    ours = ring("2026=env:NEW")
    with pytest.raises(DecryptionError, match="belongs somewhere else"):
        ours.decrypt(ours.encrypt(PLAIN, "calls.payload.1"), "calls.payload.2")


def test_every_changed_byte_is_noticed() -> None:
    """Also in the header, and every truncation."""
    ours = ring("2026=env:NEW")
    sealed = ours.encrypt(b"x", "c")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(DecryptionError):
            ours.decrypt(bytes(changed), "c")
        with pytest.raises(DecryptionError):
            ours.decrypt(sealed[:position], "c")


def test_rotation() -> None:
    """The new key is distributed first, then encrypts; the old one decrypts until it goes."""
    before, prepared = ring("old=env:OLD"), ring("old=env:OLD,new=env:NEW")
    after, without = ring("new=env:NEW, old=env:OLD"), ring("new=env:NEW")
    old, new = before.encrypt(PLAIN, "c"), after.encrypt(PLAIN, "c")
    for ours in (prepared, after):
        assert ours.decrypt(old, "c") == ours.decrypt(new, "c") == PLAIN
    assert after.is_current(new)
    assert not after.is_current(old)
    assert (prepared.key_id, after.key_id) == ("old", "new")
    with pytest.raises(DecryptionError, match="'old', which is not among ACKBRIDGE_ENCRYPTION_KEY"):
        without.decrypt(old, "c")


def test_another_key_under_the_same_id() -> None:
    """It does not decrypt."""
    sealed = ring("id=env:OLD").encrypt(PLAIN, "c")
    with pytest.raises(DecryptionError):
        ring("id=env:NEW").decrypt(sealed, "c")


def test_keys_from_files(tmp_path: Path) -> None:
    """Relative to the folder of secrets; the newline at the end does not matter."""
    (tmp_path / "key").write_text(NEW + "\n")
    ours = ring("a=file:key", ACKBRIDGE_SECRETS_ROOT=str(tmp_path))
    assert ring("a=env:NEW").decrypt(ours.encrypt(PLAIN, "c"), "c") == PLAIN


def test_no_keys_no_encryption() -> None:
    """Unset and empty."""
    assert load_encryption({}) is None
    assert load_encryption({"ACKBRIDGE_ENCRYPTION_KEYS": " "}) is None


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("env:NEW", "expected id=reference"),
        ("a b=env:NEW", "expected id=reference"),
        ("a=env:NEW,a=env:OLD", "'a' is there twice"),
        ("a=env:MISSING", "a: env:MISSING: is not set"),
        ("a=env:SHORT", "a: env:SHORT: is not a key of 32 bytes"),
        ("a=env:TEXT", "a: env:TEXT: is not a key of 32 bytes"),
        ("a=vault:x", "a: not a secret reference"),
        ("a=kms:", "a: kms: names no key"),
        (",", "there is no key in it"),
    ],
)
def test_bad_settings(keys: str, complaint: str) -> None:
    """They are refused by name, without a value."""
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        ring(keys, SHORT="c2hvcnQ=", TEXT="not base64!")
    assert "c2hvcnQ" not in str(refused.value)


class RemoteKey(LocalKey):
    """A key service that can be switched off, and counts its requests."""

    is_remote = True

    def __init__(self) -> None:
        super().__init__(bytes(KEY_BYTES))
        self.requests, self.is_away = 0, False

    def recreate(self, recipe: bytes) -> bytes:
        self.requests += 1
        if self.is_away:
            raise KeyServiceError("away")
        return super().recreate(recipe)


class Remote:
    """An encryption with such a key, and a clock."""

    def __init__(self, key: RemoteKey | None = None) -> None:
        self.key, self.now = key or RemoteKey(), 0.0
        self.encryption = Encryption(KeyRing({"kms": self.key}, "kms"), lambda: self.now)


def test_data_keys_are_cached() -> None:
    """One request for each data key, when encrypting and when decrypting."""
    writer = Remote()
    assert not writer.encryption.is_ready()
    sealed = [writer.encryption.encrypt(PLAIN, "c") for _ in range(50)]
    assert writer.encryption.is_ready()
    assert writer.key.requests == 1
    reader = Remote()
    assert not reader.encryption.is_ready(sealed[0])
    reader.encryption.fetch_key(sealed[0])
    assert reader.encryption.is_ready(sealed[1])
    assert all(reader.encryption.decrypt(one, "c") == PLAIN for one in sealed)
    assert reader.key.requests == 1


def test_data_keys_are_limited_in_time() -> None:
    """A new one encrypts after an hour; old ones are asked for again."""
    ours = Remote()
    first = ours.encryption.encrypt(PLAIN, "c")
    ours.now = encryption.DATA_KEY_SECONDS
    assert not ours.encryption.is_ready()
    assert not ours.encryption.is_ready(first)
    second = ours.encryption.encrypt(PLAIN, "c")
    assert ours.key.requests == 2
    assert first[:27] != second[:27]
    assert ours.encryption.decrypt(first, "c") == PLAIN
    assert ours.key.requests == 3


def test_data_keys_are_limited_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one after so many uses."""
    monkeypatch.setattr(encryption, "DATA_KEY_USES", 10)
    ours = Remote()
    for _ in range(30):
        ours.encryption.encrypt(PLAIN, "c")
    assert ours.key.requests == 3


def test_the_key_service_is_away() -> None:
    """A data key is used for an hour longer, then encrypting fails; it recovers by itself."""
    ours = Remote()
    sealed = ours.encryption.encrypt(PLAIN, "c")
    ours.key.is_away = True
    ours.now = encryption.DATA_KEY_SECONDS * 1.5
    assert ours.encryption.encrypt(PLAIN, "c")[:27] == sealed[:27]
    ours.now = encryption.DATA_KEY_SECONDS * 2
    with pytest.raises(KeyServiceError):
        ours.encryption.encrypt(PLAIN, "c")
    with pytest.raises(KeyServiceError):
        ours.encryption.decrypt(sealed, "c")
    ours.key.is_away = False
    assert ours.encryption.decrypt(sealed, "c") == PLAIN
    assert ours.encryption.encrypt(PLAIN, "c")
