"""Resolve secret references."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path

from ackbridge.errors import SecretError

REFERENCE_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+)$"
"""`env:NAME` or `file:/path`; a relative path starts at `ACKBRIDGE_SECRETS_ROOT`."""

WEBHOOK_PREFIX = "whsec_"
"""Of Standard Webhooks secrets."""

_REFERENCE = re.compile(REFERENCE_PATTERN[:-1] + r"\Z")
_MAX_FILE_BYTES = 64 * 1024


def is_secret_ref(text: str) -> bool:
    return _REFERENCE.match(text) is not None


_current: ContextVar[Secrets | None] = ContextVar("current", default=None)


def current_secret(ref: str) -> str:
    """Resolve a reference by the `Secrets` that are used in this task; raises `SecretError`."""
    secrets = _current.get()
    if secrets is None:
        raise SecretError(f"{ref}: secrets are not available here")
    return secrets.resolve(ref)


class Secrets:
    """Resolves `env:NAME` and `file:/path`.

    Nothing is cached: a file is read for every use, so that a rotation takes effect without a
    restart. Neither the repr nor the errors of this class contain values.
    """

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        """Resolve `env:` in `environ`, and relative `file:` paths from `root`."""
        self._environ = environ
        self._root = root

    def use_in_task(self) -> None:
        """Let expressions resolve references, in this task of asyncio and those it starts."""
        _current.set(self)

    def resolve(self, ref: str) -> str:
        """Return the secret behind a reference, without the newline at the end of a file.

        Raises:
            SecretError: it is missing, unreadable or empty; the text names the reference only.
        """
        if not is_secret_ref(ref):
            # Not repeated: it may be a secret, pasted instead of a reference.
            raise SecretError("not a secret reference: expected env:NAME or file:/path")
        kind, _, name = ref.partition(":")
        value = self._variable(ref, name) if kind == "env" else self._file(ref, name)
        if not value.strip():
            # Anybody could sign with an empty key.
            raise SecretError(f"{ref}: is empty")
        return value

    def text(self, plain_or_ref: str) -> str:
        """Return a plain text unchanged, and resolve a reference; raises as `resolve`."""
        return self.resolve(plain_or_ref) if is_secret_ref(plain_or_ref) else plain_or_ref

    def webhook_key(self, ref: str) -> bytes:
        """The key of a Standard Webhooks secret, base64 after a `whsec_`; raises `SecretError`."""
        secret = self.resolve(ref).removeprefix(WEBHOOK_PREFIX)
        try:
            key = base64.b64decode(secret + "==")
        except ValueError:
            key = b""
        if not key:
            raise SecretError(f"{ref}: is not a Standard Webhooks secret (whsec_...)")
        return key

    def _variable(self, ref: str, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise SecretError(f"{ref}: is not set")
        return value

    def _file(self, ref: str, path: str) -> str:
        try:
            with (self._root / path).open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise SecretError(f"{ref}: cannot be read ({error.strerror})") from None
        if len(content) > _MAX_FILE_BYTES:
            raise SecretError(f"{ref}: is longer than {_MAX_FILE_BYTES} bytes")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(f"{ref}: is not UTF-8 text") from None
